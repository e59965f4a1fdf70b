//! The client: one call, at most one POST, and a record of whether bytes of it may have left (R4).

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use connector_domain::command::NumberState;
use connector_domain::ids::{OrganizationId, PhoneNumberId, WabaId};
use connector_domain::outcome::{Answer, BytesLeft, Exchange, GraphError, Transport};
use connector_domain::template::Template;
use connector_ports::whatsapp::{BusinessProfile, Outbound, WhatsApp, WhatsAppError};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Client, Method, RequestBuilder, Response, Url};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

use super::answer::{NOBODY, read_answer, unreadable};
use super::config::GraphConfig;
use super::request::request_body;

/// More than any answer to a send; a gateway's endless page must not fill the memory.
const SEND_ANSWER_LIMIT: usize = 64 * 1024;

/// What stands in for WhatsApp's refusal of a request that was not made because it cannot be right: "invalid parameter".
const INVALID_PARAMETER: Answer = Answer::Http {
    status: 400,
    wamid: None,
    held: false,
    person: NOBODY,
    error: Some(GraphError { code: 100, subcode: None }),
    readable: true,
};

/// Why a client cannot be built. No retry: the configuration or the TLS installation is at fault.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The base URL does not work with the version appended.
    #[error("the base URL of the Graph API is not a URL that paths can be appended to")]
    BaseUrl,
    /// TLS could not be set up.
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
    /// No threads for it.
    #[error("the threads of the HTTP client cannot be started")]
    Threads(#[source] io::Error),
}

/// Where the bytes of sends move. A thousand POSTs on their way are thousands of small tasks: in a queue with the caller's own they
/// would make everything else of the process wait, the next batch of messages included.
#[derive(Debug)]
struct Wires(Option<Runtime>);

impl Wires {
    fn new() -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let runtime =
            Builder::new_multi_thread().worker_threads(threads).thread_name("graph-api").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// The answer to a request. When nobody waits for it any more, the request ends.
    async fn exchange(&self, request: RequestBuilder) -> Answer {
        let Some(runtime) = &self.0 else { return Answer::Transport(Transport::Other) };
        match AbortOnDropHandle::new(runtime.spawn(exchange(request))).await {
            Ok(answer) => answer.unwrap_or_else(|error| Answer::Transport(classify(&error))),
            Err(error) => {
                tracing::error!(%error, "a request ended by itself");
                Answer::Transport(Transport::Other)
            }
        }
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        // Not waiting for threads: the last clone may be dropped by one that must not block.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The Graph API over HTTP/1.1. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct GraphClient {
    pub(super) config: Arc<GraphConfig>,
    http: Client,
    root: Url,
    wires: Arc<Wires>,
}

impl GraphClient {
    /// A client that has not connected yet.
    ///
    /// # Errors
    /// When the base URL or TLS does not work.
    pub fn new(config: GraphConfig) -> Result<Self, BuildError> {
        let root = format!("{}/{}/", config.base_url.trim_end_matches('/'), config.version);
        let root = Url::parse(&root).ok().filter(|root| !root.cannot_be_a_base()).ok_or(BuildError::BaseUrl)?;
        let http = Client::builder()
            .user_agent(concat!("multiline-whatsapp-connector/", env!("CARGO_PKG_VERSION")))
            // Each of these could turn one call into another POST, or send it somewhere else.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            // In HTTP/1 the body is polled before the head is flushed. In HTTP/2 the head would leave first, and "the body was
            // never polled" would no longer mean that nothing left.
            .http1_only()
            .timeout(config.timeout)
            .connect_timeout(config.connect_timeout)
            .pool_max_idle_per_host(config.pool_size)
            .pool_idle_timeout(config.pool_idle)
            .tcp_nodelay(true)
            .build()
            .map_err(BuildError::Client)?;
        let wires = Arc::new(Wires::new().map_err(BuildError::Threads)?);
        Ok(Self { config: Arc::new(config), http, root, wires })
    }

    /// The URL of `<id>/<edge>`; `None` for an id that is not one path segment of letters and digits, so that an id from a
    /// command can never choose another path.
    pub(super) fn url(&self, id: &str, edge: &str) -> Option<Url> {
        let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric());
        let path = if edge.is_empty() { id.to_owned() } else { format!("{id}/{edge}") };
        plain.then(|| self.root.join(&path).ok()).flatten()
    }

    /// A request with today's token. `None` when the token cannot be read.
    pub(super) fn request(&self, method: Method, url: Url) -> Option<RequestBuilder> {
        match self.config.token.current() {
            Ok(token) => Some(self.http.request(method, url).bearer_auth(token.expose())),
            Err(error) => {
                tracing::warn!(error = %error, "the access token cannot be read");
                None
            }
        }
    }
}

#[async_trait]
impl WhatsApp for GraphClient {
    fn longest_send(&self) -> Duration {
        self.config.timeout
    }

    /// An outbound that cannot be a request (no recipient, nothing to send, an id that is none) gets the answer WhatsApp would
    /// give, code 100, without asking. A token that cannot be read is a failure before any byte left.
    async fn send(&self, outbound: &Outbound) -> Exchange {
        let url = self.url(outbound.phone_number_id.as_str(), "messages");
        let (Some(url), Some(json)) = (url, request_body(outbound)) else {
            return Exchange { left: BytesLeft::No, answer: INVALID_PARAMETER };
        };
        let Some(request) = self.request(Method::POST, url) else {
            return Exchange { left: BytesLeft::No, answer: Answer::Transport(Transport::Other) };
        };
        let (body, length, polled) = recording_body(json.to_string());
        let request = request.header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, length).body(body);
        let answer = self.wires.exchange(request).await;
        // An answer is proof enough, even if a server gave it before it read anything.
        let answered = matches!(answer, Answer::Http { .. });
        let left = if answered || polled.load(Ordering::Acquire) { BytesLeft::Maybe } else { BytesLeft::No };
        match &answer {
            Answer::Http { status, error, .. } => {
                let code = error.map(|error| error.code);
                tracing::debug!(attempt_id = %outbound.attempt_id, status, code, "WhatsApp answered a send");
            }
            Answer::Transport(failure) => {
                tracing::debug!(attempt_id = %outbound.attempt_id, ?failure, ?left, "WhatsApp did not answer a send");
            }
        }
        Exchange { left, answer }
    }

    async fn templates(&self, organization: &OrganizationId, waba: &WabaId) -> Result<Vec<Template>, WhatsAppError> {
        self.list_templates(organization, waba).await
    }

    async fn number_state(&self, number: &PhoneNumberId) -> Result<NumberState, WhatsAppError> {
        self.read_number_state(number).await
    }

    async fn profile(&self, number: &PhoneNumberId) -> Result<BusinessProfile, WhatsAppError> {
        self.read_profile(number).await
    }

    async fn set_profile(&self, number: &PhoneNumberId, profile: &BusinessProfile) -> Result<(), WhatsAppError> {
        self.write_profile(number, profile).await
    }
}

async fn exchange(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    Ok(read_bounded(response, SEND_ANSWER_LIMIT).await?.map_or(unreadable(status), |body| read_answer(status, &body)))
}

/// A body that notes when it is first asked for. That happens once there is a connection and the head is about to be
/// written, so a body nobody asked for is a request of which no byte left. As it cannot be cloned, it cannot be sent twice.
fn recording_body(json: String) -> (Body, usize, Arc<AtomicBool>) {
    let length = json.len();
    let polled = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&polled);
    let stream = futures::stream::once(async move {
        noted.store(true, Ordering::Release);
        Ok::<_, io::Error>(json)
    });
    (Body::wrap_stream(stream), length, polled)
}

/// The body of an answer, or `None` when it is longer than `limit`.
pub(super) async fn read_bounded(mut response: Response, limit: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

pub(super) fn classify(error: &reqwest::Error) -> Transport {
    // A connect timeout is both; that there was no connection says more.
    if error.is_dns() {
        return Transport::Dns;
    }
    if error.is_connect() {
        return Transport::Connect;
    }
    if error.is_timeout() {
        return Transport::Timeout;
    }
    // What is left of a request or body error is a connection that ended too early, whichever way it was noticed.
    if error.is_request() || error.is_body() || error.is_decode() || has_io_cause(error) {
        Transport::Reset
    } else {
        Transport::Other
    }
}

fn has_io_cause(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

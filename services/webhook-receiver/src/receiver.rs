//! Answers requests: set-up, and deliveries.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use connector_contracts::headers::{TRACEPARENT, dlq, rfc3339};
use connector_contracts::{Topic, encode_webhook_item};
use connector_domain::command::WebhookKind;
use connector_domain::time::Timestamp;
use connector_host::server::Client;
use connector_ports::Appender;
use connector_ports::log::{Append, Header, LogError, TopicName};
use connector_runtime::platform::Platform;
use connector_telemetry::metrics::{Delivery, ItemKind};
use connector_telemetry::{current_traceparent, span_from};
use connector_whatsapp::signature::{SIGNATURE_HEADER, SignatureError};
use connector_whatsapp::webhook::{Piece, SplitError, pieces};
use subtle::ConstantTimeEq;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::SERVICE;
use crate::config::Config;
use crate::intake::Intake;

/// What the smallest delivery takes of the budget: bounds the number of deliveries at work, too.
const LEAST: usize = 64 * 1024;

/// A delivery is in memory as body, as items and as records.
const COPIES: usize = 3;

/// What a record holds beside the item itself: the facts of its delivery, and whose it is.
const FACTS: usize = 256;

/// Longest challenge that is sent back. Meta's are ten digits.
const MAX_CHALLENGE: usize = 256;

/// Answers Meta.
pub struct Receiver {
    config: Config,
    platform: Platform,
    webhooks: TopicName,
    dead_letters: TopicName,
    intake: Intake,
    appender: OnceCell<Box<dyn Appender>>,
}

/// Why a delivery is not taken.
pub(crate) enum Refusal {
    ContentType,
    TooLarge,
    Slow,
    Broken,
    Busy,
    BadSignature,
    /// Ours; Meta comes again.
    Unavailable,
}

impl Receiver {
    /// A receiver on a platform.
    #[must_use]
    pub fn new(config: Config, platform: Platform) -> Arc<Self> {
        Arc::new(Self {
            webhooks: platform.topic(Topic::Webhooks),
            dead_letters: platform.topics.dlq(Topic::Webhooks).into(),
            intake: Intake::new(config.memory, config.max_body),
            appender: OnceCell::new(),
            config,
            platform,
        })
    }

    /// The routes.
    pub fn router(self: Arc<Self>) -> Router {
        let path = self.config.path.clone();
        Router::new().route(&path, get(confirm).post(deliver)).with_state(self)
    }

    async fn take(&self, headers: &HeaderMap, client: Option<&Client>, body: Body) -> Result<(), Refusal> {
        if !is_json(headers) {
            return Err(Refusal::ContentType);
        }
        // Before a byte of it is read, and before anything is reserved for it.
        let signature = headers.get(SIGNATURE_HEADER).map(HeaderValue::as_bytes);
        self.config.verifier.plausible(signature).map_err(|error| unbelieved(&error))?;
        let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > self.config.max_body) {
            return Err(Refusal::TooLarge);
        }
        let read = timeout(self.config.body_timeout, self.intake.read(body, declared));
        let (body, mut memory) = read.await.map_err(|_| Refusal::Slow)??;
        let received_at = self.platform.clock.now();
        self.config.verifier.verify(signature, &body).map_err(|error| unbelieved(&error))?;
        // It is Meta's: from now on nobody takes its place.
        let _at_work = client.map(Client::at_work);
        memory.at_least((COPIES * body.len()).max(LEAST)).await?;
        self.keep(body, received_at).await
    }

    /// Makes a signed delivery durable.
    async fn keep(&self, body: Bytes, received_at: Timestamp) -> Result<(), Refusal> {
        let started = Instant::now();
        let traceparent = current_traceparent();
        let (records, counts) = match pieces(&body) {
            Ok(pieces) => {
                let records = self.records(&pieces, body.len(), received_at, traceparent.as_deref())?;
                (records, Some(counted(&pieces)))
            }
            Err(error) => (vec![self.dead_letter(body.clone(), &error, received_at, traceparent.as_deref())], None),
        };
        if !records.is_empty() {
            self.append(records).await?;
        }
        let webhook = &self.platform.metrics.webhook;
        webhook.acknowledged(started.elapsed());
        match counts {
            Some(counts) => {
                webhook.delivery(Delivery::Acknowledged);
                for (kind, count) in counts {
                    webhook.items(kind, count);
                }
            }
            None => webhook.delivery(Delivery::Unreadable),
        }
        Ok(())
    }

    async fn append(&self, records: Vec<Append>) -> Result<(), Refusal> {
        let written = async {
            let open = || async { self.platform.log.appender().await };
            self.appender.get_or_try_init(open).await?.append(records).await
        };
        match timeout(self.config.ack_timeout, written).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error @ LogError::TooLarge { .. })) => {
                // It stays too large: 503 would only bring it again.
                tracing::error!(%error, "a delivery does not fit into the topic; see connectorctl topics check");
                Err(Refusal::TooLarge)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "a delivery is not durable");
                Err(Refusal::Unavailable)
            }
            Err(_) => {
                tracing::warn!("a delivery is not durable: no acknowledgement in time");
                Err(Refusal::Unavailable)
            }
        }
    }

    /// The records of a delivery. They share one piece of memory, into which everything is copied once.
    fn records(
        &self,
        pieces: &[Piece<'_>],
        bytes: usize,
        received_at: Timestamp,
        traceparent: Option<&str>,
    ) -> Result<Vec<Append>, Refusal> {
        let delivery_id = self.platform.ids.fresh().to_string();
        let mut values = Vec::with_capacity(bytes + pieces.len() * FACTS);
        let mut ends = Vec::with_capacity(pieces.len());
        for piece in pieces {
            encode_webhook_item(&piece.item(received_at, &delivery_id), &mut values).map_err(|error| {
                tracing::error!(%error, "an item cannot be written");
                Refusal::Unavailable
            })?;
            ends.push(values.len());
        }
        let mut values = Bytes::from(values);
        let mut from = 0;
        let record = |(piece, end): (&Piece<'_>, usize)| {
            let value = values.split_to(end - from);
            from = end;
            Append {
                topic: self.webhooks.clone(),
                partition: None,
                key: Some(piece.key(&self.platform.keys).into()),
                value: Some(value),
                headers: trace(traceparent),
            }
        };
        Ok(pieces.iter().zip(ends).map(record).collect())
    }

    /// Meta signed it, so it is kept, although nobody can split it.
    fn dead_letter(&self, body: Bytes, error: &SplitError, at: Timestamp, traceparent: Option<&str>) -> Append {
        let reason = match error {
            SplitError::NotJson => "not_json",
            SplitError::NotAnObject => "not_an_object",
        };
        tracing::warn!(reason, "a signed delivery goes to the dead letters");
        let mut headers = trace(traceparent);
        for (name, value) in [
            (dlq::ORIGINAL_TOPIC, self.webhooks.to_string()),
            (dlq::REASON, reason.to_owned()),
            (dlq::DETAIL, error.to_string()),
            (dlq::SERVICE, SERVICE.to_owned()),
            (dlq::FAILED_AT, rfc3339(at)),
        ] {
            headers.push((name.into(), Some(Bytes::from(value))));
        }
        Append { topic: self.dead_letters.clone(), partition: None, key: None, value: Some(body), headers }
    }
}

fn counted(pieces: &[Piece<'_>]) -> [(ItemKind, u64); 3] {
    let mut counts = [(ItemKind::Message, 0), (ItemKind::Status, 0), (ItemKind::Change, 0)];
    for piece in pieces {
        let at = match piece.kind() {
            WebhookKind::Message => 0,
            WebhookKind::Status => 1,
            _ => 2,
        };
        counts[at].1 += 1;
    }
    counts
}

fn trace(traceparent: Option<&str>) -> Vec<Header> {
    traceparent.map(|value| (TRACEPARENT.into(), Some(Bytes::from(value.to_owned())))).into_iter().collect()
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn unbelieved(error: &SignatureError) -> Refusal {
    if error.is_ours() {
        tracing::error!(%error, "deliveries cannot be checked");
        return Refusal::Unavailable;
    }
    Refusal::BadSignature
}

/// `GET`: Meta confirms the callback URL.
async fn confirm(State(receiver): State<Arc<Receiver>>, Query(query): Query<Vec<(String, String)>>) -> Response {
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let given = value("hub.verify_token").as_bytes();
    let known =
        (receiver.config.verify_token.as_ref()).is_some_and(|token| bool::from(token.expose().as_bytes().ct_eq(given)));
    let challenge = value("hub.challenge");
    let plain = !challenge.is_empty() && challenge.len() <= MAX_CHALLENGE;
    if known && plain && value("hub.mode") == "subscribe" {
        let no_sniff = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        (no_sniff, challenge.to_owned()).into_response()
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}

/// `POST`: a delivery.
async fn deliver(
    State(receiver): State<Arc<Receiver>>,
    client: Option<Extension<Client>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let parent = parts.headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let span = span_from(parent, tracing::info_span!("webhook delivery"));
    let refusal = match receiver.take(&parts.headers, client.as_deref(), body).instrument(span).await {
        Ok(()) => return StatusCode::OK.into_response(),
        Err(refusal) => refusal,
    };
    let (result, status) = match refusal {
        Refusal::ContentType => (Delivery::Unreadable, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        Refusal::Slow => (Delivery::Unreadable, StatusCode::REQUEST_TIMEOUT),
        Refusal::Broken => (Delivery::Unreadable, StatusCode::BAD_REQUEST),
        Refusal::TooLarge => (Delivery::TooLarge, StatusCode::PAYLOAD_TOO_LARGE),
        Refusal::BadSignature => (Delivery::BadSignature, StatusCode::UNAUTHORIZED),
        Refusal::Busy | Refusal::Unavailable => (Delivery::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
    };
    receiver.platform.metrics.webhook.delivery(result);
    let mut response = status.into_response();
    let headers = response.headers_mut();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER.as_secs()));
    }
    // The rest of the body may not have been read: there is no next request on this connection.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// When Meta may come again after a 503.
const RETRY_AFTER: Duration = Duration::from_secs(5);

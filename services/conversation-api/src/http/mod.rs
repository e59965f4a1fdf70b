//! The HTTP API. Every moment in it is a number of milliseconds since 1970 (UTC); every error is a problem (RFC 9457).
//!
//! | route | does |
//! |---|---|
//! | `POST /v1/commands/send`, `POST /v1/commands/consent` | appends a command: 202 and where its outcome will be. `Idempotency-Key` makes it repeatable |
//! | `GET /v1/commands/{command_id}?wait=&until=` | the outcome; waits for it up to 30 s. 202 and `pending` while it has none |
//! | `GET /v1/directory/numbers[/{phone_number_id}]` | the business numbers of the organization |
//! | `PUT`, `DELETE /v1/directory/numbers/{phone_number_id}` | assigns a number, by an operator's token |
//! | `PUT`, `DELETE /v1/directory/users/{user}[/contacts/{contact}]` | users and their contacts |
//! | `GET /v1/users/{user}/notices` | what the user has to be told once (P2) |
//! | `GET /v1/users/{user}/events?after=&limit=&wait=` | the events of a user: enablement, notices, contacts |
//! | `GET /v1/conversations?user_id=` | the conversations of a user |
//! | `POST /v1/conversations/resolve` | the conversation with a phone number or BSUID |
//! | `GET /v1/conversations/{id}?user_id=` | composer state and summary |
//! | `GET /v1/conversations/{id}/events?after=&limit=&wait=` | its events in the order of the log |
//! | `GET /v1/conversations/{id}/messages?before=&limit=` | its messages in the order of the log; `previous` leads to those before |
//! | `GET /v1/templates?phone_number_id=`, `POST /v1/templates/preview` | the catalogue (P13) |
//! | `GET`, `PUT /v1/numbers/{phone_number_id}/profile` | the business profile (P8) |
//! | `GET /v1/stream?conversation=&user_id=` | events as they come (SSE); of a user: those of their conversations, and their own |

pub(crate) mod auth;
mod commands;
mod directory;
mod extract;
mod form;
mod idempotency;
mod numbers;
mod problem;
mod reads;
mod stream;
mod templates;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use connector_domain::command::DirectoryRecord;
use connector_domain::ids::{OrganizationId, PhoneNumberId};
use connector_domain::template::Template;
use connector_ports::WhatsApp;
use connector_ports::log::Append;
use connector_runtime::platform::Platform;
use connector_runtime::table::Table;
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::ReadModel;
use crate::pending::Pending;
use crate::write::Writer;
use auth::Tokens;
use problem::Problem;

/// The longest wait of one request: shorter than the idle limits of usual proxies.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long a table may take to catch up before the answer is 503.
const SETTLE: Duration = Duration::from_secs(2);

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) platform: Platform,
    pub(crate) model: Arc<dyn ReadModel>,
    /// Told of every change of the model.
    pub(crate) changes: watch::Receiver<u64>,
    pub(crate) tokens: Arc<Tokens>,
    /// Without them numbers are assigned by `connectorctl` or in the topic only.
    pub(crate) operators: Option<Arc<Tokens>>,
    pub(crate) numbers: Table<DirectoryRecord>,
    pub(crate) templates: Table<Template>,
    pub(crate) whatsapp: Arc<dyn WhatsApp>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) pending: Pending,
}

impl Api {
    async fn append(&self, append: Append) -> Result<(), Problem> {
        Ok(self.writer.append(append).await?)
    }

    /// The record of a number, if it belongs to the organization (P4).
    async fn number(
        &self,
        organization: &OrganizationId,
        number: &PhoneNumberId,
    ) -> Result<Option<Arc<DirectoryRecord>>, Problem> {
        let record = self.numbers.newest(&format!("number/{number}"), SETTLE).await?;
        Ok(record.filter(|record| record.is_of(organization)))
    }

    /// To ask again after every change of the model, for as long as `within`.
    fn patience(&self, within: Duration) -> Patience {
        let (clock, within) = (self.platform.clock.clone(), within.min(LONGEST_WAIT));
        let over = async move { clock.sleep(within).await }.boxed();
        Patience { none: within.is_zero(), over, changes: self.changes.clone(), shutdown: self.shutdown.clone() }
    }
}

/// How long a request waits for its answer.
struct Patience {
    none: bool,
    over: BoxFuture<'static, ()>,
    changes: watch::Receiver<u64>,
    shutdown: CancellationToken,
}

impl Patience {
    /// Waits for the next change of the model; false when there is no more time.
    async fn change(&mut self) -> bool {
        if self.none {
            return false;
        }
        tokio::select! {
            () = &mut self.over => false,
            () = self.shutdown.cancelled() => false,
            changed = self.changes.changed() => changed.is_ok(),
        }
    }
}

/// A wait as `10s` or `1500ms`; a bare number is seconds.
fn parse_wait(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Duration::ZERO) };
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: Option<u64> = digits.parse().ok();
    let wait = match (number, unit) {
        (Some(number), "ms") => Some(Duration::from_millis(number)),
        (Some(number), "s" | "") => Some(Duration::from_secs(number)),
        _ => None,
    };
    wait.ok_or_else(|| Problem::field("wait", "expected a duration such as 10s or 500ms"))
}

macro_rules! routes {
    ($($path:literal => $method:expr;)*) => {
        /// The patterns of all routes, as labels of metrics.
        const ROUTES: &[&str] = &[$($path),*];

        fn all() -> Router<Api> {
            Router::new()$(.route($path, $method))*
        }
    };
}

routes! {
    "/v1/commands/send" => post(commands::send);
    "/v1/commands/consent" => post(commands::consent);
    "/v1/commands/{command_id}" => get(reads::command);
    "/v1/directory/numbers" => get(directory::numbers);
    "/v1/directory/numbers/{phone_number_id}" =>
        get(directory::number).put(directory::put_number).delete(directory::delete_number);
    "/v1/directory/users/{user}" => put(directory::put_user).delete(directory::delete_user);
    "/v1/directory/users/{user}/contacts/{contact}" => put(directory::put_contact).delete(directory::delete_contact);
    "/v1/users/{user}/notices" => get(reads::notices);
    "/v1/users/{user}/events" => get(reads::user_events);
    "/v1/conversations" => get(reads::conversations);
    "/v1/conversations/resolve" => post(numbers::resolve);
    "/v1/conversations/{id}" => get(reads::conversation);
    "/v1/conversations/{id}/events" => get(reads::events);
    "/v1/conversations/{id}/messages" => get(reads::messages);
    "/v1/templates" => get(templates::list);
    "/v1/templates/preview" => post(templates::preview);
    "/v1/numbers" => get(numbers::list);
    "/v1/numbers/{phone_number_id}" => get(numbers::number);
    "/v1/numbers/{phone_number_id}/profile" => get(numbers::profile).put(numbers::put_profile);
    "/v1/stream" => get(stream::stream);
}

/// The API as a service of axum.
pub(crate) fn router(api: Api) -> Router {
    all()
        .fallback(async || Problem::not_found("address"))
        .method_not_allowed_fallback(async || Problem::method())
        .layer(axum::middleware::from_fn_with_state(api.clone(), count))
        .layer(DefaultBodyLimit::max(256 * 1024))
        .with_state(api)
}

async fn count(State(api): State<Api>, path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let route = path.and_then(|path| ROUTES.iter().find(|route| **route == path.as_str())).unwrap_or(&"unknown");
    let started = Instant::now();
    let response = match extract::too_large(&request) {
        Some(problem) => problem.into_response(),
        // A mistake of ours costs one answer, and not the connection without a word.
        None => AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(route, "a request ended in a panic");
            Problem::internal().into_response()
        }),
    };
    api.platform.metrics.api.request(route, response.status().as_u16(), started.elapsed());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_have_units() {
        assert_eq!(parse_wait(None).ok(), Some(Duration::ZERO));
        assert_eq!(parse_wait(Some("10s")).ok(), Some(Duration::from_secs(10)));
        assert_eq!(parse_wait(Some("250ms")).ok(), Some(Duration::from_millis(250)));
        assert_eq!(parse_wait(Some("3")).ok(), Some(Duration::from_secs(3)));
        for wrong in ["s", "1h", "-1s", "1.5s"] {
            assert!(parse_wait(Some(wrong)).is_err(), "{wrong}");
        }
    }
}

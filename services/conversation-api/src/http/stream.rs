//! `GET /v1/stream`: events as they come, as server-sent events. Each carries its cursor as `id`, so that a client that comes back with
//! `Last-Event-ID` (browsers do by themselves) misses nothing.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use connector_domain::ids::{StreamId, UserId};
use futures::Stream;
use serde::Deserialize;
use tokio::sync::watch;

use super::Api;
use super::auth::Caller;
use super::directory::{check_conversation, check_id};
use super::extract::Query;
use super::problem::Problem;
use super::reads::parse_cursor;
use crate::model::{EventQuery, Scope, StoredEvent};

/// Below the idle limits of usual proxies.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
pub(crate) struct StreamQuery {
    conversation: Option<String>,
    user_id: Option<String>,
    after: Option<String>,
}

struct Live {
    api: Api,
    changes: watch::Receiver<u64>,
    question: EventQuery,
    ready: VecDeque<StoredEvent>,
}

pub(crate) async fn stream(
    State(api): State<Api>,
    Caller(organization): Caller,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let user = query.user_id.filter(|user| !user.is_empty()).map(UserId);
    user.as_ref().map_or(Ok(()), |user| check_id("user_id", user))?;
    let scope = match (query.conversation.map(StreamId), &user) {
        (None, None) => Scope::Organization,
        (None, Some(user)) => Scope::User { user: user.clone(), own: api.platform.keys.user(&organization, user) },
        (Some(id), _) => {
            check_conversation("conversation", &id)?;
            let found = api.model.canonical(&organization, user.as_ref(), &id).await?;
            Scope::Conversation(found.ok_or_else(|| Problem::not_found("conversation"))?)
        }
    };
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let after = match last.or(query.after) {
        Some(cursor) => parse_cursor("after", Some(&cursor))?,
        None => api.model.positions().await?,
    };
    let question = EventQuery { organization, scope, after, limit: 100 };
    let live = Live { changes: api.changes.clone(), api, question, ready: VecDeque::new() };
    let events = futures::stream::unfold(live, |mut live| async {
        let event = next(&mut live).await?;
        let shown = Event::default().id(&event.cursor).event(&event.event_type).json_data(&event).ok()?;
        Some((Ok(shown), live))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// The next event; `None` ends the stream: the client comes back, to another instance perhaps.
async fn next(live: &mut Live) -> Option<StoredEvent> {
    loop {
        if let Some(event) = live.ready.pop_front() {
            live.question.after = event.cursor.parse().ok()?;
            return Some(event);
        }
        live.changes.mark_unchanged();
        // What lies below the positions was looked through when nothing of it is ours: never again.
        let below = live.api.model.positions().await.ok()?;
        live.ready = live.api.model.events(&live.question).await.ok()?.into();
        if live.ready.is_empty() {
            live.question.after.pass_all(&below);
            tokio::select! {
                () = live.api.shutdown.cancelled() => return None,
                changed = live.changes.changed() => changed.ok()?,
            }
        }
    }
}

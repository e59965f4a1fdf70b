//! The opt-in message of an open request, until it is known to have failed: then the request is over, too.
//!
//! Admission may refuse the message, dispatch may withdraw it, WhatsApp may refuse it at once, or take it and report its failure later by
//! a status. A status may know the message by our attempt, by its wamid, or by both, and may come before our own word on either.

use connector_domain::decide::Reason;
use connector_domain::event::{Event, OptInFailed, Recorded};
use connector_domain::ids::{AttemptId, CommandId, EventId, Wamid};
use connector_domain::status::DeliveryStatus;
use connector_domain::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Failures of messages that are not known yet: more than come before our own word on one message.
const EARLY: usize = 8;

/// The word for a failure that a status tells of.
const UNDELIVERED: &str = "undelivered";

/// An opt-in message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asking {
    message: CommandId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<AttemptId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wamid: Option<Wamid>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    early: Vec<Failure>,
}

/// A failed status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Failure {
    source: EventId,
    attempt: Option<AttemptId>,
    wamid: Wamid,
    code: Option<i64>,
}

/// Whether an event may tell what became of an opt-in message.
pub(crate) const fn about(event: &Event) -> bool {
    match event {
        Event::MessageSent(_)
        | Event::MessageFailed(_)
        | Event::MessageRejected(_)
        | Event::MessageUnconfirmed(_)
        | Event::OptInRequested(_) => true,
        // The other statuses are the bulk of the log, and whoever has the message was asked.
        Event::MessageStatusChanged(status) => matches!(status.status, DeliveryStatus::Failed),
        _ => false,
    }
}

/// What an event says about the opt-in message of the request that ends at `expires_at` (`None`: no request is open): its end, if it
/// failed.
pub(crate) fn follow(
    asking: &mut Option<Asking>,
    expires_at: Option<Timestamp>,
    recorded: &Recorded,
) -> Option<OptInFailed> {
    let Some(expires_at) = expires_at else {
        *asking = None;
        return None;
    };
    let event = &recorded.event;
    if let Event::OptInRequested(requested) = event {
        // A request that changed nothing (the contact had answered already) has no message to wait for.
        if let Some(message) = requested.message_id.filter(|_| requested.expires_at == expires_at) {
            *asking = Some(Asking { message, attempt: None, wamid: None, early: Vec::new() });
        }
        return None;
    }
    let (source, reason, error_code) = asking.as_mut()?.heard(recorded)?;
    *asking = None;
    Some(OptInFailed { expires_at, source, reason, error_code })
}

impl Asking {
    /// The source, the reason and the code of the message's failure.
    fn heard(&mut self, recorded: &Recorded) -> Option<(EventId, String, Option<i64>)> {
        let Recorded { envelope, event } = recorded;
        if let Event::MessageStatusChanged(status) = event {
            let (attempt, wamid, code) = (status.attempt_id, status.wamid.clone(), status.error_code);
            let failure = Failure { source: envelope.event_id, attempt, wamid, code };
            if status.status != DeliveryStatus::Failed {
                return None;
            }
            if self.is_mine(&failure) {
                return Some(failure.told());
            }
            if self.wamid.is_none() {
                self.early.push(failure);
                let surplus = self.early.len().saturating_sub(EARLY);
                self.early.drain(..surplus);
            }
            return None;
        }
        if envelope.command_id != Some(self.message) {
            return None;
        }
        match event {
            Event::MessageRejected(rejected) if rejected.reason == Reason::Conflict.as_str() => None,
            Event::MessageRejected(rejected) => Some((envelope.event_id, rejected.reason.clone(), None)),
            Event::MessageFailed(failed) => Some((envelope.event_id, failed.reason.clone(), failed.error_code)),
            Event::MessageSent(sent) => {
                self.attempt = Some(sent.attempt_id);
                self.wamid = Some(sent.wamid.clone());
                self.of_early()
            }
            Event::MessageUnconfirmed(unconfirmed) => {
                self.attempt = Some(unconfirmed.attempt_id);
                self.of_early()
            }
            _ => None,
        }
    }

    fn is_mine(&self, failure: &Failure) -> bool {
        (failure.attempt.is_some() && failure.attempt == self.attempt) || self.wamid.as_ref() == Some(&failure.wamid)
    }

    fn of_early(&mut self) -> Option<(EventId, String, Option<i64>)> {
        let mine = self.early.iter().find(|failure| self.is_mine(failure)).cloned();
        if self.wamid.is_some() {
            self.early.clear();
        }
        mine.map(Failure::told)
    }
}

impl Failure {
    fn told(self) -> (EventId, String, Option<i64>) {
        (self.source, UNDELIVERED.to_owned(), self.code)
    }
}

//! What WhatsApp's answer to one POST means (R4, R6): a total table from what was observed to what is done.

use std::time::Duration;

use crate::command::SendPolicy;
use crate::identity::Address;
use crate::ids::Wamid;

mod codes;

pub use codes::{Class, class, meaning};

/// Whether any byte of the request may have reached WhatsApp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BytesLeft {
    /// Provably none: the request can be made again freely.
    No,
    /// Some may have.
    Maybe,
}

/// How a request ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// No connection.
    Connect,
    /// No (complete) answer in time.
    Timeout,
    /// The connection broke.
    Reset,
    /// No trust.
    Tls,
    /// No address.
    Dns,
    /// Anything else.
    Other,
}

/// The part of a Graph error body that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GraphError {
    /// `error.code`.
    pub code: i64,
    /// `error.error_subcode`: refines some codes.
    pub subcode: Option<i64>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    Transport(Transport),
    /// An HTTP response.
    Http {
        /// Its status.
        status: u16,
        /// `messages[0].id`, when there is one.
        wamid: Option<Wamid>,
        /// `message_status` is `held_for_quality_assessment` or `paused`.
        held: bool,
        /// `contacts[0]`: the person as WhatsApp knows them, which may be another number than the one asked for. Empty when the
        /// answer does not say.
        person: Address,
        /// The Graph error, when the body has one with a code.
        error: Option<GraphError>,
        /// Whether the body was complete JSON. For calls that yield no wamid (`read`, typing) a readable 2xx is success.
        readable: bool,
    },
}

/// One attempt, as observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Whether any byte may have left.
    pub left: BytesLeft,
    /// What came back.
    pub answer: Answer,
}

/// How far a pause reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This message (its conversation's lane waits).
    Message,
    /// The business number.
    Number,
    /// The WhatsApp Business Account: all its numbers.
    Account,
    /// The app: all numbers of the installation.
    App,
}

/// What is done about an attempt. Every variant but [`Verdict::Unconfirmed`] is definite: WhatsApp did not take the message,
/// or said that it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// WhatsApp took it.
    Sent {
        /// Meta's id. `None` only for calls that yield none (`read`, typing).
        wamid: Option<Wamid>,
        /// WhatsApp holds it back to look at the template's quality; a status will follow.
        held: bool,
    },
    /// Nothing left: withdraw the attempt and try again, it does not count.
    NotSent,
    /// Refused for now: one more attempt after `after`.
    Retry {
        /// At least this long.
        after: Duration,
        /// How far the trouble reaches.
        scope: Scope,
        /// Graph error code.
        code: i64,
    },
    /// Too fast for the number (or its account): slow it down, then try again.
    ThrottleNumber {
        /// Graph error code.
        code: i64,
        /// How far it reaches.
        scope: Scope,
    },
    /// Too fast for this recipient: 4^n seconds for the pair, nobody else waits.
    ThrottlePair,
    /// Not now, but possibly in hours: the message ends here, the code tells the publisher to wait.
    Wait {
        /// Graph error code.
        code: i64,
        /// Not before this long.
        at_least: Duration,
    },
    /// This message can never be sent.
    Permanent {
        /// Graph error code.
        code: i64,
    },
    /// The account is not set up to send: pause the number and alert; the message stays queued.
    Configuration {
        /// Graph error code.
        code: i64,
    },
    /// Spam limit (131048): stop the number, and do not probe it in a hurry.
    StopNumber {
        /// Graph error code.
        code: i64,
    },
    /// Nobody knows whether it left (R4): never resent blindly.
    Unconfirmed {
        /// What was observed: `timeout`, `reset`, `server_error`, `unreadable`.
        observed: &'static str,
    },
}

/// What a refusal says about marketing messages to one person, whatever becomes of the message it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarketingRefusal {
    /// The person has stopped them in WhatsApp (131050).
    Stopped,
    /// WhatsApp keeps them from this person for a while: too many lately (131049), or an experiment (130472).
    ForNow,
}

impl MarketingRefusal {
    /// What this code says; `None`: nothing about marketing to a person.
    #[must_use]
    pub const fn of(code: i64) -> Option<Self> {
        match code {
            131_050 => Some(Self::Stopped),
            131_049 | 130_472 => Some(Self::ForNow),
            _ => None,
        }
    }
}

impl Verdict {
    /// Whether it is known what became of the attempt. Only an unconfirmed one is not.
    #[must_use]
    pub const fn is_definite(&self) -> bool {
        !matches!(self, Self::Unconfirmed { .. })
    }

    /// Whether the message itself ends with this verdict: sent, or never to be sent.
    #[must_use]
    pub const fn ends_message(&self) -> bool {
        matches!(self, Self::Sent { .. } | Self::Wait { .. } | Self::Permanent { .. })
    }
}

/// What an exchange means for a message sent under `policy`. Total: unknown codes and answers fall to the safe side.
///
/// Classified by `error.code`, never by the HTTP status: Meta documents no statuses, and field reports contradict each other.
/// The status decides only where there is no code that is known.
#[must_use]
pub fn judge(exchange: &Exchange, policy: SendPolicy) -> Verdict {
    match &exchange.answer {
        Answer::Transport(_) if exchange.left == BytesLeft::No => Verdict::NotSent,
        Answer::Transport(Transport::Timeout) => Verdict::Unconfirmed { observed: "timeout" },
        Answer::Transport(_) => Verdict::Unconfirmed { observed: "reset" },
        Answer::Http { status, error: Some(error), .. } => match class(error.code, error.subcode) {
            Some(class) => class.verdict(error.code, policy),
            // A code nobody knows in a 4xx is a refusal of this message. Anywhere else it proves nothing.
            None if (400..500).contains(status) => Verdict::Permanent { code: error.code },
            None => Verdict::Unconfirmed { observed: unconfirmed(*status) },
        },
        Answer::Http { status: 200..=299, wamid: Some(wamid), held, .. } => {
            Verdict::Sent { wamid: Some(wamid.clone()), held: *held }
        }
        // A gateway's throttle: readable, so it is an answer and not the rest of a broken one.
        Answer::Http { status: 429, readable: true, .. } => Verdict::ThrottleNumber { code: 429, scope: Scope::Number },
        Answer::Http { status, .. } => Verdict::Unconfirmed { observed: unconfirmed(*status) },
    }
}

/// What an exchange means for a read receipt or a typing indicator. WhatsApp answers `{"success":true}` without an id; nothing
/// is lost when one of them is, and a repeat harms nobody, so what is unclear for a message is a plain end for them.
#[must_use]
pub fn judge_receipt(exchange: &Exchange) -> Verdict {
    match (&exchange.answer, judge(exchange, SendPolicy::AtMostOnce)) {
        (Answer::Http { status: 200..=299, error: None, .. }, _) => Verdict::Sent { wamid: None, held: false },
        (Answer::Http { error: Some(error), .. }, Verdict::Unconfirmed { .. }) => {
            Verdict::Permanent { code: error.code }
        }
        (_, verdict) => verdict,
    }
}

fn unconfirmed(status: u16) -> &'static str {
    match status {
        408 => "timeout",
        500..=599 => "server_error",
        _ => "unreadable",
    }
}

//! What an exchange with WhatsApp means (R4, R6): a total function over transport result, HTTP status and Graph error code.

use crate::ids::Wamid;

/// Whether bytes of the request may have reached WhatsApp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BytesLeft {
    /// Provably none did.
    No,
    /// Some may have.
    Maybe,
}

/// How a transport failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportFailure {
    /// No connection: refused, DNS, TLS.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection ended before the answer was complete.
    Reset,
    /// Anything else.
    Other,
}

/// Graph's error object, as far as decisions need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GraphError {
    /// `error.code`.
    pub code: i64,
    /// `error.error_subcode`.
    pub subcode: Option<i64>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A 2xx with a message id.
    Accepted {
        /// Meta's id of the message.
        wamid: Wamid,
        /// `message_status` was `held_for_quality_assessment`.
        held: bool,
    },
    /// Graph's error object, with whatever HTTP status.
    Refused {
        /// The HTTP status.
        http: u16,
        /// The error.
        error: GraphError,
    },
    /// An HTTP answer that is neither.
    Unreadable {
        /// The HTTP status.
        http: u16,
    },
    /// No answer.
    Failed(TransportFailure),
}

/// One POST as it was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Whether bytes of the request may have left.
    pub left: BytesLeft,
    /// What came back.
    pub answer: Answer,
}

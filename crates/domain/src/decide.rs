//! Commands against states: events, or a refusal with its reason, the field at fault and what can be done.



/// Why a command is refused. The words stand in the log and in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// P1.
    NotEnabled,
    /// P3.
    NotAContact,
    /// P5.
    UnsupportedContent,
    /// P6.
    OptInRequired,
    /// P9: asked, not accepted.
    OptInPending,
    /// P9: declined, STOP, or revoked.
    OptedOut,
    /// P11.
    WindowClosed,
    /// P13: not approved, paused, disabled, unknown or in another language.
    TemplateNotSendable,
    /// P13: wrong number or names of parameters.
    TemplateParameters,
    /// The contact stopped marketing messages in WhatsApp itself.
    MarketingStopped,
    /// `not_after` passed.
    Expired,
    /// A field is missing, empty or too long.
    Invalid,
    /// The command id was used before with other content.
    Conflict,
    /// An opt-in request that is not needed or is already open.
    OptInNotNeeded,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// The field at fault as a path into the command; empty when no field is.
    pub field: &'static str,
    /// What can be done about it, one sentence without personal data.
    pub remedy: &'static str,
}

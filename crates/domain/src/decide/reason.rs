//! The words for refusals.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::event::MessageRejected;
use crate::ids::UserId;

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
    /// The contact was asked often enough within the period.
    OptInLimit,
    /// The contact gave up the number, and no other address of theirs is known (R10).
    NumberPassedOn,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::NotEnabled,
        Self::NotAContact,
        Self::UnsupportedContent,
        Self::OptInRequired,
        Self::OptInPending,
        Self::OptedOut,
        Self::WindowClosed,
        Self::TemplateNotSendable,
        Self::TemplateParameters,
        Self::MarketingStopped,
        Self::Expired,
        Self::Invalid,
        Self::Conflict,
        Self::OptInNotNeeded,
        Self::OptInLimit,
        Self::NumberPassedOn,
    ];

    /// The word that stands in the log and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotEnabled => "not_enabled",
            Self::NotAContact => "not_a_contact",
            Self::UnsupportedContent => "unsupported_content",
            Self::OptInRequired => "opt_in_required",
            Self::OptInPending => "opt_in_pending",
            Self::OptedOut => "opted_out",
            Self::WindowClosed => "window_closed",
            Self::TemplateNotSendable => "template_not_sendable",
            Self::TemplateParameters => "template_parameters",
            Self::MarketingStopped => "marketing_stopped",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::OptInNotNeeded => "opt_in_not_needed",
            Self::OptInLimit => "opt_in_limit",
            Self::NumberPassedOn => "number_passed_on",
        }
    }

    /// What can be done about it: one sentence for the person who wrote the message or the command.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NotEnabled => "Ask the organization's administrator to enable WhatsApp for this user and number.",
            Self::NotAContact => "Add the person to the user's contacts first.",
            Self::UnsupportedContent => "Send text or an approved template.",
            Self::OptInRequired => "Request the contact's opt-in first.",
            Self::OptInPending => "Wait until the contact accepts the opt-in.",
            Self::OptedOut => {
                "The contact does not want messages; only the contact can change that, for example by writing START."
            }
            Self::WindowClosed => {
                "Send an approved template; free-form text is possible again when the contact replies."
            }
            Self::TemplateNotSendable => "Pick a template that WhatsApp has approved in this language.",
            Self::TemplateParameters => "Fill every placeholder of the template exactly once.",
            Self::MarketingStopped => {
                "The contact stopped marketing messages; use a utility template, or wait until they resume them or write START."
            }
            Self::Expired => "Send a new command with a later not_after.",
            Self::Invalid => "Correct the field and send a new command.",
            Self::Conflict => "Use a new command id for new content.",
            Self::OptInNotNeeded => "Nothing to do: the contact has already consented or was already asked.",
            Self::NumberPassedOn => {
                "The contact gave up this number; wait until they write from their new one, or add it to the user's contacts."
            }
            Self::OptInLimit => "Wait: the contact was asked as often as is allowed within the period.",
        }
    }

    /// Whether the same content, sent again later under a new command id, may be accepted without anybody correcting it:
    /// true where the contact's or the organization's next step changes the answer, false where the command is at fault.
    #[must_use]
    pub const fn may_pass_later(self) -> bool {
        match self {
            Self::NotEnabled
            | Self::NotAContact
            | Self::OptInRequired
            | Self::OptInPending
            | Self::OptedOut
            | Self::WindowClosed
            | Self::TemplateNotSendable
            | Self::MarketingStopped
            | Self::Expired
            | Self::OptInLimit
            | Self::NumberPassedOn => true,
            Self::UnsupportedContent
            | Self::TemplateParameters
            | Self::Invalid
            | Self::Conflict
            | Self::OptInNotNeeded => false,
        }
    }

    /// A refusal for this reason because of `field` (a path into the command, or empty), with the usual remedy.
    #[must_use]
    pub const fn at(self, field: &'static str) -> Rejection {
        Rejection { reason: self, field, remedy: Cow::Borrowed(self.remedy()) }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no [`Reason`] of this version.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not a reason of refusal known to this version")]
pub struct NotAReason;

impl FromStr for Reason {
    type Err = NotAReason;
    fn from_str(word: &str) -> Result<Self, NotAReason> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word).ok_or(NotAReason)
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// The field at fault as a path into the command; empty when no field is.
    pub field: &'static str,
    /// What can be done about it, one sentence without personal data.
    pub remedy: Cow<'static, str>,
}

impl Rejection {
    /// The refusal as the log keeps it.
    #[must_use]
    pub fn event(&self, user: &UserId) -> MessageRejected {
        MessageRejected {
            user_id: user.clone(),
            reason: self.reason.as_str().to_owned(),
            field: self.field.to_owned(),
            remedy: self.remedy.clone().into_owned(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { self.reason.fmt(f) } else { write!(f, "{} ({})", self.reason, self.field) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_back_from_its_word() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            assert!(!reason.remedy().is_empty());
        }
        assert_eq!("window closed".parse::<Reason>(), Err(NotAReason));
    }
}

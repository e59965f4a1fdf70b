//! Deliveries from Meta: taken apart into items ([`pieces`], or [`split`] for whoever keeps them), and read ([`parse_message`],
//! [`parse_status`], [`parse_change`]).
//!
//! Two steps, because two services do them: the receiver keeps what was signed, byte for byte, and only needs to know whom
//! an item is about; the processor understands it.

mod change;
mod contacts;
mod json;
mod parse;
mod split;

pub use change::{Call, Change, Preference, TemplateRef, parse_change};
pub use parse::{InboundMessage, InboundStatus, ParseError, Referral, SystemChange, parse_message, parse_status};
pub use split::{Piece, Split, SplitError, pieces, split};

//! Commands against states: events, or a refusal with its reason, the field at fault and what can be done.

mod consent;
mod owner;
mod reason;
mod repeat;
mod send;
mod window;

pub use consent::{ConsentDecision, announce, announce_ordered, carry_over, decide_consent, decide_opt_in_expiry};
pub use owner::{Acting, NotOwned, check_owner};
pub use reason::{NotAReason, Reason, Rejection};
pub use repeat::{Novelty, check_repeat};
pub(crate) use send::MAX_TEXT;
pub use send::{decide_dispatch, decide_send, utf16_len};
pub use window::{announce_window, decide_closing_soon, decide_expiry};

//! How every process of the connector is configured.
//!
//! Each concern (Kafka, Redis, webhooks…) has one small struct. It declares its variables as documented constants
//! ([`Variable`]) and reads itself through a [`Reader`], which keeps *every* problem it meets instead of stopping at the
//! first. Nothing is read from the environment elsewhere, so a test configures a service with a map, and two services in one
//! process can have different settings.
//!
//! From the same declarations come the reference page ([`render_reference`]), the settings in effect without their secrets
//! ([`render_effective`]) and a hint at typing errors ([`likely_typos`]).

mod parse;
mod problems;
mod reader;
mod reference;
mod secret;
mod source;
mod variable;

pub use parse::duration as parse_duration;
pub use problems::{Problem, Problems};
pub use reader::{Reader, load};
pub use reference::{likely_typos, render_effective, render_reference};
pub use secret::{Secret, SecretError, SecretFile, SecretSource};
pub use source::{Env, Source};
pub use variable::{Group, Kind, Variable};

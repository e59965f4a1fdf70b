//! WhatsApp's Cloud API on the wire: what Meta delivers ([`signature`], [`webhook`]) and what is asked of it ([`graph`]).
//!
//! Everything here is tolerant of what Meta may add tomorrow and strict about one thing: a send is at most one POST, and
//! whether bytes of it may have left is observed, not guessed (R4).

pub mod graph;
pub mod signature;
pub mod webhook;

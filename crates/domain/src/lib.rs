//! The behaviour of the connector, and nothing else: what may be sent, what an event changes, what a person sees.
//!
//! No IO, no async, no clock. Time is an argument, identifiers are derived from their cause, and every function is total:
//! `decide` turns a command and a state into events or a named refusal, `evolve` folds an event into a state, and the
//! [`composer`] shows a state to a person. The rules P1 to P15 of `docs/rules.md` are the modules' vocabulary.

pub mod bearing;
pub mod command;
pub mod composer;
pub mod consent;
pub mod conversation;
pub mod decide;
pub mod directory;
pub mod event;
pub mod form;
pub mod handover;
pub mod identity;
pub mod ids;
pub mod outcome;
pub mod phone;
pub mod settings;
pub mod share;
pub mod status;
pub mod template;
pub mod time;
pub mod window;

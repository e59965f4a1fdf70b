//! The wire against the domain's types, against its own past, and against other languages.

mod bearing;
mod glimpse;
mod golden;
mod interop;
mod robustness;
mod round_trip;
mod salvage;
mod samples;

//! Tests of the built programs, as a person or a stranger meets them.

mod reference;
mod start;
mod story;
mod stranger;

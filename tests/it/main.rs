//! Tests of the built programs, as a person or a stranger meets them.

mod clients;
mod corpus;
mod inbound;
mod reference;
mod start;
mod story;
mod stranger;

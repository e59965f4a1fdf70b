//! Tests of the built programs, as a person or a stranger meets them.

mod cases;
mod chaos;
mod clients;
mod corpus;
mod inbound;
mod old_views;
mod outage;
mod reference;
mod secured;
mod start;
mod story;
mod stranger;
mod windows;

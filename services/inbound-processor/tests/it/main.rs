//! The inbound processor in the simulated world: every item once, whatever comes twice and whatever crashes.

mod recording;
mod world;

//! The service in the simulated world.

mod operators;
mod requests;
mod scene;
mod story;

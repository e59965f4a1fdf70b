//! The service in the simulated world.

mod requests;
mod scene;
mod story;

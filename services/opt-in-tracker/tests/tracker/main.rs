//! The service in the simulated world.

mod audit;
mod foreign;
mod handover;
mod links;
mod moves;
mod operators;
mod passed_on;
mod requests;
mod scene;
mod story;
mod tenants;

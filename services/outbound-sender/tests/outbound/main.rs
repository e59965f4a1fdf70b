//! The outbound sender in the simulated world: admission and dispatch run against log, gate and WhatsApp of a world in which
//! everything may go wrong.

mod admission;
mod crashes;
mod dispatch;
mod foreign;
mod limiters;
mod links;
mod mutations;
mod numbers;
mod old_tables;
mod old_views;
mod passed_on;
mod scene;
mod taken_over;
mod tenants;
mod views_away;
mod withdrawn;

//! The Graph API: [`GraphClient`] is the real [`connector_ports::whatsapp::WhatsApp`].

mod answer;
mod client;
mod config;
mod management;
mod request;

pub use client::{BuildError, GraphClient};
pub use config::{GRAPH, GraphConfig};
pub use request::request_body;

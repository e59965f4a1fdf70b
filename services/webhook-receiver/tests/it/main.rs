//! The receiver over real HTTP: what is answered, when, and what is durable by then.

mod answers;
mod crashes;
mod scene;

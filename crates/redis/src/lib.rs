//! Redis behind the port [`connector_ports::Gate`].
//!
//! A view lies in one hash slot (its keys share the hash tag `{name/partition}`), and every change of it is one Lua script, so
//! that data, position and owner always change together. Redis is an index here and never the judge: what it loses or forgets
//! shows in the position, and is read again from the log (R1).
//!
//! Keys of a view: `c` position and epoch, `v` values, `z` waiting timers, `i` and `d` leased ones, `m:<day>` marks that may go at the
//! end of that day, `b` the list of those. A limiter is one hash of its own and expires when it has nothing to tell.

mod config;
mod gate;
mod scripts;

pub use config::RedisConfig;
pub use gate::RedisGate;

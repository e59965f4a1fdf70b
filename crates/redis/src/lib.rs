//! Redis behind the port [`connector_ports::Gate`].
//!
//! A view lies in one hash slot (its keys share the hash tag `{name/partition}`), and every change of it is one Lua script, so
//! that data, position and owner always change together. Redis is an index here and never the judge: what it loses or forgets
//! shows in the position, and is read again from the log (R1).
//!
//! Keys of a view, all under the number of their layout: `c` position, owner and how much the other parts hold, `v` values, `z:<n>` buckets
//! of waiting timers and `z` the list of them, `i` and `d` leased timers, `m:<day>` marks that may go at the end of that day, `b` the list of
//! those. A limiter is one hash of its own and expires when it has nothing to tell.
//!
//! **What was not written by this adapter shows.** A part that was evicted, or lost or gained an entry, does not hold as much as `c`
//! says; values and timers carry a check. The view loses its position then, which is all that is needed: nobody decides on it
//! any more (R2), and its owner reads the log again (R1).
//!
//! **Redis Cluster.** Every script then touches the keys of one view or of one limiter, each in one slot; views and limiters are spread over the
//! slots by their names.

mod cluster;
mod config;
mod connection;
mod error;
mod gate;
mod limiters;
mod probe;
mod registers;
mod scripts;
mod single;
mod stored;

pub use config::RedisConfig;
pub use gate::RedisGate;

//! Real servers on one machine without containers: Apache Kafka and Redis as plain children on 127.0.0.1.
//!
//! Three things are deliberate. A server is an ordinary child and never gets a session of its own: on kernels with scheduler
//! autogroups such a process may get no CPU for many seconds. Data of tests lie in memory (`/dev/shm`) where that exists, since
//! what is proven is survival of a killed process, not of a power cut. And every server has a `watchdog` that ends it when
//! this process ends in whatever way, because a test binary is often killed and statics are never dropped.
//!
//! Everything blocks; from async code start servers in `spawn_blocking`.

mod full;
mod kafka;
mod process;
mod redis;
mod redis_nodes;
mod secured;
mod watchdog;

pub use full::Full;
pub use kafka::{KafkaCluster, KafkaOptions, KafkaServer};
pub use process::{Data, Server, ServerError, free_port};
pub use redis::{Dump, RedisOptions, RedisServer};
pub use redis_nodes::{Dumps, RedisNodes};
pub use secured::{PASSWORD, Secured, USER};

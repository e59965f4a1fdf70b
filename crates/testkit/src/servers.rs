//! Real servers for tests: plain children on free ports of 127.0.0.1, ended by pid.
//!
//! Starting Kafka takes some seconds, so a test binary shares one ([`kafka`], [`redis`]) and keeps its topics and keys apart
//! ([`unique`]). A test that kills or freezes a server starts its own.

use std::sync::OnceLock;

pub use local_stack::{
    KafkaCluster, KafkaOptions, KafkaServer, PASSWORD, RedisNodes, RedisOptions, RedisServer, Secured, ServerError,
    USER,
};

/// `KAFKA_BOOTSTRAP_SERVERS` of the Kafka that this test binary shares, started by the first who asks. Blocks meanwhile.
///
/// # Panics
/// When Kafka cannot be started; the message says what to install or what Kafka said.
pub fn kafka() -> &'static str {
    static SHARED: OnceLock<(KafkaCluster, String)> = OnceLock::new();
    let start = || {
        let cluster = KafkaCluster::start(&KafkaOptions::default()).unwrap_or_else(|error| panic!("{error}"));
        let servers = cluster.bootstrap_servers();
        (cluster, servers)
    };
    &SHARED.get_or_init(start).1
}

/// `REDIS_URL` of the Redis that this test binary shares, started by the first who asks. Blocks meanwhile.
///
/// # Panics
/// When Redis cannot be started; the message says what to install or what Redis said.
pub fn redis() -> &'static str {
    static SHARED: OnceLock<(RedisServer, String)> = OnceLock::new();
    let start = || {
        let server = RedisServer::start(&RedisOptions::default()).unwrap_or_else(|error| panic!("{error}"));
        let url = server.url();
        (server, url)
    };
    &SHARED.get_or_init(start).1
}

/// A name that no other test uses, fit for topics, groups and keys.
#[must_use]
pub fn unique(prefix: &str) -> String {
    format!("{prefix}.{}", uuid::Uuid::now_v7().simple())
}

//! One Redis, or a Redis Cluster of several masters.

use crate::process::ServerError;
use crate::redis::{Dump, RedisOptions, RedisServer};

/// What all nodes had in them at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dumps(Vec<Dump>);

/// The nodes of one Redis. Killed on drop.
#[derive(Debug)]
pub struct RedisNodes {
    nodes: Vec<RedisServer>,
}

impl RedisNodes {
    /// Starts one Redis, or so many masters of a cluster (three or more), none of them with a replica, and waits until they serve.
    ///
    /// # Errors
    /// As [`RedisServer::start`] and [`RedisServer::form_cluster`].
    pub fn start(masters: usize, options: RedisOptions) -> Result<Self, ServerError> {
        let options = RedisOptions { cluster: masters > 1, ..options };
        let nodes = (0..masters.max(1)).map(|_| RedisServer::start(&options)).collect::<Result<Vec<_>, _>>()?;
        if options.cluster {
            RedisServer::form_cluster(&nodes)?;
        }
        Ok(Self { nodes })
    }

    /// The value of `REDIS_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        self.nodes.iter().map(RedisServer::url).collect::<Vec<_>>().join(",")
    }

    /// The only node, or the first of a cluster.
    pub fn first(&mut self) -> &mut RedisServer {
        &mut self.nodes[0]
    }

    /// All of them forget everything.
    ///
    /// # Errors
    /// As [`RedisServer::flush`].
    pub fn flush(&self) -> Result<(), ServerError> {
        self.nodes.iter().try_for_each(RedisServer::flush)
    }

    /// Keeps what they have in them.
    ///
    /// # Errors
    /// As [`RedisServer::dump`].
    pub fn dump(&mut self) -> Result<Dumps, ServerError> {
        self.nodes.iter_mut().map(RedisServer::dump).collect::<Result<_, _>>().map(Dumps)
    }

    /// All of them have in them what they had then.
    ///
    /// # Errors
    /// As [`RedisServer::go_back`].
    pub fn go_back(&self, dumps: &Dumps) -> Result<(), ServerError> {
        self.nodes.iter().zip(&dumps.0).try_for_each(|(node, dump)| node.go_back(*dump))
    }

    /// Kills all of them and starts them again with what they had in them then.
    ///
    /// # Errors
    /// As [`RedisServer::restart_from`].
    pub fn restart_from(&mut self, dumps: &Dumps) -> Result<(), ServerError> {
        self.nodes.iter_mut().for_each(RedisServer::kill9);
        self.nodes.iter_mut().zip(&dumps.0).try_for_each(|(node, dump)| node.restart_from(*dump))
    }
}

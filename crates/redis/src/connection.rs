//! One Redis, or the nodes of a Redis Cluster.

use std::time::Duration;

use futures::FutureExt;
use redis::aio::{ConnectionLike, ConnectionManagerConfig};
use redis::cluster_async::ClusterConnection;
use redis::{
    Client, ClientTlsConfig, Cmd, ConnectionInfo, IntoConnectionInfo, Pipeline, RedisError, RedisFuture, RedisResult,
    TlsCertificates, Value,
};

use crate::cluster::Cluster;
use crate::config::RedisConfig;
use crate::probe::Probe;
use crate::single::Single;

/// A connection that is made when first used, and again after every loss. Clones share it.
#[derive(Clone)]
pub(crate) enum Connection {
    One(Single),
    Cluster(Cluster),
}

impl Connection {
    pub(crate) fn new(config: &RedisConfig) -> RedisResult<Self> {
        let nodes =
            config.url.expose().split(',').map(|url| info(url.trim(), config)).collect::<RedisResult<Vec<_>>>()?;
        if config.cluster {
            return Cluster::new(nodes, config).map(Self::Cluster);
        }
        let Some(node) = nodes.first().cloned() else {
            return Err((redis::ErrorKind::InvalidClientConfig, "no URL").into());
        };
        let manager = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(config.timeout))
            .set_response_timeout(Some(config.timeout))
            // Few attempts, because callers repeat by themselves: an answer that comes late is no use to them.
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(500));
        let certificates = certificates(config)?;
        let probe = Probe::new(&nodes[..1], certificates.as_ref(), config.timeout)?;
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(node, certificates)?,
            None => Client::open(node)?,
        };
        Single::new(client, manager, probe).map(Self::One)
    }

    /// Why Redis does not let us in, if it has said so.
    pub(crate) async fn refusal(&self) -> Option<RedisError> {
        match self {
            Self::One(single) => single.refusal().await,
            Self::Cluster(cluster) => cluster.refusal().await,
        }
    }
}

/// The files that are set, read once.
fn certificates(config: &RedisConfig) -> RedisResult<Option<TlsCertificates>> {
    if config.ca.is_none() && config.certificate.is_none() {
        return Ok(None);
    }
    let root_cert = config.ca.as_ref().map(std::fs::read).transpose()?;
    let client_tls = match &config.certificate {
        Some((certificate, key)) => {
            Some(ClientTlsConfig { client_cert: std::fs::read(certificate)?, client_key: std::fs::read(key)? })
        }
        None => None,
    };
    Ok(Some(TlsCertificates { client_tls, root_cert }))
}

fn info(url: &str, config: &RedisConfig) -> RedisResult<ConnectionInfo> {
    let info = url.into_connection_info()?;
    Ok(match &config.password {
        Some(password) => {
            let settings = info.redis_settings().clone().set_password(password.expose());
            info.set_redis_settings(settings)
        }
        None => info,
    })
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(single) => single.call(async |connection| connection.req_packed_command(cmd).await).boxed(),
            Self::Cluster(cluster) => cluster.call(async |connection| connection.req_packed_command(cmd).await).boxed(),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(single) => single
                .call(async move |connection| connection.req_packed_commands(pipeline, offset, count).await)
                .boxed(),
            Self::Cluster(cluster) => {
                let call = async move |connection: &mut ClusterConnection| {
                    connection.req_packed_commands(pipeline, offset, count).await
                };
                cluster.call(call).boxed()
            }
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(single) => single.database(),
            // A cluster has no others.
            Self::Cluster(_) => 0,
        }
    }
}

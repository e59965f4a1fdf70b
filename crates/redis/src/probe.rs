//! Why Redis does not let us in, in its own words.
//!
//! The client library says of every answer to AUTH that is no yes that the authentication failed. But a Redis without a free place for a
//! client, for one, answers with an error to whatever comes first, and that is AUTH. So whoever was not let in asks once more by hand.

use std::sync::Arc;
use std::time::Duration;

use redis::{Client, ConnectionInfo, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, Value};

use crate::error::{is_refusal, is_refused_password};

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Probe(Arc<Shared>);

struct Shared {
    nodes: Vec<Node>,
    timeout: Duration,
}

struct Node {
    /// Does not give a password by itself.
    client: Client,
    user: Option<String>,
    password: Option<String>,
}

impl Node {
    fn new(node: &ConnectionInfo, certificates: Option<&TlsCertificates>) -> RedisResult<Self> {
        let settings = node.redis_settings();
        let stranger = node.clone().set_redis_settings(RedisConnectionInfo::default());
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(stranger, certificates.clone())?,
            None => Client::open(stranger)?,
        };
        let text = |text: Option<&str>| text.map(str::to_owned);
        Ok(Self { client, user: text(settings.username()), password: text(settings.password()) })
    }

    async fn ask(&self) -> RedisResult<()> {
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        match &self.password {
            Some(password) => {
                let mut auth = redis::cmd("AUTH");
                if let Some(user) = &self.user {
                    auth.arg(user);
                }
                auth.arg(password).query_async::<Value>(&mut connection).await.map(drop)
            }
            None => redis::cmd("PING").query_async::<Value>(&mut connection).await.map(drop),
        }
    }
}

impl Probe {
    pub(crate) fn new(
        nodes: &[ConnectionInfo],
        certificates: Option<&TlsCertificates>,
        timeout: Duration,
    ) -> RedisResult<Self> {
        let nodes = nodes.iter().map(|node| Node::new(node, certificates)).collect::<RedisResult<_>>()?;
        Ok(Self(Arc::new(Shared { nodes, timeout })))
    }

    /// Why none of the nodes lets us in, if one has said so and none has let us in. `None`: it may be a matter of waiting.
    pub(crate) async fn refusal(&self) -> Option<RedisError> {
        let mut refusal = None;
        for node in &self.0.nodes {
            match tokio::time::timeout(self.0.timeout, node.ask()).await {
                Ok(Err(error)) if is_refused_password(&error) || is_refusal(&error) => refusal = Some(error),
                Ok(Err(_)) | Err(_) => {}
                Ok(Ok(())) => return None,
            }
        }
        refusal
    }
}

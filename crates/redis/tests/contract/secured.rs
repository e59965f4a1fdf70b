//! The gate over TLS: what comes in with the right certificate and password, and what becomes of everybody else.

use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use connector_ports::gate::{GateError, View};
use connector_ports::{Gate, Retry};
use connector_redis::{RedisConfig, RedisGate};
use connector_settings::Secret;
use connector_testkit::contract::gate::GateWorld;
use connector_testkit::servers::{PASSWORD, RedisOptions, RedisServer, Secured, ServerError, USER};
use connector_testkit::wait;

/// A Redis with TLS that the tests of this binary share.
fn shared() -> &'static (RedisServer, Secured) {
    static SHARED: OnceLock<(RedisServer, Secured)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let secured = Secured::new().expect("certificates");
        let options = RedisOptions { secured: Some(secured.clone()), ..RedisOptions::default() };
        (RedisServer::start(&options).unwrap_or_else(|error| panic!("{error}")), secured)
    })
}

/// The settings that come in.
async fn config() -> RedisConfig {
    let (server, secured) = tokio::task::spawn_blocking(shared).await.expect("no panic");
    let config =
        RedisConfig { password: Some(Secret::new(PASSWORD)), ca: Some(secured.ca()), ..RedisConfig::at(&server.url()) };
    assert!(!format!("{config:?}").contains(PASSWORD), "the settings show the password");
    config
}

fn gate(config: &RedisConfig) -> RedisGate {
    RedisGate::new(config).expect("a gate")
}

struct Encrypted {
    gate: Arc<dyn Gate>,
    config: RedisConfig,
}

impl Encrypted {
    async fn start() -> Self {
        let config = config().await;
        Self { gate: Arc::new(gate(&config)), config }
    }
}

#[async_trait]
impl GateWorld for Encrypted {
    async fn gate(&self) -> Arc<dyn Gate> {
        Arc::clone(&self.gate)
    }

    async fn wipe(&self, view: &View) {
        let ca = self.config.ca.as_ref().expect("a file");
        let root_cert = Some(std::fs::read(ca).expect("a certificate"));
        let certificates = redis::TlsCertificates { client_tls: None, root_cert };
        let url = self.config.url.expose().replace("rediss://", &format!("rediss://{USER}:{PASSWORD}@"));
        let client = redis::Client::build_with_tls(url, certificates).expect("a client");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let pattern = format!("*{{{view}}}*");
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.expect("keys");
        let wiped: u64 = redis::cmd("DEL").arg(keys).query_async(&mut connection).await.expect("delete");
        assert!(wiped > 0, "nothing to wipe");
    }
}

connector_testkit::gate_contract! { #[tokio::test] Encrypted::start().await }

async fn comes_in(config: &RedisConfig) {
    let view = View::new("named", 1);
    gate(config).acquire(&view).await.expect("it comes in");
}

#[tokio::test]
async fn a_user_with_a_name_comes_in_and_so_does_a_certificate() {
    let config = config().await;
    let named = config.url.expose().replace("rediss://", &format!("rediss://{USER}@"));
    comes_in(&RedisConfig { url: Secret::new(named), ..config.clone() }).await;
    comes_in(&RedisConfig { certificate: Some(shared().1.client()), ..config }).await;
}

/// Whoever asks learns that waiting is useless and why, and no secret is told.
async fn refused(config: &RedisConfig, why: &str) {
    let gate = gate(config);
    let ended = async || match gate.acquire(&View::new("refused", 1)).await {
        Ok(_) => panic!("it came in"),
        // A machine that is busy may be too slow for an answer.
        Err(GateError::Unavailable { .. }) => None,
        Err(error) => Some(error),
    };
    let error = wait::until("a refusal", Duration::from_secs(10), ended).await;
    assert_eq!(error.retry(), Retry::Never, "{error}");
    let words = format!("{error} {error:?}");
    assert!(words.contains(why), "{words}");
    assert!(!words.contains(PASSWORD) && !words.contains("guessed"), "{words}");
}

#[tokio::test]
async fn a_wrong_password_and_none_are_refused_for_good() {
    let config = config().await;
    let guessed = Some(Secret::new("guessed-password"));
    refused(&RedisConfig { password: guessed, ..config.clone() }, "AuthenticationFailed").await;
    refused(&RedisConfig { password: None, ..config }, "NOAUTH").await;
}

#[tokio::test]
async fn a_redis_of_another_authority_is_not_believed() {
    let config = config().await;
    let other = Secured::new().expect("certificates");
    refused(&RedisConfig { ca: Some(other.ca()), ..config.clone() }, "certificate verify failed").await;
    // Without a file the system's authorities count, and none of them has signed this.
    refused(&RedisConfig { ca: None, ..config.clone() }, "certificate verify failed").await;
    // Redis does not believe a certificate of the client either. Often it has hung up before the client reads why.
    let stranger = gate(&RedisConfig { certificate: Some(other.client()), ..config });
    let error = stranger.acquire(&View::new("refused", 1)).await.expect_err("nobody comes in").to_string();
    assert!(["alert", "reset", "closed", "Broken pipe"].iter().any(|told| error.contains(told)), "{error}");
}

/// To either side this looks like a Redis that hangs up or talks nonsense, which waiting may cure: but the reason is told.
#[tokio::test]
async fn a_client_without_tls_gets_nowhere() {
    let config = config().await;
    let url = Secret::new(config.url.expose().replace("rediss://", "redis://"));
    let error = gate(&RedisConfig { url, ca: None, ..config.clone() });
    let error = error.acquire(&View::new("plain", 1)).await.expect_err("it speaks another language");
    assert!(matches!(error, GateError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("Io ("), "{error}");
}

#[test]
fn files_without_certificates_are_told_before_anything_is_asked() {
    let nothing = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into();
    let config = RedisConfig { ca: Some(nothing), ..RedisConfig::at("rediss://127.0.0.1:1") };
    let error = RedisGate::new(&config).err().expect("no certificate is in it");
    assert_eq!(error.retry(), Retry::Never);
    assert!(error.to_string().contains("no certificates"), "{error}");
}

/// Where the cluster is, for the process that believes it.
const CLUSTER: &str = "SECURED_CLUSTER_URL";

fn cluster_config(url: &str) -> RedisConfig {
    RedisConfig { cluster: true, password: Some(Secret::new(PASSWORD)), ..RedisConfig::at(url) }
}

/// A cluster is believed by the system's authorities, which a variable of OpenSSL names for a whole process: so this test runs itself once
/// more, in another one.
#[tokio::test]
async fn a_cluster_is_believed_by_the_authorities_of_the_system() {
    if let Ok(url) = std::env::var(CLUSTER) {
        return is_believed(&url).await;
    }
    let start = || {
        let secured = Secured::new()?;
        let options = RedisOptions { cluster: true, secured: Some(secured.clone()), ..RedisOptions::default() };
        let nodes = (0..3).map(|_| RedisServer::start(&options)).collect::<Result<Vec<_>, _>>()?;
        RedisServer::form_cluster(&nodes)?;
        Ok::<_, ServerError>((nodes, secured))
    };
    let started = tokio::task::spawn_blocking(start).await.expect("no panic");
    let (nodes, secured) = started.unwrap_or_else(|error| panic!("{error}"));
    let url = nodes.iter().map(RedisServer::url).collect::<Vec<_>>().join(",");
    refused(&cluster_config(&url), "certificate verify failed").await;

    let believer = move || {
        let mut believer = Command::new(std::env::current_exe().expect("this program"));
        believer
            .args(["--exact", "secured::a_cluster_is_believed_by_the_authorities_of_the_system"])
            .stdin(Stdio::null());
        believer.env("SSL_CERT_FILE", secured.ca()).env(CLUSTER, url);
        believer.output().expect("it runs")
    };
    let output = tokio::task::spawn_blocking(believer).await.expect("no panic");
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && words.contains("1 passed"), "{words}");
    drop(nodes);
}

/// The part of the process that believes.
async fn is_believed(url: &str) {
    let config = cluster_config(url);
    let gate = gate(&config);
    // Spread over the masters, so that the nodes that were not named first are asked too.
    for partition in 0..12 {
        let view = View::new("secured", partition);
        let within = Duration::from_secs(10);
        wait::until("an owner", within, async || match gate.acquire(&view).await {
            Ok(owner) => Some(owner),
            Err(GateError::Unavailable { .. }) => None,
            Err(error) => panic!("{error}"),
        })
        .await;
    }
    refused(&RedisConfig { password: Some(Secret::new("guessed-password")), ..config }, "AuthenticationFailed").await;
}

//! The gate's contract on a Redis Cluster of three masters, and what happens when one of them dies.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::{Change, GateError, Grant, Limit, View};
use connector_ports::log::Offset;
use connector_redis::{RedisConfig, RedisGate};
use connector_testkit::contract::gate::GateWorld;
use connector_testkit::servers::{RedisOptions, RedisServer};
use connector_testkit::wait::until;

/// A cluster that the tests of this binary share.
struct Cluster {
    nodes: &'static [RedisServer],
    gate: Arc<dyn Gate>,
}

impl Cluster {
    async fn start() -> Self {
        static SHARED: OnceLock<Vec<RedisServer>> = OnceLock::new();
        let shared = || SHARED.get_or_init(three_masters);
        let nodes = tokio::task::spawn_blocking(shared).await.expect("no panic");
        Self { nodes, gate: Arc::new(gate(nodes)) }
    }
}

fn three_masters() -> Vec<RedisServer> {
    let options = RedisOptions { cluster: true, ..RedisOptions::default() };
    let start = |_| RedisServer::start(&options).unwrap_or_else(|error| panic!("{error}"));
    let nodes: Vec<_> = (0..3).map(start).collect();
    RedisServer::form_cluster(&nodes).unwrap_or_else(|error| panic!("{error}"));
    nodes
}

fn gate(nodes: &[RedisServer]) -> RedisGate {
    let url = nodes.iter().map(RedisServer::url).collect::<Vec<_>>().join(",");
    let config = RedisConfig { cluster: true, timeout: Duration::from_millis(500), ..RedisConfig::at(&url) };
    RedisGate::new(&config).expect("a gate")
}

#[async_trait]
impl GateWorld for Cluster {
    async fn gate(&self) -> Arc<dyn Gate> {
        Arc::clone(&self.gate)
    }

    async fn wipe(&self, view: &View) {
        let mut wiped = 0_u64;
        for node in self.nodes {
            let client = redis::Client::open(node.url()).expect("a client");
            let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
            let pattern = format!("*{{{view}}}*");
            let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.expect("keys");
            if !keys.is_empty() {
                wiped += redis::cmd("DEL").arg(keys).query_async::<u64>(&mut connection).await.expect("delete");
            }
        }
        assert!(wiped > 0, "nothing to wipe");
    }
}

connector_testkit::gate_contract! { #[tokio::test] Cluster::start().await }

/// Views and limiters are spread over three masters. One dies: what lies on the others goes on, what lay on it is away and then empty.
#[tokio::test]
async fn a_cluster_goes_on_while_one_of_its_masters_is_away() {
    let mut nodes = tokio::task::spawn_blocking(three_masters).await.expect("no panic");
    let gate = gate(&nodes);
    let within = Duration::from_secs(30);
    let mut views = Vec::new();
    for partition in 0..12 {
        let view = View::new("cluster", partition);
        let epoch = gate.acquire(&view).await.expect("acquire").epoch;
        let changes = vec![
            Change::Put { key: "key".to_owned(), value: Bytes::from_static(b"value") },
            Change::Schedule { key: "timer".to_owned(), at: Timestamp(1), tag: 1 },
        ];
        gate.apply(&view, epoch, None, Offset(1), changes).await.expect("apply");
        views.push((view, epoch));
    }
    let limits: Vec<Limit> =
        (0..12).map(|n| Limit { key: format!("limit-{n}"), interval: Duration::from_secs(1), burst: 1 }).collect();
    let granted = gate.take(&limits, Timestamp(1_800_000_000_000)).await.expect("grants");
    assert_eq!(granted, vec![Grant::Granted; 12]);

    nodes[0].kill9();
    let (mut away, mut there) = (Vec::new(), 0);
    for (view, epoch) in &views {
        let read = connector_testkit::wait::until("an answer of the rest", within, async || {
            match gate.read(view, &["key".to_owned()]).await {
                Ok(read) => Some(Some(read)),
                Err(GateError::Unavailable { .. }) if lies_on(&nodes, 0, view).await => Some(None),
                Err(GateError::Unavailable { .. }) => None,
                Err(error) => panic!("{error:?}"),
            }
        });
        match read.await {
            Some(read) => {
                assert_eq!((read.applied, read.answers), (Some(Offset(1)), vec![Some(Bytes::from_static(b"value"))]));
                there += 1;
            }
            None => away.push((view.clone(), *epoch)),
        }
    }
    assert!(there > 0 && !away.is_empty(), "{there} of twelve views are left: they are spread");

    nodes[0].restart().expect("restart");
    for (view, epoch) in away {
        let error = connector_testkit::wait::until("the master that came back", within, async || {
            match gate.apply(&view, epoch, Some(Offset(1)), Offset(2), vec![]).await {
                Err(GateError::Unavailable { .. }) => None,
                other => Some(other.expect_err("it came back empty")),
            }
        });
        let error = error.await;
        assert!(matches!(error, GateError::Conflict { actual: None, .. }), "{error:?}");
        gate.apply(&view, epoch, None, Offset(2), vec![]).await.expect("its owner builds it again");
    }
}

/// Whether the slot of a view belongs to this node, as another one knows it.
async fn lies_on(nodes: &[RedisServer], dead: usize, view: &View) -> bool {
    let port = |url: String| url.trim_end_matches('/').rsplit(':').next().map(str::to_owned).expect("a port");
    let client = redis::Client::open(nodes[dead + 1].url()).expect("a client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let key = format!("whatsapp-connector:{{{view}}}:c");
    let slot: u16 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query_async(&mut connection).await.expect("a slot");
    let lines: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await.expect("nodes");
    let dead = format!(":{}@", port(nodes[dead].url()));
    let holds = |range: &str| {
        let (from, to) = range.split_once('-')?;
        Some((from.parse::<u16>().ok()?..=to.parse().ok()?).contains(&slot))
    };
    let line = lines.lines().find(|line| line.contains(&dead)).expect("the node is known");
    line.split(' ').any(|range| holds(range) == Some(true))
}

/// All masters die and come back, again and again, while everything is in use: whoever asks gets answers again. A client of a cluster that
/// has lost all of its nodes does not find them by itself each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_masters_have_all_died_and_come_back_is_found_again() {
    let mut nodes = tokio::task::spawn_blocking(three_masters).await.expect("no panic");
    let gates: Vec<Arc<RedisGate>> = (0..4).map(|_| Arc::new(gate(&nodes))).collect();
    let views: Vec<View> = (0..12).map(|partition| View::new("steady", partition)).collect();
    let each = || gates.iter().flat_map(|gate| views.iter().map(move |view| (gate, view)));
    let mut asking = tokio::task::JoinSet::new();
    for (gate, view) in each() {
        let (gate, view) = (Arc::clone(gate), view.clone());
        asking.spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(2));
            loop {
                pace.tick().await;
                // What is answered does not matter here.
                drop(gate.read(&view, &[]).await);
            }
        });
    }
    let within = Duration::from_secs(20);
    for round in 0..5 {
        nodes.iter_mut().for_each(RedisServer::kill9);
        for (gate, view) in each() {
            let lost = async || gate.read(view, &[]).await.err();
            until(&format!("{view} to be away in round {round}"), within, lost).await;
        }
        for node in &mut nodes {
            node.restart().expect("restart");
        }
        for (gate, view) in each() {
            let found = async || gate.read(view, &[]).await.ok();
            until(&format!("{view} to be there again in round {round}"), within, found).await;
        }
    }
}

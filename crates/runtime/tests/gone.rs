//! What a worker does about positions of records that were deleted unread, and in topics that were made anew.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::Topics;
use connector_domain::identity::StreamKeys;
use connector_domain::settings::Rules;
use connector_ports::log::{Append, Offset, TopicName, TopicPartition, TopicSpec};
use connector_ports::{Clock, Ids};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Step};
use connector_runtime::lanes::Work;
use connector_runtime::platform::Platform;
use connector_runtime::service::Service;
use connector_runtime::worker::WorkerSpec;
use connector_simulated::SimWorld;
use connector_telemetry::Metrics;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(600);

/// Copies what it reads.
struct Copier;

#[async_trait]
impl Handler for Copier {
    type Fact = ();

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let value = |work: &Work| work.record.value.clone().unwrap_or_default();
        Ok(work.iter().map(|work| Step::Done(vec![append("out", value(work))])).collect())
    }
}

fn append(to: &str, value: Bytes) -> Append {
    Append { topic: to.into(), partition: None, key: None, value: Some(value), headers: vec![] }
}

async fn scene() -> SimWorld {
    let world = SimWorld::new(1);
    for name in ["in", "in.dlq", "out"] {
        let spec = TopicSpec { name: name.into(), partitions: 1, replication: 1, settings: Vec::new() };
        world.calm_log().create_topic(&spec).await.expect("a topic");
    }
    world
}

async fn write(world: &SimWorld, values: &[&'static str]) {
    let records = values.iter().map(|value| append("in", Bytes::from_static(value.as_bytes()))).collect();
    world.calm_log().appender().await.expect("an appender").append(records).await.expect("appended");
}

fn copied(world: &SimWorld) -> Vec<String> {
    let text = |value: Bytes| String::from_utf8_lossy(&value).into_owned();
    world.history(&TopicName::from("out")).into_iter().filter_map(|record| record.value.map(text)).collect()
}

async fn until(world: &SimWorld, count: usize) {
    while copied(world).len() < count {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs the worker beside what happens, and returns its metrics.
async fn run<S: Future<Output = ()>>(world: &SimWorld, story: impl FnOnce(SimWorld) -> S) -> String {
    let metrics = Arc::new(Metrics::new("0", "test"));
    let service = |world: SimWorld| {
        let metrics = metrics.clone();
        async move {
            let (clock, ids): (Arc<dyn Clock>, Arc<dyn Ids>) = (world.clock(), world.ids());
            let platform = Platform {
                log: world.log(),
                gate: world.gate(),
                clock,
                ids,
                topics: Topics::new(""),
                partitions: 1,
                keys: StreamKeys::new("k1", b"secret"),
                rules: Rules::default(),
                instance: "test".to_owned(),
                metrics,
            };
            let mut service = Service::new(platform, CancellationToken::new());
            service.worker(WorkerSpec::new("copier", "copier".into(), vec!["in".into()], "test".into()), Copier);
            let _ = service.run().await;
        }
    };
    assert!(world.run(LIMIT, service, story).await.is_ok(), "not finished: {:?}", copied(world));
    world.restart();
    metrics.encode()
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_while_nobody_works_is_read_from_its_beginning() {
    let world = scene().await;
    write(&world, &["a", "b", "c"]).await;
    run(&world, async |world| until(&world, 3).await).await;
    world.make_anew(&"in".into());
    write(&world, &["d"]).await;
    let metrics = run(&world, async |world| until(&world, 4).await).await;
    assert_eq!(copied(&world), ["a", "b", "c", "d"]);
    assert!(metrics.contains("connector_consumer_partitions_made_anew_total{group=\"copier\",topic=\"in\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_under_a_worker_is_read_from_its_beginning() {
    let world = scene().await;
    write(&world, &["a", "b", "c"]).await;
    run(&world, async |world| {
        until(&world, 3).await;
        world.make_anew(&"in".into());
        write(&world, &["d"]).await;
        until(&world, 4).await;
    })
    .await;
    assert_eq!(copied(&world), ["a", "b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn records_that_were_deleted_unread_are_counted_and_the_rest_is_read() {
    let world = scene().await;
    write(&world, &["a"]).await;
    run(&world, async |world| until(&world, 1).await).await;
    write(&world, &["b", "c", "d"]).await;
    world.delete_below(&TopicPartition::new("in", 0), Offset(3));
    let metrics = run(&world, async |world| until(&world, 2).await).await;
    assert_eq!(copied(&world), ["a", "d"]);
    assert!(metrics.contains("connector_consumer_records_lost_total{group=\"copier\",topic=\"in\"} 2"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_is_known_though_it_grew_past_the_old_position() {
    let world = scene().await;
    write(&world, &["a", "b", "c"]).await;
    run(&world, async |world| until(&world, 3).await).await;
    world.make_anew(&"in".into());
    write(&world, &["d", "e", "f", "g"]).await;
    let metrics = run(&world, async |world| until(&world, 7).await).await;
    assert_eq!(copied(&world), ["a", "b", "c", "d", "e", "f", "g"]);
    assert!(metrics.contains("connector_consumer_partitions_made_anew_total{group=\"copier\",topic=\"in\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_under_a_worker_is_known_though_it_grew_past_what_was_read() {
    let world = scene().await;
    write(&world, &["a", "b", "c"]).await;
    let metrics = run(&world, async |world| {
        until(&world, 3).await;
        tokio::time::sleep(Duration::from_secs(70)).await;
        world.make_anew(&"in".into());
        write(&world, &["d", "e", "f", "g"]).await;
        // The worker reads on in the middle, until it looks.
        until(&world, 8).await;
    })
    .await;
    assert_eq!(copied(&world), ["a", "b", "c", "g", "d", "e", "f", "g"], "from the beginning");
    assert!(metrics.contains("connector_consumer_partitions_made_anew_total{group=\"copier\",topic=\"in\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn what_was_read_in_a_topic_made_anew_does_not_make_it_the_old_one() {
    let world = scene().await;
    write(&world, &["a", "b", "c"]).await;
    run(&world, async |world| until(&world, 3).await).await;
    run(&world, async |world| {
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.make_anew(&"in".into());
        write(&world, &["d", "e", "f", "g"]).await;
        // It commits behind what it read in the middle, and is gone before it looks.
        until(&world, 4).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    })
    .await;
    run(&world, async |world| until(&world, 8).await).await;
    assert_eq!(copied(&world), ["a", "b", "c", "g", "d", "e", "f", "g"]);
}

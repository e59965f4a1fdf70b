//! An installation whose topics have a prefix: everybody speaks of its groups by one name.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connector_contracts::{Topic, Topics};
use connector_domain::identity::StreamKeys;
use connector_domain::settings::Rules;
use connector_ports::log::{Append, TopicSpec};
use connector_ports::{Clock, Ids};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Step};
use connector_runtime::lanes::Work;
use connector_runtime::platform::{Platform, groups};
use connector_runtime::service::Service;
use connector_runtime::tail::Tail;
use connector_runtime::worker::WorkerSpec;
use connector_simulated::SimWorld;
use connector_telemetry::Metrics;
use connector_testkit::wait;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);

/// Has nothing to say about what it reads.
struct Reads;

#[async_trait]
impl Handler for Reads {
    type Fact = ();

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        Ok(work.iter().map(|_| Step::Done(Vec::new())).collect())
    }
}

fn platform(world: &SimWorld) -> Platform {
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn Ids>) = (world.clock(), world.ids());
    Platform {
        log: world.log(),
        gate: world.gate(),
        clock,
        ids,
        topics: Topics::new("blue"),
        partitions: 1,
        keys: StreamKeys::new("k1", b"secret"),
        rules: Rules::default(),
        instance: "test".to_owned(),
        metrics: Arc::new(Metrics::new("0", "test")),
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_worker_of_the_directory_has_finished_is_known_under_a_prefix_too() {
    let world = SimWorld::new(1);
    let directory = platform(&world).topic(Topic::Directory);
    for name in [directory.clone(), platform(&world).topic(Topic::ConversationEvents)] {
        let spec = TopicSpec { name, partitions: 1, replication: 1, settings: Vec::new() };
        world.calm_log().create_topic(&spec).await.expect("a topic");
    }
    let user =
        Append { topic: directory, partition: None, key: Some("user/acme/ada".into()), value: None, headers: vec![] };
    let appender = world.calm_log().appender().await.expect("an appender");
    let service = async |world: SimWorld| {
        let platform = platform(&world);
        let mut service = Service::new(platform.clone(), CancellationToken::new());
        let topics = vec![platform.topic(Topic::Directory)];
        service.worker(WorkerSpec::new("directory", groups::DIRECTORY.to_owned(), topics, "test".into()), Reads);
        let _ = service.run().await;
    };
    let story = async |world: SimWorld| {
        let tail = Tail::new(&platform(&world));
        let told = async || {
            let moment = tail.moment([0]).await.expect("the log is calm");
            let user = (&"acme".into(), &"ada".into());
            tail.told_of(&moment, [user]).await.expect("the log is calm").contains(&true).then_some(())
        };
        told().await.expect("there is nothing to tell yet");
        appender.append(vec![user.clone()]).await.expect("appended");
        wait::until("the worker's position", LIMIT, told).await;
    };
    assert!(world.run(LIMIT, service, story).await.is_ok(), "the worker's position is never found");
}

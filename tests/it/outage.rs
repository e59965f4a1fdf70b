//! Kafka and Redis are away for a while: the short run of `make chaos`'s scenario.

use connector_chaos::{Options, Scenario};
use connector_tests::programs;

use crate::story::ONE_FLEET;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_kafka_and_redis_restarts_nobody_and_loses_nothing() {
    let _alone = ONE_FLEET.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { quick: true, ..Options::new(&programs(), &folder.path().join("chaos")) };
    let verdict = Scenario::Outage.play(&options).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(verdict.holds, "{}", verdict.line);
}

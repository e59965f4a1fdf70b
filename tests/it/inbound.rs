//! Receivers and processors die while webhooks arrive: the short run of `make chaos`'s scenario.

use connector_chaos::{Options, Scenario};
use connector_tests::programs;

use crate::story::ONE_FLEET;

#[tokio::test(flavor = "multi_thread")]
async fn every_delivery_answered_with_200_is_in_the_log_once_though_processes_are_killed() {
    let _alone = ONE_FLEET.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { sends: Some(300), quick: true, ..Options::new(&programs(), folder.path()) };
    let verdict = Scenario::Inbound.play(&options).await.expect("the scenario is played to its end");
    assert!(verdict.holds, "{}", verdict.line);
    assert_eq!(verdict.line, "acknowledged 300 lost 0 duplicated 0");
}

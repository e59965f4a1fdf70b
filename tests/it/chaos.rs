//! A small version of `make chaos`: a few hundred messages on real servers, while workers are killed and frozen.

use connector_chaos::{Options, Scenario};
use connector_tests::programs;

use crate::story::ONE_FLEET;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_twice_or_out_of_order_while_a_sender_is_killed_and_another_stands_still() {
    let _alone = ONE_FLEET.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { quick: true, ..Options::new(&programs(), &folder.path().join("chaos")) };
    let verdict = Scenario::Outbound.play(&options).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(verdict.holds, "{}", verdict.line);
}

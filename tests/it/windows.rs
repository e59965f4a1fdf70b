//! Windows while Redis is emptied and set back and a timer is killed: the short run of `make chaos`'s scenario.

use connector_chaos::{Options, Scenario};
use connector_tests::programs;

use crate::story::ONE_FLEET;

#[tokio::test(flavor = "multi_thread")]
async fn each_window_ends_once_and_redis_is_the_fold_of_the_log_though_it_is_emptied_and_set_back() {
    let _alone = ONE_FLEET.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { quick: true, ..Options::new(&programs(), &folder.path().join("chaos")) };
    let verdict = Scenario::Windows.play(&options).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(verdict.holds, "{}", verdict.line);
    let count = verdict.line.strip_prefix("windows ").and_then(|line| line.split(' ').next());
    let windows: usize = count.and_then(|count| count.parse().ok()).expect("a count of windows");
    assert!(windows > 300, "windows open and end all the time: {}", verdict.line);
}

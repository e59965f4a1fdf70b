//! A whole process on Kafka and Redis with TLS and passwords; and processes that are told wrong ones.

use std::process::{Command, Stdio};
use std::time::Duration;

use connector_demo::{Backend, Fleet, Member, Plan, story};
use connector_testkit::servers::{PASSWORD, Secured};
use connector_testkit::wait;
use connector_tests::programs;

use crate::story::ONE_FLEET;

/// Enabled, opted in, and both have written: webhooks come in, commands go out.
const STEPS: usize = 3;

const GUESSED: &str = "guessed-password";

/// What a worker says that is told something wrong, after it has ended by itself.
async fn ends(fleet: &Fleet, variable: &str, wrong: &str) -> String {
    let mut command = Command::new(programs().join("window-timer"));
    command.env_clear().envs(fleet.environment(0)).env("INSTANCE", "stranger").env("KAFKA_REQUEST_TIMEOUT", "2s");
    command.env(variable, wrong);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    wait::until("it to end", Duration::from_secs(30), async || child.try_wait().expect("a child")).await;
    let output = child.wait_with_output().expect("its words");
    assert_eq!(output.status.code(), Some(1));
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words).into_owned();
    assert!(!words.contains(PASSWORD) && !words.contains(GUESSED), "a password was logged");
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_each_way_over_tls_and_whoever_is_refused_ends_with_the_reason() {
    let _alone = ONE_FLEET.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        members: vec![Member::only("connector")],
        secured: Some(Secured::new().expect("certificates")),
        ..Plan::new(Backend::Kafka, Duration::from_secs(120))
    };
    let mut fleet = Fleet::start_plan(plan, &programs(), folder.path()).await.unwrap_or_else(|error| panic!("{error}"));
    let (_, redis) = fleet.servers().expect("it stands on servers");
    assert!(redis.starts_with("rediss://"), "{redis}");
    let mut told = String::new();
    let mut tell = |line: &str| told.push_str(&format!("{line}\n"));
    let held = story::play_first(STEPS, fleet.settings().cast(), &mut tell, async |_| ()).await;
    assert_eq!(held, STEPS, "{told}");
    for (name, _, admin) in fleet.processes().into_iter().filter(|(name, ..)| *name == "connector") {
        let log = std::fs::read_to_string(fleet.log_of(name)).expect("a log");
        assert!(log.contains("starting") && !log.contains(PASSWORD), "the password is logged");
        let metrics = reqwest::get(format!("{admin}/metrics")).await.expect("metrics").text().await.expect("a body");
        assert!(metrics.contains("connector_") && !metrics.contains(PASSWORD), "the password is in the metrics");
    }

    let other = Secured::new().expect("certificates");
    let guessed = || GUESSED.to_owned();
    let cases = [
        ("KAFKA_SASL_PASSWORD", guessed(), "Authentication failed"),
        ("KAFKA_SSL_CA_FILE", other.ca().display().to_string(), "certificate verify failed"),
        ("REDIS_PASSWORD", guessed(), "Redis: AuthenticationFailed"),
        ("REDIS_CA_FILE", other.ca().display().to_string(), "certificate verify failed"),
    ];
    for (variable, value, why) in cases {
        let words = ends(&fleet, variable, &value).await;
        assert!(words.contains(why), "with another {variable} it says: {words}");
    }
    fleet.stop();
}

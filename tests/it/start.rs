//! Starting: every missing setting is named at once, and no secret is printed.

use std::process::{Command, Output};

use connector_tests::programs;

fn run(program: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(programs().join(program));
    command.env_clear().envs(environment.iter().copied());
    command.output().expect("the program can be run")
}

#[test]
fn a_process_without_settings_does_not_start_and_names_every_one_that_is_missing() {
    let output = run("outbound-sender", &[]);
    assert_eq!(output.status.code(), Some(64));
    let words = String::from_utf8_lossy(&output.stderr);
    for name in ["STREAM_SECRET", "GRAPH_TOKEN", "KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"] {
        assert!(words.contains(name), "{name} is not named in: {words}");
    }
}

#[test]
fn a_malformed_setting_is_named_and_a_secret_never_printed() {
    let secret = "planted-secret-value";
    let settings =
        [("STREAM_SECRET", secret), ("GRAPH_TOKEN", secret), ("WINDOW_LENGTH", "a day"), ("PARTITIONS", "0")];
    let output = run("outbound-sender", &settings);
    assert_eq!(output.status.code(), Some(64));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("WINDOW_LENGTH") && words.contains("PARTITIONS"), "{words}");
    assert!(!words.contains(secret), "a secret was printed");
}

#[test]
fn a_single_service_refuses_the_embedded_log() {
    let output = run("inbound-processor", &[("BACKEND", "embedded"), ("STREAM_SECRET", "s")]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("BACKEND"));
}

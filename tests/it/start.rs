//! Starting: every missing setting is named at once, and no secret is printed.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use connector_testkit::wait;
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
    let output = run("inbound-processor", &[("BACKEND", "embedded"), ("STREAM_SECRET", SECRET)]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("BACKEND"));
}

/// One that is long enough.
const SECRET: &str = "a stream secret of thirty-two bytes and more";

#[test]
fn what_cannot_work_is_refused_by_its_name_and_all_of_it_at_once() {
    let settings = [
        ("STREAM_SECRET", "thirty-one bytes are not enough"),
        ("STREAM_KEY_ID", "Key-1"),
        ("TOPIC_PREFIX", "two words"),
        ("WINDOW_LENGTH", "24h"),
        ("WINDOW_CLOSING_SOON", "1h,25h"),
        ("OPT_IN_ANSWER", "0s"),
        ("COMMAND_LIFE", "99999d"),
        ("GRAPH_BASE_URL", "ftp://graph.facebook.com"),
        ("GRAPH_TOKEN", "t"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka://broker:9092"),
        ("KAFKA_REQUEST_TIMEOUT", "1ms"),
        ("REDIS_URL", "http://redis:6379"),
    ];
    let output = run("outbound-sender", &settings);
    assert_eq!(output.status.code(), Some(64));
    let words = String::from_utf8_lossy(&output.stderr);
    for (name, _) in settings.iter().filter(|(name, _)| !matches!(*name, "WINDOW_LENGTH" | "GRAPH_TOKEN")) {
        assert!(words.contains(&format!("{name}: ")), "{name} is not named in: {words}");
    }
}

/// The settings of a connector on one machine, in this folder.
fn connector(folder: &Path) -> Vec<(&'static str, String)> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        ("STREAM_SECRET", SECRET.to_owned()),
        ("LOG_PATH", file("log.sqlite")),
        ("READ_MODEL_PATH", file("model.sqlite")),
        ("GRAPH_BASE_URL", "http://127.0.0.1:9".to_owned()),
        ("GRAPH_TOKEN", "token".to_owned()),
        ("WHATSAPP_APP_SECRET", "app".to_owned()),
        ("WEBHOOK_VERIFY_TOKEN", "verify".to_owned()),
        ("WEBHOOK_LISTEN", "127.0.0.1:0".to_owned()),
        ("CONVERSATION_API_LISTEN", "127.0.0.1:0".to_owned()),
        ("API_TOKENS", "{\"token\":\"acme\"}".to_owned()),
        ("RUST_LOG", "info".to_owned()),
    ]
}

/// A connector that was started.
struct Started {
    child: Child,
    admin: String,
}

impl Started {
    fn begin(settings: &[(&'static str, String)], changed: &[(&str, &str)]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let admin = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let mut command = Command::new(programs().join("connector"));
        command.env_clear().envs(settings.iter().map(|(name, value)| (*name, value.as_str())));
        command.env("ADMIN_LISTEN", &admin).envs(changed.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { child: command.spawn().expect("it runs"), admin }
    }

    /// Waits until it is ready, or has ended by itself: with this code.
    async fn settled(&mut self) -> Option<i32> {
        wait::until("it to be ready or to end", Duration::from_secs(60), async || {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return Some(status.code());
            }
            let ready = reqwest::get(format!("http://{}/readyz", self.admin)).await.ok()?;
            ready.status().is_success().then_some(None)
        })
        .await
    }

    /// Ends it, and gives its words.
    fn end(mut self) -> String {
        self.child.kill().ok();
        let output = self.child.wait_with_output().expect("its words");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

/// Starts a connector and ends it, ready or not: the code it ended with by itself, and its words.
async fn connect(settings: &[(&'static str, String)], changed: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut started = Started::begin(settings, changed);
    let code = started.settled().await;
    (code, started.end())
}

#[tokio::test]
async fn what_the_files_were_begun_with_is_what_they_go_on_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = connector(folder.path());
    let first = connect(&settings, &[]).await;
    assert_eq!(first.0, None, "{}", first.1);
    let again = connect(&settings, &[]).await;
    assert_eq!(again.0, None, "{}", again.1);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (log, model, link) = (path("log.sqlite"), path("model.sqlite"), path("link.sqlite"));
    std::fs::hard_link(&log, &link).expect("a hard link");
    for (changed, told) in [
        (("PARTITIONS", "3"), "has 6 partitions where PARTITIONS says 3"),
        (
            ("STREAM_SECRET", "another stream secret of thirty-two bytes"),
            "STREAM_SECRET or STREAM_KEY_ID is not the one",
        ),
        (("STREAM_KEY_ID", "k2"), "STREAM_SECRET or STREAM_KEY_ID is not the one"),
        (("LOG_PATH", model.as_str()), "LOG_PATH needs a file of its own"),
        (("READ_MODEL_PATH", log.as_str()), "READ_MODEL_PATH of its own"),
    ] {
        let (code, words) = connect(&settings, &[changed]).await;
        assert_eq!(code, Some(1), "{changed:?}: {words}");
        assert!(words.contains(told), "{changed:?}: {words}");
        assert!(!words.contains(SECRET) && !words.contains("another stream secret"), "a secret was printed");
    }
    // Beside one that runs.
    let mut running = Started::begin(&settings, &[]);
    assert_eq!(running.settled().await, None);
    for (changed, told) in [
        (vec![("LOG_PATH", link.as_str()), ("READ_MODEL_PATH", "")], "each process needs a LOG_PATH of its own"),
        (vec![("LOG_PATH", &*path("other.sqlite"))], "each process needs a READ_MODEL_PATH of its own"),
    ] {
        let (code, words) = connect(&settings, &changed).await;
        assert_eq!(code, Some(1), "{changed:?}: {words}");
        assert!(words.contains(told), "{changed:?}: {words}");
    }
    running.end();
    // A read model is built again, whatever it has become.
    std::fs::write(&model, "not a database any more, long enough to be taken for one".repeat(200)).expect("write");
    let (code, words) = connect(&settings, &[]).await;
    assert_eq!(code, None, "{words}");
    assert!(words.contains("the read model is damaged"), "{words}");
}

//! The story of the product, played on the built programs: on one process, and on Kafka while everything is killed once.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use connector_demo::{Backend, Fleet, settings, story};
use connector_tests::programs;
use tokio::sync::Mutex;

use crate::stranger;

/// Two fleets at once are more than two cores carry: durations would measure the machine.
pub(crate) static ONE_FLEET: Mutex<()> = Mutex::const_new(());

const WINDOW: Duration = Duration::from_secs(15);

async fn start(backend: Backend, folder: &Path) -> Fleet {
    Fleet::start(backend, &programs(), folder, WINDOW).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Personal data and secrets of the story must not stand in any log or metric.
async fn nothing_personal_is_told(fleet: &Fleet) {
    let planted = [
        settings::CONTACT_PHONE,
        "Hello Ben",
        "Good morning",
        "Hello Anna",
        "Monday at ten",
        "One more thing",
        "demo-app-secret",
        "demo-graph-token",
        "demo-api-token",
        "demo-stream-secret-of-32-bytes-or-more",
    ];
    for (name, _, admin) in fleet.processes() {
        if name == "cloud-api-simulator" {
            continue;
        }
        let log = std::fs::read_to_string(fleet.log_of(name)).expect("a log");
        assert!(log.contains("starting"), "the log of {name} is the wrong file");
        let metrics = reqwest::get(format!("{admin}/metrics")).await.expect("metrics").text().await.expect("a body");
        assert!(metrics.contains("connector_"), "{name} has no metrics");
        for text in planted {
            assert!(!log.contains(text), "{name} logs {text:?}");
            assert!(!metrics.contains(text), "{name} has {text:?} in its metrics");
        }
    }
}

/// Keys of records are opaque, whatever the topic.
fn no_key_is_personal(kafka: &str) {
    for topic in
        ["whatsapp.webhooks.v1", "whatsapp.send.commands.v1", "whatsapp.dispatch.v1", "whatsapp.conversation.events.v1"]
    {
        let mut kcat = Command::new("kcat");
        kcat.args(["-C", "-b", kafka, "-t", topic, "-e", "-q", "-f", "%k\n"]);
        let keys = kcat.output().expect("kcat runs").stdout;
        let keys = String::from_utf8_lossy(&keys);
        assert!(keys.lines().count() > 0, "{topic} is empty");
        assert!(!keys.contains(settings::CONTACT_PHONE), "a key of {topic} is a phone number");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_story_holds_in_one_process() {
    let _alone = ONE_FLEET.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(Backend::Embedded, folder.path()).await;
    let mut told = String::new();
    let mut tell = |line: &str| told.push_str(&format!("{line}\n"));
    let held = story::play(fleet.settings().cast(), &mut tell, async |_| ()).await;
    assert_eq!(held, story::STEPS, "{told}");
    nothing_personal_is_told(&fleet).await;
    fleet.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_story_holds_on_kafka_while_every_service_is_killed_and_redis_loses_everything() {
    let _alone = ONE_FLEET.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(Backend::Kafka, folder.path()).await;
    let cast = fleet.settings().cast();
    let mut told = String::new();
    let mut tell = |line: &str| told.push_str(&format!("{line}\n"));
    let services = fleet.services();
    let harm = async |step: usize| {
        if let Some(name) = services.get(step - 1) {
            fleet.kill9(name);
            fleet.spawn(name).unwrap_or_else(|error| panic!("{error}"));
        }
        if step == 4
            && let Some((_, redis)) = fleet.stack()
        {
            // Without persistence a restart is a wipe.
            redis.first().kill9();
            redis.first().restart().unwrap_or_else(|error| panic!("{error}"));
        }
    };
    let held = story::play(cast, &mut tell, harm).await;
    assert_eq!(held, story::STEPS, "{told}");
    nothing_personal_is_told(&fleet).await;

    let (kafka, _) = fleet.servers().expect("it stands on Kafka");
    no_key_is_personal(&kafka);
    tokio::task::spawn_blocking(move || {
        stranger::publishes_a_command_and_reads_its_outcome(&kafka, settings::PHONE_NUMBER_ID);
    })
    .await
    .expect("the stranger gets an answer");
    fleet.stop();
}

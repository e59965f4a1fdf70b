//! The cases that lie between the services and Kafka or Redis, played on both.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use connector_chaos::log::Log;
use connector_demo::story::{self, Broken, World, ensure};
use connector_demo::{Backend, Fleet, Plan};
use connector_domain::event::Event;
use connector_tests::{programs, root};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::story::ONE_FLEET;

/// Their folders.
pub(super) const FOLDERS: [&str; 3] =
    ["16-redis-maxclients", "17-log-recreated-redis-kept", "18-directory-tombstone-compacted"];

const DIRECTORY: &str = "whatsapp.directory.v1";
/// How long a service may take to end.
const DRAIN: Duration = Duration::from_secs(10);
/// Nothing of a case ends by itself.
const WINDOW: Duration = Duration::from_secs(24 * 3600);

type Held = Result<(), Broken>;

/// An error of whatever is commanded.
fn broken(error: impl std::fmt::Display) -> Broken {
    Broken(error.to_string())
}

/// A fleet on Kafka and Redis whose user has an open conversation with a contact.
struct Stage {
    fleet: Fleet,
    world: World,
    case: &'static str,
}

impl Stage {
    async fn start(case: &'static str, plan: Plan, folder: &Path) -> Self {
        let fleet = Fleet::start_plan(plan, &programs(), folder).await.unwrap_or_else(|error| panic!("{error}"));
        let cast = fleet.settings().cast();
        let mut told = String::new();
        let mut tell = |line: &str| told.push_str(&format!("{line}\n"));
        let held = story::play_first(3, cast.clone(), &mut tell, async |_| ()).await;
        assert_eq!(held, 3, "{told}");
        let mut stage = Self { fleet, world: World::new(cast), case };
        stage.open().await.unwrap_or_else(|Broken(why)| panic!("{case}: {why}"));
        stage
    }

    async fn open(&mut self) -> Held {
        let cast = &self.world.cast;
        let who = json!({ "phone_number_id": cast.phone_number_id, "phone": cast.contact_phone });
        let resolved = self.world.write(Method::POST, "/v1/conversations/resolve", &who).await?;
        self.world.conversation = resolved["conversation_id"].as_str().unwrap_or_default().to_owned();
        self.world.composer("free_form").await.map(drop)
    }

    fn input(&self, name: &str) -> Value {
        let path = root().join("tests/cases").join(self.case).join(name);
        serde_json::from_str(&std::fs::read_to_string(path).expect("an input of the case")).expect("JSON")
    }

    /// Sends the message of the case; its command.
    async fn send(&self) -> Result<String, Broken> {
        let answer = self.world.write(Method::POST, "/v1/commands/send", &self.input("send.json")).await?;
        answer["command_id"].as_str().map(str::to_owned).ok_or_else(|| Broken("no command id".to_owned()))
    }

    /// The message of the case is refused for this reason, before any call.
    async fn refused(&self, reason: &str) -> Held {
        let before = self.world.posts().await?;
        let outcome = self.world.outcome(&self.send().await?, "sent").await?;
        ensure(outcome["state"] == "rejected" && outcome["reason"] == reason, || format!("it ended as {outcome}"))?;
        ensure(self.world.posts().await? == before, || "it was refused after a call".to_owned())
    }

    /// Nobody ended, and everybody is alive.
    async fn all_alive(&mut self) -> Held {
        let ended = self.fleet.revive().map_err(broken)?;
        ensure(ended.is_empty(), || format!("{ended:?} ended"))?;
        for (name, _, admin) in self.fleet.processes().into_iter().filter(|(name, ..)| *name != "cloud-api-simulator") {
            let status = reqwest::get(format!("{admin}/livez")).await.map_err(broken)?.status();
            ensure(status == 200, || format!("/livez of {name} answers {status}"))?;
        }
        Ok(())
    }

    async fn start_services(&mut self) -> Held {
        for name in self.fleet.services() {
            self.fleet.spawn(name).map_err(broken)?;
        }
        for name in self.fleet.services() {
            self.fleet.wait_ready(name).await.map_err(broken)?;
        }
        Ok(())
    }

    fn kafka(&self) -> String {
        self.fleet.servers().map(|(kafka, _)| kafka).unwrap_or_default()
    }
}

async fn play(case: &'static str, plan: Plan, folder: &Path, play: impl AsyncFnOnce(&mut Stage) -> Held) {
    let _alone = ONE_FLEET.lock().await;
    let mut stage = Stage::start(case, plan, folder).await;
    let held = play(&mut stage).await;
    block_in_place(|| stage.fleet.stop());
    held.unwrap_or_else(|Broken(why)| panic!("{case}: {why}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_a_place_is_waited_for_and_nobody_speaks_of_passwords() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan { redis_password: true, ..Plan::new(Backend::Kafka, WINDOW) };
    play(FOLDERS[0], plan, folder.path(), redis_is_full).await;
}

async fn redis_is_full(stage: &mut Stage) -> Held {
    // Those who ask Redis with every record, so that they notice.
    const ASKING: [&str; 4] = ["inbound-processor", "outbound-sender", "opt-in-tracker", "window-timer"];
    // Each of them has been sent away again and again.
    const TIMES: usize = 60;
    let (_, redis) = stage.fleet.stack().ok_or_else(|| Broken("it stands on Redis".to_owned()))?;
    let full = block_in_place(|| redis.first().fill()).map_err(broken)?;
    let before = stage.world.posts().await?;
    let command = stage.send().await?;
    let wamid = stage.world.contact_sends(json!({ "type": "text", "text": "Thank you" })).await?;
    let logs = |fleet: &Fleet, name: &str| std::fs::read_to_string(fleet.log_of(name)).unwrap_or_default();
    let noticed = async || {
        let told = ASKING.iter().all(|name| logs(&stage.fleet, name).contains("the gate is not available"));
        Ok((told && full.sent_away() >= TIMES).then_some(()))
    };
    stage.world.until("everybody to find Redis full", noticed).await?;
    stage.all_alive().await?;
    ensure(stage.world.posts().await? == before, || "something left on what nobody could ask".to_owned())?;

    block_in_place(|| full.end()).map_err(broken)?;
    let outcome = stage.world.outcome(&command, "sent").await?;
    ensure(outcome["state"] == "sent" || outcome["state"] == "delivered", || format!("it ended as {outcome}"))?;
    let received = |event: &Value| event["type"] == "MessageReceived" && event["data"]["wamid"] == wamid.as_str();
    stage.world.event("what the contact wrote meanwhile", received).await?;
    stage.world.composer("free_form").await?;
    let after = stage.world.posts().await?;
    ensure(after.1 == before.1 + 1, || format!("it did not leave once: {before:?}, then {after:?}"))?;
    stage.all_alive().await?;
    for name in stage.fleet.services() {
        let log = logs(&stage.fleet, name);
        let words = ["Authentication", "assword", "WRONGPASS", "NOAUTH"].into_iter().find(|words| log.contains(words));
        ensure(words.is_none(), || format!("{name} says {words:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_kept_of_another_log_does_not_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut plan = Plan::new(Backend::Kafka, WINDOW);
    plan.settings.push(("READ_MODEL_PATH", folder.path().join("model.sqlite").display().to_string()));
    play(FOLDERS[1], plan, folder.path(), another_log).await;
}

async fn another_log(stage: &mut Stage) -> Held {
    block_in_place(|| stage.fleet.stop());
    let (kafka, _) = stage.fleet.stack().ok_or_else(|| Broken("it stands on Kafka".to_owned()))?;
    block_in_place(|| kafka.broker(0).restart_without_data()).map_err(broken)?;
    stage.fleet.apply_topics().map_err(broken)?;
    stage.start_services().await?;

    stage.world.assign_number().await?;
    stage.refused("not_enabled").await?;
    let number = stage.world.cast.phone_number_id.clone();
    let user = "/v1/directory/users/anna";
    stage.world.write(Method::PUT, user, &json!({ "phone_number_id": number, "enabled": true })).await?;
    let contact = json!({ "phone": stage.world.cast.contact_phone, "name": "Ben" });
    stage.world.write(Method::PUT, &format!("{user}/contacts/ben"), &contact).await?;
    stage.world.composer("opt_in_required").await?;
    stage.refused("opt_in_required").await?;
    let events = stage.world.events().await?;
    let old = events.iter().find(|event| event["type"] == "OptInAccepted" || event["type"] == "WindowOpened");
    ensure(old.is_none(), || format!("the log that is no more tells {old:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_taken_out_of_the_directory_unread_is_taken_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut plan = Plan::new(Backend::Kafka, WINDOW);
    // One partition, so that whatever else is published makes the cleaner look at it.
    plan.settings.push(("PARTITIONS", "1".to_owned()));
    play(FOLDERS[2], plan, folder.path(), tombstone_compacted).await;
}

async fn tombstone_compacted(stage: &mut Stage) -> Held {
    let tracker = "opt-in-tracker";
    let topic = stage.input("topic.json");
    let settings: Vec<_> = topic.as_object().into_iter().flatten().collect();
    let settings: Vec<_> =
        settings.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default())).collect();
    let (kafka, _) = stage.fleet.stack().ok_or_else(|| Broken("it stands on Kafka".to_owned()))?;
    block_in_place(|| {
        kafka.configure(None, &[("log.cleaner.backoff.ms", "1000")])?;
        kafka.configure(Some(DIRECTORY), &settings)
    })
    .map_err(broken)?;
    block_in_place(|| stage.fleet.end(tracker, DRAIN));

    stage.world.write(Method::DELETE, "/v1/directory/users/anna", &Value::Null).await?;
    let kafka = stage.kafka();
    ensure(keys(&kafka).contains("user/acme/anna\n"), || "the directory has no such key".to_owned())?;
    let number = stage.world.cast.phone_number_id.clone();
    let mut others = 0;
    let compacted = async || {
        // A segment is only closed, and so cleaned, when there is something more to write.
        others += 1;
        let user = format!("/v1/directory/users/other-{}", others % 20);
        stage.world.write(Method::PUT, &user, &json!({ "phone_number_id": number, "enabled": true })).await?;
        Ok((!keys(&kafka).contains("user/acme/anna\n")).then_some(()))
    };
    stage.world.until("the cleaner to remove record and tombstone", compacted).await?;

    stage.fleet.spawn(tracker).map_err(broken)?;
    stage.fleet.wait_ready(tracker).await.map_err(broken)?;
    stage.world.composer("not_enabled").await?;
    stage.refused("not_enabled").await?;
    let mut log = Log::new(&kafka, 1);
    let events = log.events().await.map_err(broken)?;
    let disabled = events.iter().filter(|recorded| matches!(recorded.event, Event::WhatsAppDisabled(_))).count();
    ensure(disabled == 1, || format!("{disabled} users were taken away"))
}

/// The keys that stand in the directory, one a line.
fn keys(kafka: &str) -> String {
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-b", kafka, "-t", DIRECTORY, "-e", "-q", "-f", "%k\n"]);
    String::from_utf8_lossy(&kcat.output().expect("kcat runs").stdout).into_owned()
}

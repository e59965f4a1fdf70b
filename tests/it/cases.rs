//! Cases from public bug reports (`tests/cases`), played on the built programs: what arrives at the receiver or the API, and what must then
//! stand in the log, the composer and WhatsApp's ledger.

mod on_servers;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use connector_demo::story::{Broken, World, ensure};
use connector_demo::{Backend, Fleet, Plan};
use connector_ports::Clock;
use connector_ports::clock::SystemClock;
use connector_tests::{programs, root};
use connector_whatsapp::signature::sign;
use reqwest::Method;
use serde_json::{Value, json};

use crate::story::ONE_FLEET;

const NUMBER: &str = "106540352242922";
const ACCOUNT: &str = "102290129340398";
const SECRET: &str = "demo-app-secret";
/// The contact of most inputs.
const MARA: &str = "15550100042";

type Held = Result<(), Broken>;

/// Every folder of `tests/cases`, with the play of its input.
async fn play(case: &str, stage: &mut Stage) -> Held {
    match case {
        "01-lone-surrogate" => lone_surrogate(stage).await,
        "02-user-id-rotated" => user_id_rotated(stage, "input.json").await,
        "02-user-id-rotated, its sender named" => user_id_rotated(stage, "input-2.json").await,
        "04-standby-stop" => standby_stop(stage).await,
        "05-stop-promotions-button" => stop_promotions(stage).await,
        "07-stop-as-caption" => stop_as_caption(stage).await,
        "09-status-131050" => marketing_stopped_by_status(stage).await,
        "10-old-and-new-number-plan" => old_and_new_plan(stage).await,
        "11-trunk-zero-in-phone" => trunk_zero(stage).await,
        "12-template-parameter-whitespace" => parameter_whitespace(stage).await,
        "13-template-media-header" => not_sendable(stage, "spring_photos").await,
        "14-template-flow-and-code-buttons" => not_sendable(stage, "book_a_visit").await,
        "15-code-100-subcode-33" => configuration(stage).await,
        _ => Err(Broken(format!("{case} has no play"))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_of_a_public_bug_report_holds() {
    let _alone = ONE_FLEET.lock().await;
    let folders = std::fs::read_dir(root().join("tests/cases")).expect("the cases").filter_map(Result::ok);
    let mut cases: BTreeSet<String> = folders
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|case| !on_servers::FOLDERS.contains(&case.as_str()))
        .collect();
    assert!(cases.len() >= 12, "{cases:?}");
    cases.insert("02-user-id-rotated, its sender named".to_owned());
    let mut broken = Vec::new();
    for case in &cases {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut fleet, mut stage) = Stage::start(case, folder.path()).await;
        if let Err(Broken(why)) = play(case, &mut stage).await {
            broken.push(format!("{case}: {why}"));
        }
        fleet.stop();
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// One user, one contact, and the whole product in one process.
struct Stage {
    world: World,
    folder: PathBuf,
    webhooks: String,
    admin: String,
    http: reqwest::Client,
}

impl Stage {
    async fn start(case: &str, folder: &std::path::Path) -> (Fleet, Self) {
        let mut plan = Plan::new(Backend::Embedded, Duration::from_secs(24 * 3600));
        let numbers = [("SIMULATOR_PHONE_NUMBER_ID", NUMBER), ("SIMULATOR_WABA_ID", ACCOUNT)];
        plan.simulator = numbers.map(|(name, value)| (name, value.to_owned())).to_vec();
        if case.starts_with("10-") {
            // Its contacts write past the simulator, which knows no window of theirs.
            plan.simulator.push(("SIMULATOR_WINDOW_ERRORS", "off".to_owned()));
        }
        let quick = [("CONFIGURATION_PAUSE", "1s"), ("TEMPLATE_SYNC_INTERVAL", "1s")];
        plan.settings = quick.map(|(name, value)| (name, value.to_owned())).to_vec();
        let fleet = Fleet::start_plan(plan, &programs(), folder).await.unwrap_or_else(|error| panic!("{error}"));
        let cast = connector_demo::story::Cast {
            phone_number_id: NUMBER.to_owned(),
            waba_id: ACCOUNT.to_owned(),
            contact_phone: MARA.to_owned(),
            ..fleet.settings().cast()
        };
        let (_, _, admin) = fleet.processes().into_iter().find(|(name, ..)| *name == "connector").expect("the product");
        let mut world = World::new(cast);
        world.user = "ada".to_owned();
        let mut stage = Self {
            world,
            folder: root().join("tests/cases").join(case.split(',').next().unwrap_or_default()),
            webhooks: fleet.settings().webhooks_url(),
            admin,
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
        };
        stage.enable().await.unwrap_or_else(|Broken(why)| panic!("{case}: {why}"));
        (fleet, stage)
    }

    async fn enable(&mut self) -> Held {
        self.world.assign_number().await?;
        let user = json!({ "phone_number_id": NUMBER, "enabled": true });
        self.world.write(Method::PUT, "/v1/directory/users/ada", &user).await?;
        self.world.conversation = self.contact("mara", json!({ "phone": MARA, "name": "Mara" })).await?;
        self.world.composer("opt_in_required").await.map(drop)
    }

    /// Puts somebody into the user's contacts; their conversation.
    async fn contact(&self, id: &str, contact: Value) -> Result<String, Broken> {
        let path = format!("/v1/directory/users/ada/contacts/{id}");
        self.world.write(Method::PUT, &path, &contact).await?;
        let mut who = contact;
        who["phone_number_id"] = json!(NUMBER);
        who.as_object_mut().map(|who| who.remove("name"));
        let resolved = self.world.write(Method::POST, "/v1/conversations/resolve", &who).await?;
        let conversation = resolved["conversation_id"].as_str().map(str::to_owned);
        conversation.ok_or_else(|| Broken(format!("{id} has no conversation")))
    }

    fn input(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).expect("an input of the case")
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.input(name)).expect("JSON")
    }

    /// A delivery of WhatsApp, signed over these bytes.
    async fn deliver(&self, body: &str) -> Held {
        let signature = sign(SECRET.as_bytes(), body.as_bytes());
        let post = self.http.post(&self.webhooks).header("content-type", "application/json");
        let post = post.header("x-hub-signature-256", signature).body(body.to_owned());
        let answer = post.send().await.map_err(|error| Broken(error.to_string()))?;
        ensure(answer.status() == 200, || format!("the receiver answered {}", answer.status()))
    }

    /// The conversation as the user's screen gets it.
    async fn view(&self) -> Result<Value, Broken> {
        self.world.get(&format!("/v1/conversations/{}?user_id=ada", self.world.conversation)).await
    }

    /// The event of an item that arrived.
    async fn received(&self, wamid: &str) -> Result<Value, Broken> {
        let is = |event: &Value| event["type"] == "MessageReceived" && event["data"]["wamid"] == wamid;
        self.world.event(wamid, is).await
    }

    /// Sends the body of a case; what became of it.
    async fn send(&self, body: &Value, until: &str) -> Result<Value, Broken> {
        let answer = self.world.write(Method::POST, "/v1/commands/send", body).await?;
        let command = answer["command_id"].as_str().unwrap_or_default().to_owned();
        self.world.outcome(&command, until).await
    }

    async fn rejected(&self, body: &Value, reasons: &[&str]) -> Held {
        let before = self.world.posts().await?.1;
        let outcome = self.send(body, "sent").await?;
        let named = reasons.iter().any(|reason| outcome["reason"] == *reason);
        ensure(outcome["state"] == "rejected" && named, || format!("it ended as {outcome}"))?;
        ensure(self.world.posts().await?.1 == before, || "it was refused after a call".to_owned())
    }

    /// The contact accepts the opt-in, so that templates may leave.
    async fn opted_in(&self) -> Held {
        self.template_is_known("opt_in_request").await?;
        self.world.consent("request_opt_in").await?;
        let shown = async || Ok((self.world.posts().await?.0 > 0).then_some(()));
        self.world.until("the opt-in message", shown).await?;
        self.world.contact_sends(json!({ "type": "button", "payload": "OPT_IN_ACCEPT" })).await?;
        self.world.composer("free_form").await.map(drop)
    }

    /// Waits until the catalogue has a template; how it is listed.
    async fn template_is_known(&self, name: &str) -> Result<Value, Broken> {
        let listed = async || {
            let list = self.world.get(&format!("/v1/templates?phone_number_id={NUMBER}")).await?;
            Ok(list["templates"].as_array().and_then(|list| list.iter().find(|one| one["name"] == name).cloned()))
        };
        self.world.until("the template", listed).await
    }

    async fn no_dead_letter(&self) -> Held {
        let metrics = self.http.get(format!("{}/metrics", self.admin)).send().await;
        let metrics = metrics.map_err(|error| Broken(error.to_string()))?.text().await.unwrap_or_default();
        let mut letters = metrics.lines().filter(|line| line.contains("records_dead_lettered_total{"));
        match letters.find(|line| !line.ends_with(" 0")) {
            Some(line) => Err(Broken(format!("a dead letter: {line}"))),
            None => Ok(()),
        }
    }
}

/// The bytes of an input with its timestamps moved so that the newest of `all` is five seconds ago. Every other byte stays: a JSON library
/// would lose what some of the inputs are about.
fn fresh(input: &str, all: &[&str]) -> String {
    let now = SystemClock.now().as_millis().unsigned_abs() / 1000;
    let newest = all.iter().flat_map(|text| times(text)).map(|(_, at)| at).max().unwrap_or(now);
    let mut moved = input.to_owned();
    for (place, at) in times(input) {
        moved.replace_range(place..place + 10, &(at + now - 5 - newest).to_string());
    }
    moved
}

/// Where the timestamps stand, and what they say.
fn times(text: &str) -> Vec<(usize, u64)> {
    let found = text.match_indices("\"timestamp\"").filter_map(|(at, name)| {
        let rest = &text[at + name.len()..];
        let place = at + name.len() + rest.find(|c: char| c.is_ascii_digit())?;
        Some((place, text.get(place..place + 10)?.parse().ok()?))
    });
    found.collect()
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

async fn lone_surrogate(stage: &mut Stage) -> Held {
    let input = stage.input("input.json");
    stage.deliver(&fresh(&input, &[&input])).await?;
    let event = stage.received("wamid.HBgLCASE01A").await?;
    ensure(event["data"]["text"] == "STOP \u{fffd}", || format!("it was recorded as {}", event["data"]))?;
    stage.world.composer("opted_out").await?;
    let view = stage.view().await?;
    ensure(!view["conversation"]["deadline"].is_null(), || format!("no window: {view}"))?;
    stage.no_dead_letter().await
}

async fn user_id_rotated(stage: &mut Stage, change: &str) -> Held {
    let [before, change, after] = ["before.json", change, "after.json"].map(|name| stage.input(name));
    let all = [before.as_str(), &change, &after];
    stage.world.conversation = stage.contact("former", json!({ "bsuid": "US.1000000000000201" })).await?;
    stage.deliver(&fresh(&before, &all)).await?;
    stage.world.composer("opted_out").await?;
    stage.deliver(&fresh(&change, &all)).await?;
    stage.world.event("IdentityLearned", |event| event["type"] == "IdentityLearned").await?;
    stage.contact("now", json!({ "bsuid": "US.1000000000000202" })).await?;
    stage.deliver(&fresh(&after, &all)).await?;
    stage.received("wamid.HBgLCASE02D").await?;
    let list = stage.world.get("/v1/conversations?user_id=ada").await?;
    let theirs = list["conversations"].as_array().map_or(0, |list| {
        list.iter().filter(|one| one["address"]["bsuid"].as_str().is_some_and(|id| id.starts_with("US."))).count()
    });
    ensure(theirs == 1, || format!("{theirs} conversations with one person: {list}"))?;
    let body = json!({ "user_id": "ada", "phone_number_id": NUMBER,
        "recipient": { "bsuid": "US.1000000000000202" }, "content": text("Hello") });
    stage.rejected(&body, &["opted_out"]).await?;
    stage.no_dead_letter().await
}

async fn standby_stop(stage: &mut Stage) -> Held {
    stage.world.contact_sends(text("Hello")).await?;
    stage.world.composer("free_form").await?;
    let slow = json!({ "fault": "error", "code": 131_056, "wa_id": MARA });
    stage.world.simulate(Method::POST, "/faults", Some(&slow)).await?;
    let queued = [stage.world.send(text("One")).await?, stage.world.send(text("Two")).await?];
    let seen = async || Ok((stage.world.posts().await?.1 > 0).then_some(()));
    stage.world.until("WhatsApp to refuse the pace", seen).await?;
    let (input, statuses) = (stage.input("input.json"), stage.input("input-2.json"));
    stage.deliver(&fresh(&input, &[&input])).await?;
    stage.received("wamid.HBgLCASE04A").await?;
    stage.world.composer("opted_out").await?;
    stage.world.simulate(Method::DELETE, "/faults", None).await?;
    for command in &queued {
        let outcome = stage.world.outcome(command, "sent").await?;
        let withdrawn = outcome["state"] == "failed" && outcome["reason"] == "opted_out";
        ensure(withdrawn, || format!("a message that was queued at the STOP ended as {outcome}"))?;
    }
    ensure(stage.world.posts().await?.0 == 0, || "a message left after the STOP".to_owned())?;
    stage.deliver(&fresh(&statuses, &[&statuses])).await?;
    let told = |event: &Value| event["data"]["wamid"] == "wamid.HBgLCASE04B";
    stage.world.event("the status of standby", told).await?;
    stage.no_dead_letter().await
}

fn marketing(name: &str) -> Value {
    json!({ "user_id": "ada", "phone_number_id": NUMBER, "recipient": { "phone": MARA },
        "content": { "type": "template", "name": name, "language": "en_US", "body": ["Mara"] } })
}

async fn stop_promotions(stage: &mut Stage) -> Held {
    stage.template_is_known("spring_sale").await?;
    stage.opted_in().await?;
    let input = stage.input("input.json");
    stage.deliver(&fresh(&input, &[&input])).await?;
    stage.received("wamid.HBgLCASE05A").await?;
    stage.rejected(&marketing("spring_sale"), &["marketing_stopped", "opted_out"]).await
}

async fn stop_as_caption(stage: &mut Stage) -> Held {
    let input = stage.input("input.json");
    stage.deliver(&fresh(&input, &[&input])).await?;
    let event = stage.received("wamid.HBgLCASE07A").await?;
    let data = &event["data"];
    let recorded = data["message_type"] == "image" && data["unsupported"] == true && data["intent"] == "stop";
    ensure(recorded, || format!("it was recorded as {data}"))?;
    stage.world.composer("opted_out").await.map(drop)
}

async fn marketing_stopped_by_status(stage: &mut Stage) -> Held {
    let sale = json!({ "name": "summer_sale", "language": "en_US", "category": "MARKETING", "status": "APPROVED",
        "components": [{ "type": "BODY", "text": "Hello {{1}}, everything is cheaper." }] });
    stage.world.simulate(Method::POST, "/templates", Some(&sale)).await?;
    stage.template_is_known("summer_sale").await?;
    stage.opted_in().await?;
    let send = stage.json("send.json");
    let outcome = stage.send(&send, "sent").await?;
    let wamid = outcome["wamid"].as_str().unwrap_or_default().to_owned();
    ensure(!wamid.is_empty(), || format!("it was not sent: {outcome}"))?;
    let input = stage.input("input.json").replace("wamid.HBgLOUT09", &wamid);
    stage.deliver(&fresh(&input, &[&input])).await?;
    let failed = |event: &Value| event["type"] == "MessageStatusChanged" && event["data"]["status"] == "failed";
    stage.world.event("the failed status", failed).await?;
    stage.rejected(&send, &["marketing_stopped"]).await
}

async fn old_and_new_plan(stage: &mut Stage) -> Held {
    let input = stage.input("input.json");
    for (id, new, old) in [("ivory", "2250745000000", "22545000000"), ("benin", "2290197000000", "22997000000")] {
        stage.world.conversation = stage.contact(id, json!({ "phone": new })).await?;
        let wamid = format!("wamid.HBgLCASE10{id}");
        let body = input.replace("22545000000", old).replace("wamid.HBgLCASE10A", &wamid);
        stage.deliver(&fresh(&body, &[&body])).await?;
        stage.received(&wamid).await?;
        let body = json!({ "user_id": "ada", "phone_number_id": NUMBER, "recipient": { "phone": new },
            "content": text("Oui, dès neuf heures") });
        let outcome = stage.send(&body, "sent").await?;
        ensure(outcome["state"] == "sent" || outcome["state"] == "delivered", || format!("{id}: {outcome}"))?;
    }
    Ok(())
}

async fn trunk_zero(stage: &mut Stage) -> Held {
    const PERSON: &str = "442079460958";
    stage.world.cast.contact_phone = PERSON.to_owned();
    stage.world.conversation = stage.contact("emma", json!({ "phone": PERSON })).await?;
    stage.world.contact_sends(text("Is it ready?")).await?;
    stage.world.composer("free_form").await?;
    let outcome = stage.send(&stage.json("send.json"), "sent").await?;
    ensure(outcome["state"] == "sent" || outcome["state"] == "delivered", || format!("it ended as {outcome}"))?;
    ensure(stage.world.posts().await?.0 == 1, || "it went to somebody else".to_owned())?;
    let same = stage.contact("emma-again", json!({ "phone": "+44 (0)20 7946 0958" })).await?;
    ensure(same == stage.world.conversation, || "one person has two conversations".to_owned())
}

async fn parameter_whitespace(stage: &mut Stage) -> Held {
    stage.world.simulate(Method::POST, "/templates", Some(&stage.json("template.json"))).await?;
    stage.template_is_known("order_note").await?;
    stage.opted_in().await?;
    for name in ["send.json", "send-2.json", "send-3.json"] {
        let send = stage.json(name);
        stage.rejected(&send, &["template_parameters"]).await?;
        let mut preview = send["content"].clone();
        preview["phone_number_id"] = json!(NUMBER);
        preview.as_object_mut().map(|preview| preview.remove("type"));
        let preview = stage.world.write(Method::POST, "/v1/templates/preview", &preview).await?;
        ensure(preview["sendable"] == false, || format!("the preview says {preview}"))?;
    }
    Ok(())
}

async fn not_sendable(stage: &mut Stage, name: &str) -> Held {
    stage.world.simulate(Method::POST, "/templates", Some(&stage.json("template.json"))).await?;
    let listed = stage.template_is_known(name).await?;
    ensure(listed["sendable"] == false, || format!("it is listed as {listed}"))?;
    stage.opted_in().await?;
    stage.rejected(&stage.json("send.json"), &["template_not_sendable", "template_parameters"]).await
}

async fn configuration(stage: &mut Stage) -> Held {
    const MESSAGES: u64 = 10;
    stage.world.contact_sends(text("Hello")).await?;
    stage.world.composer("free_form").await?;
    let answer = stage.json("answer.json");
    let refused = json!({ "fault": "error", "code": answer["error"]["code"], "subcode": answer["error"]["error_subcode"], "status": 400 });
    stage.world.simulate(Method::POST, "/faults", Some(&refused)).await?;
    let send = stage.json("send.json");
    let mut commands = Vec::new();
    for _ in 0..MESSAGES {
        let answer = stage.world.write(Method::POST, "/v1/commands/send", &send).await?;
        commands.push(answer["command_id"].as_str().unwrap_or_default().to_owned());
    }
    let seen = async || Ok((stage.world.posts().await?.1 > 0).then_some(()));
    stage.world.until("the first refusal", seen).await?;
    for command in &commands {
        let outcome = stage.world.outcome(command, "accepted").await?;
        ensure(outcome["state"] == "accepted", || format!("while the number is refused: {outcome}"))?;
    }
    stage.world.simulate(Method::DELETE, "/faults", None).await?;
    for command in &commands {
        let outcome = stage.world.outcome(command, "sent").await?;
        ensure(outcome["state"] == "sent" || outcome["state"] == "delivered", || format!("afterwards: {outcome}"))?;
    }
    let accepted = stage.world.posts().await?.0;
    ensure(accepted == MESSAGES, || format!("{accepted} of {MESSAGES} messages left"))
}

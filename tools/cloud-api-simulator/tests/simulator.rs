//! Drives the simulator over HTTP as a connector and a checker do.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use cloud_api_simulator::{Config, DEFAULT_PHONE_NUMBER_IDS, DEFAULT_WABA_ID, Handle, Switch, WindowErrors, spawn};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

const CONTACT: &str = "16505551234";
const PHONE: &str = DEFAULT_PHONE_NUMBER_IDS[0];
const DAY_S: i64 = 86_400;

/// A webhook receiver: answers the given statuses first, then 200, and keeps what it got.
#[derive(Default)]
struct Receiver {
    answers: Mutex<VecDeque<u16>>,
    got: Mutex<Vec<(u16, String, Bytes)>>,
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let status = receiver.answers.lock().expect("lock").pop_front().unwrap_or(200);
    let signature = headers["x-hub-signature-256"].to_str().expect("ascii").to_owned();
    receiver.got.lock().expect("lock").push((status, signature, body));
    StatusCode::from_u16(status).expect("status")
}

async fn challenge(Query(query): Query<std::collections::HashMap<String, String>>) -> Result<String, StatusCode> {
    let accepted = query["hub.mode"] == "subscribe" && query["hub.verify_token"] == "simulator-verify-token";
    if accepted { Ok(query["hub.challenge"].clone()) } else { Err(StatusCode::FORBIDDEN) }
}

struct World {
    simulator: Handle,
    receiver: Arc<Receiver>,
    http: reqwest::Client,
}

impl World {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let receiver = Arc::new(Receiver::default());
        let router = Router::new().route("/webhook", get(challenge).post(receive)).with_state(Arc::clone(&receiver));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/webhook", listener.local_addr().expect("address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut config = Config::default();
        config.callback_url = Some(url);
        config.delivery_delay = Duration::from_millis(5);
        config.webhook_retry_base = Duration::from_millis(20);
        change(&mut config);
        let simulator = spawn(config).await.expect("the simulator starts");
        Self { simulator, receiver, http: reqwest::Client::new() }
    }

    async fn control(&self, path: &str, body: Value) -> Value {
        let url = format!("{}/simulator/{path}", self.simulator.base_url());
        let response = self.http.post(url).json(&body).send().await.expect("an answer");
        assert!(response.status().is_success(), "{path}: {}", response.text().await.expect("text"));
        response.json().await.expect("JSON")
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.http.get(format!("{}/{path}", self.simulator.base_url())).bearer_auth("simulator-token");
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    async fn try_post(&self, body: &Value) -> reqwest::Result<(u16, Value)> {
        let url = format!("{}/v26.0/{PHONE}/messages", self.simulator.base_url());
        let response = self.http.post(url).bearer_auth("simulator-token").json(body).send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    async fn post(&self, body: &Value) -> (u16, Value) {
        self.try_post(body).await.expect("an answer")
    }

    /// Values of all acknowledged changes so far.
    fn values(&self) -> Vec<Value> {
        let got = self.receiver.got.lock().expect("lock");
        let bodies = got.iter().filter(|(status, ..)| *status == 200);
        let bodies = bodies.map(|(_, _, body)| serde_json::from_slice::<Value>(body).expect("JSON"));
        let values = |body: &Value| -> Vec<Value> {
            let entries = body["entry"].as_array().expect("entry").iter();
            entries
                .flat_map(|entry| entry["changes"].as_array().expect("changes"))
                .map(|c| c["value"].clone())
                .collect()
        };
        bodies.flat_map(|body| values(&body)).collect()
    }

    /// Statuses that came for a message, in order.
    fn statuses(&self, wamid: &str) -> Vec<Value> {
        let values = self.values();
        let statuses = values.iter().filter_map(|value| value["statuses"].as_array()).flatten();
        statuses.filter(|status| status["id"] == wamid).cloned().collect()
    }

    async fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition(self) {
            assert!(Instant::now() < deadline, "did not happen: {what}");
            tokio::task::yield_now().await;
        }
    }
}

fn text(opaque: &str) -> Value {
    json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": format!("+{CONTACT}"), "type": "text",
        "text": {"body": "Grüße/🌱"}, "biz_opaque_callback_data": opaque})
}

fn opt_in() -> Value {
    let button = |index: &str, payload: &str| {
        json!({"type": "button", "sub_type": "quick_reply", "index": index,
            "parameters": [{"type": "payload", "payload": payload}]})
    };
    json!({"messaging_product": "whatsapp", "to": CONTACT, "type": "template", "template": {"name": "opt_in_request",
        "language": {"code": "en_US"}, "components": [
            {"type": "body", "parameters": [{"type": "text", "text": "Lucky Shrub"}]},
            button("0", "OPT_IN_ACCEPT"), button("1", "OPT_IN_DECLINE")]}})
}

fn wamid(answer: &Value) -> String {
    answer["messages"][0]["id"].as_str().expect("a wamid").to_owned()
}

#[tokio::test]
async fn a_text_in_the_window_is_sent_and_delivered_with_signed_escaped_webhooks() {
    let world = World::start(|_| {}).await;
    world.control(&format!("contacts/{CONTACT}/messages"), json!({"text": "Hé/😀"})).await;
    let (status, answer) = world.post(&text("attempt-1")).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["contacts"], json!([{"input": "+16505551234", "wa_id": CONTACT}]));
    assert!(answer["messages"][0].get("message_status").is_none());
    let id = wamid(&answer);
    world.wait("both statuses", |world| world.statuses(&id).len() == 2).await;
    let statuses = world.statuses(&id);
    assert_eq!((&statuses[0]["status"], &statuses[1]["status"]), (&json!("sent"), &json!("delivered")));
    assert!(statuses.iter().all(|status| status["biz_opaque_callback_data"] == "attempt-1"));
    assert!(statuses.iter().all(|status| status["timestamp"].is_string()));
    for (_, signature, body) in world.receiver.got.lock().expect("lock").iter() {
        assert!(body.is_ascii());
        let mut mac = Hmac::<Sha256>::new_from_slice(b"simulator-app-secret").expect("a key");
        mac.update(body);
        assert_eq!(*signature, format!("sha256={}", hex::encode(mac.finalize().into_bytes())));
    }
    let first = world.receiver.got.lock().expect("lock")[0].2.clone();
    assert!(String::from_utf8_lossy(&first).contains(r"H\u00e9\/\ud83d\ude00"));
    let read = world.control(&format!("contacts/{CONTACT}/read"), json!({})).await;
    assert_eq!(read["read"], json!([id]));
    world.wait("the read status", |world| world.statuses(&id).len() == 3).await;
    let screen = world.get(&format!("simulator/contacts/{CONTACT}")).await;
    let conversation = &screen["conversations"][0];
    assert_eq!(conversation["sender"]["verified"], true);
    assert_eq!(conversation["messages"][0]["text"], "Hé/😀");
    assert_eq!(
        (&conversation["messages"][1]["text"], &conversation["messages"][1]["status"]),
        (&json!("Grüße/🌱"), &json!("read"))
    );
}

#[tokio::test]
async fn a_webhook_is_repeated_until_the_receiver_answers_200() {
    let world = World::start(|_| {}).await;
    world.receiver.answers.lock().expect("lock").extend([503, 500, 401, 204]);
    let sent = world.control(&format!("contacts/{CONTACT}/messages"), json!({"text": "hello"})).await;
    world.wait("five deliveries", |world| world.receiver.got.lock().expect("lock").len() == 5).await;
    let got: Vec<u16> = world.receiver.got.lock().expect("lock").iter().map(|(status, ..)| *status).collect();
    assert_eq!(got, [503, 500, 401, 204, 200]);
    let path = format!("simulator/webhooks?id={}", sent["id"].as_str().expect("id").replace('+', "%2B"));
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut report = world.get(&path).await;
    while report["webhooks"][0]["acked_ms"].is_null() && Instant::now() < deadline {
        report = world.get(&path).await;
    }
    assert_eq!(report["webhooks"][0]["attempts"], 5);
    assert_eq!(report["counters"]["pending"], 0);
}

#[tokio::test]
async fn outside_the_window_a_text_is_refused_at_once_or_fails_later() {
    let old = json!({"text": "hello", "timestamp": 1_700_000_000 - DAY_S});
    let world = World::start(|_| {}).await;
    world.control(&format!("contacts/{CONTACT}/messages"), old.clone()).await;
    let (status, answer) = world.post(&text("a")).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!(131_047)));
    assert!(answer["error"]["fbtrace_id"].is_string());

    let world = World::start(|config| config.window_errors = WindowErrors::Async).await;
    world.control(&format!("contacts/{CONTACT}/messages"), old).await;
    let (status, answer) = world.post(&text("a")).await;
    assert_eq!(status, 200);
    world.wait("the failed status", |world| !world.statuses(&wamid(&answer)).is_empty()).await;
    let failed = &world.statuses(&wamid(&answer))[0];
    assert_eq!((&failed["status"], &failed["errors"][0]["code"]), (&json!("failed"), &json!(131_047)));
    let (status, _) = world.post(&opt_in()).await;
    assert_eq!(status, 200, "templates need no window");
}

#[tokio::test]
async fn a_call_is_told_with_its_end_and_opens_the_window() {
    let world = World::start(|_| {}).await;
    assert_eq!(world.post(&text("attempt-1")).await.1["error"]["code"], 131_047);
    let id = world.control(&format!("contacts/{CONTACT}/calls"), json!({"seconds": 7})).await["id"].clone();
    world
        .wait("both webhooks", |world| world.values().iter().filter(|value| value["calls"].is_array()).count() == 2)
        .await;
    let values = world.values();
    let calls: Vec<_> = values.iter().filter_map(|value| value["calls"].as_array()).flatten().collect();
    assert!(
        calls.iter().all(|call| call["id"] == id && call["from"] == CONTACT && call["direction"] == "USER_INITIATED")
    );
    assert_eq!((&calls[0]["event"], &calls[1]["event"]), (&json!("connect"), &json!("terminate")));
    assert_eq!(calls[1]["duration"], 7);
    assert_eq!(world.post(&text("attempt-2")).await.0, 200);
}

#[tokio::test]
async fn a_dropped_answer_leaves_an_accepted_message_and_a_reset_none() {
    let world = World::start(|config| config.window_errors = WindowErrors::Off).await;
    let rules =
        json!([{"fault": "accept_then_drop", "next": 1}, {"fault": "reset_before", "next": 1, "wa_id": CONTACT}]);
    world.control("faults", rules).await;
    assert!(world.try_post(&text("dropped")).await.is_err());
    // Both rules struck on the first request; the first one made the answer.
    world.control("faults", json!({"fault": "reset_before", "next": 1})).await;
    assert!(world.try_post(&text("reset")).await.is_err());
    world.control("faults", json!({"fault": "truncated_body", "next": 1})).await;
    assert!(world.try_post(&text("cut")).await.is_err());
    world.control("faults", json!({"fault": "slow_loris", "ms": 20, "next": 1})).await;
    assert_eq!(world.post(&text("slow")).await.0, 200);
    let ledger = world.get("simulator/ledger").await;
    let by = &ledger["by_opaque"];
    assert_eq!(by["dropped"], json!({"posts": 1, "accepted": 1}));
    assert_eq!(by["reset"], json!({"posts": 1, "accepted": 0}));
    assert_eq!(by["cut"], json!({"posts": 1, "accepted": 1}));
    assert_eq!(ledger["totals"]["lost"], 1);
    let id = ledger["posts"][0]["id"].as_str().expect("a wamid").to_owned();
    world.wait("statuses of the dropped one", |world| world.statuses(&id).len() == 2).await;
    assert_eq!(world.statuses(&id)[0]["biz_opaque_callback_data"], "dropped");
}

#[tokio::test]
async fn tapping_a_quick_reply_sends_its_payload_and_opens_the_window() {
    let world = World::start(|_| {}).await;
    let (status, answer) = world.post(&opt_in()).await;
    assert_eq!((status, &answer["messages"][0]["message_status"]), (200, &json!("accepted")));
    assert_eq!(world.post(&text("early")).await.1["error"]["code"], 131_047);
    world.control(&format!("contacts/{CONTACT}/messages"), json!({"type": "button", "payload": "OPT_IN_ACCEPT"})).await;
    let tapped = |world: &World| world.values().into_iter().find(|value| value["messages"][0]["type"] == "button");
    world.wait("the tap", |world| tapped(world).is_some()).await;
    let value = tapped(&world).expect("the tap");
    let message = &value["messages"][0];
    assert_eq!(message["button"], json!({"payload": "OPT_IN_ACCEPT", "text": "Yes, I agree"}));
    assert_eq!(message["context"]["id"], answer["messages"][0]["id"]);
    assert_eq!(value["contacts"][0]["wa_id"], CONTACT);
    assert!(value["contacts"][0]["user_id"].as_str().is_some_and(|id| id.starts_with("US.")));
    assert_eq!(world.post(&text("later")).await.0, 200);
}

#[tokio::test]
async fn limits_and_faults_answer_with_graph_errors() {
    let world = World::start(|config| {
        config.window_errors = WindowErrors::Off;
        config.throughput = 1;
        config.throttle_status = 429;
    })
    .await;
    assert_eq!(world.post(&text("1")).await.0, 200);
    let (status, answer) = world.post(&text("2")).await;
    assert_eq!((status, &answer["error"]["code"]), (429, &json!(130_429)));

    let world = World::start(|config| {
        config.window_errors = WindowErrors::Off;
        config.statuses = Switch::Off;
        config.pair_limit = Switch::On;
    })
    .await;
    for _ in 0..45 {
        assert_eq!(world.post(&text("burst")).await.0, 200);
    }
    assert_eq!(world.post(&text("46")).await.1["error"]["code"], 131_056);
    world.control("faults", json!({"fault": "error", "code": 131_057, "status": 500, "next": 1})).await;
    let (status, answer) = world.post(&text("47")).await;
    assert_eq!((status, &answer["error"]["code"]), (500, &json!(131_057)));
}

#[tokio::test]
async fn templates_are_listed_in_pages_and_their_status_is_enforced_and_told() {
    let world = World::start(|_| {}).await;
    let base = format!("v26.0/{DEFAULT_WABA_ID}/message_templates");
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("{base}?fields=name,status&limit=3{after}")).await;
        let data = page["data"].as_array().expect("data").clone();
        names.extend(data.iter().map(|t| t["name"].as_str().expect("name").to_owned()));
        if page["paging"]["next"].is_null() {
            break;
        }
        after = format!("&after={}", page["paging"]["cursors"]["after"].as_str().expect("cursor"));
    }
    assert_eq!(names.len(), 7);
    assert_eq!(world.get(&format!("{base}?after=ffff")).await["error"]["code"], 131_059);
    let summed = world.get(&format!("{base}?limit=1&status=APPROVED&summary=total_count,message_template_count")).await;
    assert_eq!(summed["summary"], json!({"total_count": 5, "message_template_count": 7}));
    let approved = world.get(&format!("{base}?status=APPROVED")).await;
    assert_eq!(approved["data"].as_array().map(Vec::len), Some(5));
    world.control("templates/opt_in_request/status", json!({"status": "PAUSED"})).await;
    let paused =
        |world: &World| world.values().iter().any(|v| v["event"] == "PAUSED" && v["message_template_id"].is_u64());
    world.wait("the template webhook", paused).await;
    assert_eq!(world.post(&opt_in()).await.1["error"]["code"], 132_015);
}

#[tokio::test]
async fn tokens_numbers_and_callbacks_are_checked() {
    let world = World::start(|_| {}).await;
    let url = format!("{}/v26.0/{PHONE}/messages", world.simulator.base_url());
    let response = world.http.post(url).bearer_auth("wrong").json(&text("a")).send().await.expect("an answer");
    assert_eq!(response.status(), 401);
    assert_eq!(response.json::<Value>().await.expect("JSON")["error"]["code"], 190);
    let path = format!("{}/simulator/phones/{PHONE}", world.simulator.base_url());
    world.http.put(path).json(&json!({"registered": false})).send().await.expect("an answer");
    assert_eq!(world.post(&text("a")).await.1["error"]["code"], 133_010);
    assert_eq!(world.control("callback/verify", json!({})).await["verified"], true);
    let profile = world.get(&format!("v26.0/{PHONE}/whatsapp_business_profile?fields=about")).await;
    assert_eq!(profile["data"][0]["messaging_product"], "whatsapp");
    let numbers = world.get(&format!("v26.0/{DEFAULT_WABA_ID}/phone_numbers")).await;
    assert_eq!(numbers["data"].as_array().map(Vec::len), Some(2));
    let official = world.get(&format!("v26.0/{PHONE}/official_business_account")).await;
    assert_eq!(official["oba_status"], "APPROVED");
}

#[tokio::test]
async fn a_user_id_addresses_a_known_contact_and_reading_needs_a_known_message() {
    let world = World::start(|_| {}).await;
    let sent = world.control(&format!("contacts/{CONTACT}/messages"), json!({"text": "hello"})).await;
    let screen = world.get(&format!("simulator/contacts/{CONTACT}")).await;
    let mut request = text("a");
    request["recipient"] = screen["user_id"].clone();
    request.as_object_mut().expect("an object").remove("to");
    let (status, answer) = world.post(&request).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["contacts"], json!([{"input": screen["user_id"], "user_id": screen["user_id"]}]));
    let read = |id: &Value| json!({"messaging_product": "whatsapp", "status": "read", "message_id": id});
    assert_eq!(world.post(&read(&sent["id"])).await, (200, json!({"success": true})));
    assert_eq!(world.post(&read(&json!("wamid.none"))).await.0, 400);
    world.control("reset", json!({})).await;
    assert_eq!(world.get("simulator/stats").await["posts"], 0);
    world.simulator.shutdown().await;
}

#[tokio::test]
async fn a_user_id_in_to_is_accepted_and_nobody_gets_it() {
    let world = World::start(|_| {}).await;
    let body = json!({"messaging_product": "whatsapp", "to": "US.13491208655302741918", "type": "text",
        "text": {"body": "hello"}, "biz_opaque_callback_data": "dropped"});
    let (status, answer) = world.post(&body).await;
    assert_eq!(status, 200, "{answer}");
    let id = wamid(&answer);
    let ledger = world.get("simulator/ledger?opaque=dropped").await;
    let post = &ledger["posts"][0];
    assert_eq!((&post["to"], &post["fault"]), (&json!("US.13491208655302741918"), &json!("user_id_in_to")), "{ledger}");
    world.control(&format!("contacts/{CONTACT}/messages"), json!({"text": "hi"})).await;
    world.wait("a later webhook", |world| !world.values().is_empty()).await;
    assert!(world.statuses(&id).is_empty());
}

#[tokio::test]
async fn a_template_that_whatsapp_refuses_is_refused_with_its_code() {
    let world = World::start(|_| {}).await;
    let put = |name: &str, components: Value| json!({"name": name, "language": "en_US", "category": "UTILITY", "status": "APPROVED", "components": components});
    let note = json!([{"type": "BODY", "text": "A note: {{1}}. Thank you."}]);
    let visit = json!([{"type": "BODY", "text": "Choose."}, {"type": "BUTTONS", "buttons": [{"type": "FLOW", "text": "Choose"}]}]);
    let photo = json!([{"type": "HEADER", "format": "IMAGE"}, {"type": "BODY", "text": "Look."}]);
    for (name, components) in [("note", note), ("visit", visit), ("photo", photo)] {
        world.control("templates", put(name, components)).await;
    }
    let send = |name: &str, components: Value| {
        json!({"messaging_product": "whatsapp", "to": CONTACT, "type": "template",
            "template": {"name": name, "language": {"code": "en_US"}, "components": components}})
    };
    let body = |text: &str| json!([{"type": "body", "parameters": [{"type": "text", "text": text}]}]);
    for (request, code) in [
        (send("note", body("one\ntwo")), 132_018),
        (send("note", body("one     two")), 132_018),
        (send("note", json!([])), 132_000),
        (send("note", body(&"a".repeat(1100))), 132_005),
        (send("visit", json!([])), 131_009),
        (send("photo", json!([])), 132_012),
        (send("nothing", json!([])), 132_001),
    ] {
        let (_, answer) = world.post(&request).await;
        assert_eq!(answer["error"]["code"], code, "{request}");
    }
}

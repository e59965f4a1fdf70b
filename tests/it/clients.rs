//! Somebody else's libraries for the Cloud API read what our simulator delivers, and believe its signatures as our receiver does: a shape
//! or a signature that only we understand would show here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use cloud_api_simulator::{Config, DEFAULT_PHONE_NUMBER_IDS, spawn};
use connector_simulated::SimWorld;
use connector_tests::root;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::corpus::{platform, topics};
use crate::stranger::{checked, python_with};

const SECRET: &str = "secret of both sides";
const CONTACT: &str = "16505551234";

/// Deliveries as they came: signature and body. Each was shown to our receiver first, which took it.
#[derive(Default)]
struct Taken(Mutex<Vec<(String, Bytes)>>);

type Shared = (Arc<Taken>, Router);

async fn take(State((taken, receiver)): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let signature = headers["x-hub-signature-256"].to_str().expect("ASCII").to_owned();
    let mut request = Request::post("/webhooks").body(Body::from(body.clone())).expect("a request");
    *request.headers_mut() = headers;
    let answer = receiver.oneshot(request).await.expect("an answer");
    if answer.status().is_success() {
        taken.0.lock().expect("lock").push((signature, body));
    }
    answer.status()
}

/// What a contact may send, and what the business sends for its statuses.
async fn converse(simulator: &str) -> usize {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let media =
        json!({"id": "1", "mime_type": "image/jpeg", "sha256": "aGFzaA==", "url": "https://lookaside.example/1"});
    let messages = [
        json!({"type": "text", "text": "Zażółć \u{1f600} <&> /"}),
        json!({"type": "image", "object": media}),
        json!({"type": "location", "object": {"latitude": 52.5, "longitude": 13.4}}),
        json!({"type": "reaction", "object": {"message_id": "wamid.other", "emoji": "\u{1f44d}"}}),
        json!({"type": "button", "object": {"payload": "OPT_IN_ACCEPT", "text": "Yes"}}),
        json!({"type": "text", "text": "to all of us", "extra": {"group_id": "120363000000000000"}}),
    ];
    for message in &messages {
        let url = format!("{simulator}/simulator/contacts/{CONTACT}/messages");
        let answer = http.post(url).json(message).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.text().await.expect("a text"));
    }
    let message = json!({"messaging_product": "whatsapp", "to": CONTACT, "type": "text", "text": {"body": "Hello"},
        "biz_opaque_callback_data": "our own words"});
    let url = format!("{simulator}/v26.0/{}/messages", DEFAULT_PHONE_NUMBER_IDS[0]);
    let answer = http.post(url).bearer_auth("simulator-token").json(&message).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.text().await.expect("a text"));
    // And sent, delivered.
    messages.len() + 2
}

/// One line per delivery into the library's program, one list per delivery out.
fn read_by(mut library: Command, deliveries: &[(String, Bytes)]) -> Vec<Vec<Value>> {
    let hex = |body: &Bytes| body.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines: String = deliveries.iter().map(|(signature, body)| format!("{signature} {}\n", hex(body))).collect();
    library.arg(SECRET);
    let output = String::from_utf8(checked(library, lines.as_bytes())).expect("UTF-8");
    output.lines().map(|line| serde_json::from_str(line).expect("a list")).collect()
}

/// What we ourselves find in a delivery, in the words of those programs.
fn read_by_us(body: &Bytes) -> Vec<Value> {
    let body: Value = serde_json::from_slice(body).expect("JSON");
    let of = |item: &Value, what: &str| json!({"id": item["id"], "what": item[what]});
    let changes = body["entry"].as_array().into_iter().flatten().flat_map(|entry| entry["changes"].as_array());
    let values = changes.flatten().map(|change| &change["value"]);
    let items = values.flat_map(|value| {
        let messages = value["messages"].as_array().into_iter().flatten().map(|message| of(message, "type"));
        messages.chain(value["statuses"].as_array().into_iter().flatten().map(|status| of(status, "status")))
    });
    items.collect()
}

fn compare(name: &str, read: &[Vec<Value>], deliveries: &[(String, Bytes)], only_first: bool) {
    assert_eq!(read.len(), deliveries.len(), "{name}");
    let brief = |item: &Value| json!({"id": item["id"], "what": item["what"]});
    let mut trackers = 0;
    for (found, (_, body)) in read.iter().zip(deliveries) {
        let mut expected = read_by_us(body);
        if only_first {
            expected.truncate(1);
        }
        assert_eq!(found.iter().map(brief).collect::<Vec<_>>(), expected, "{name}");
        trackers += found.iter().filter(|item| item["tracker"] == "our own words").count();
    }
    assert!(trackers > 0, "{name} finds what we gave a message to carry in its statuses");
    let texts = read.iter().flatten().filter(|item| item["text"] == "Zażółć \u{1f600} <&> /").count();
    assert_eq!(texts, 1, "{name}");
}

/// whatsapp-api-js, installed once per target folder.
fn node() -> Command {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients-node");
    std::fs::create_dir_all(&folder).expect("a folder");
    if !folder.join("ready").exists() {
        let mut install = Command::new("npm");
        install.args(["install", "--silent", "--no-audit", "--no-fund", "whatsapp-api-js@6.3.0"]).current_dir(&folder);
        checked(install, b"");
        std::fs::write(folder.join("ready"), "").expect("a stamp");
    }
    // Beside its library: that is where Node looks for it.
    let program: PathBuf = folder.join("clients.mjs");
    std::fs::copy(root().join("tests/it/clients.mjs"), &program).expect("the program");
    let mut command = Command::new("node");
    command.arg(program);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn independent_clients_read_what_the_simulator_delivers_and_the_receiver_takes() {
    let world = SimWorld::new(1);
    topics(&world).await;
    let settings = [("WEBHOOK_LISTEN", "127.0.0.1:0"), ("WHATSAPP_APP_SECRET", SECRET)];
    let settings: std::collections::HashMap<String, String> =
        settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let config = connector_settings::load(&settings, webhook_receiver::Config::from).expect("settings");
    let receiver = webhook_receiver::Receiver::new(config, platform(&world, "one")).router();
    let taken = Arc::new(Taken::default());
    let router = Router::new().route("/webhooks", post(take)).with_state((Arc::clone(&taken), receiver));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let callback = format!("http://{}/webhooks", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = Config::default();
    config.callback_url = Some(callback);
    config.app_secret = cloud_api_simulator::Secret::new(SECRET);
    config.delivery_delay = Duration::from_millis(5);
    let simulator = spawn(config).await.expect("the simulator");
    let expected = converse(&simulator.base_url()).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let deliveries = loop {
        let deliveries = taken.0.lock().expect("lock").clone();
        if deliveries.iter().map(|(_, body)| read_by_us(body).len()).sum::<usize>() >= expected {
            break deliveries;
        }
        assert!(Instant::now() < deadline, "only {} deliveries were taken", deliveries.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };

    let mut pywa = Command::new(python_with("clients-venv", "pywa==4.5.0"));
    pywa.arg(root().join("tests/it/clients.py"));
    compare("pywa", &read_by(pywa, &deliveries), &deliveries, false);
    compare("whatsapp-api-js", &read_by(node(), &deliveries), &deliveries, true);
}

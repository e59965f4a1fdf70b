//! What the door does with requests that are wrong, hostile, repeated, or whose answer got lost.

use std::net::SocketAddr;
use std::time::Duration;

use connector_contracts::{Topic, decode};
use connector_domain::command::SendMessage;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Installation, NUMBER, a_contact, a_message, admitted, asked, linked, passed_on};

const PATIENCE: Duration = Duration::from_secs(30);

/// One request with these lines in its head; status, head and body of the answer.
async fn ask(address: SocketAddr, request: &str, headers: &str, body: &str) -> (u16, String, Value) {
    let exchange = async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: api\r\nauthorization: Bearer token-a\r\nconnection: close\r\n\
             content-length: {length}\r\n{headers}\r\n"
        );
        // Who is refused by the head need not be let finish.
        let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or(Value::Null))
}

fn a_text(text: &str) -> Value {
    json!({
        "user_id": "ann", "phone_number_id": NUMBER, "recipient": { "phone": "491701234567" },
        "content": { "type": "text", "text": text },
    })
}

#[tokio::test]
async fn every_error_is_a_problem_and_names_the_parameter_at_fault() {
    let installation = Installation::start().await;
    let address = installation.address();
    let (json, deep) = ("content-type: application/json\r\n", "[".repeat(10_000));
    let (long, wide) = ("x".repeat(9_000), format!("x-wide: {}\r\n", "y".repeat(30_000)));
    let large = format!(r#"{{"user_id":"{}"}}"#, "x".repeat(300_000));
    let twice = r#"{"user_id":"ann","user_id":"bob"}"#;
    for (request, headers, body, status, field) in [
        ("GET /v1/conversations?user_id=ann&limit=many", "", "", 422, "limit"),
        ("GET /v1/conversations?user_id=ann&limit=-1", "", "", 422, "limit"),
        ("GET /v1/conversations?user_id=ann&user_id=bob", "", "", 422, "user_id"),
        ("GET /v1/conversations", "", "", 422, "user_id"),
        ("GET /v1/users/ann/events?wait=soon", "", "", 422, "wait"),
        ("GET /v1/conversations/k1-c/events?after=x", "", "", 404, ""),
        ("GET /v1/conversations/%FF?user_id=ann", "", "", 400, ""),
        ("GET /v1/nothing", "", "", 404, ""),
        ("DELETE /v1/commands/send", "", "", 405, ""),
        ("PATCH /v1/templates", "", "", 405, ""),
        (&format!("GET /v1/templates?x={long}"), "", "", 414, ""),
        ("GET /v1/templates", &wide, "", 431, ""),
        ("POST /v1/commands/send", "content-type: text/plain\r\n", "{}", 415, ""),
        ("POST /v1/commands/send", "content-type: multipart/form-data\r\n", "{}", 415, ""),
        ("POST /v1/commands/send", json, &large, 413, ""),
        ("POST /v1/commands/send", json, twice, 400, ""),
        ("POST /v1/commands/send", json, &deep, 400, ""),
        ("POST /v1/commands/send", json, "[]", 400, ""),
        (
            "POST /v1/commands/send",
            "content-type: application/json\r\nidempotency-key: bare\r\n",
            "{}",
            422,
            "Idempotency-Key",
        ),
    ] {
        let (got, head, problem) = ask(address, request, headers, body).await;
        let request = &request[..request.len().min(60)];
        assert_eq!(got, status, "{request}: {problem}");
        assert!(head.contains("content-type: application/problem+json"), "{request}: {head}");
        assert_eq!(problem["status"], json!(status), "{request}");
        if !field.is_empty() {
            assert_eq!(problem["errors"][0]["field"], json!(field), "{request}: {problem}");
        }
    }
    let (_, head, _) = ask(address, "DELETE /v1/commands/send", "", "").await;
    assert!(head.contains("allow: post"), "{head}");
}

#[tokio::test]
async fn a_field_that_there_is_not_is_refused_by_its_name() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let mut body = a_text("hi");
    body["recipient"]["phon"] = json!("1");
    body["content"]["preview"] = json!(true);
    body["notafter"] = json!(1);
    let (status, problem) = api.post("/v1/commands/send", &body).await;
    let mut fields: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    fields.sort_by_key(Value::to_string);
    assert_eq!((status, fields), (422, vec![json!("content.preview"), json!("notafter"), json!("recipient.phon")]));
    let profile = json!({ "about": "x", "abuot": "y" });
    let (status, problem) = api.put(&format!("/v1/numbers/{NUMBER}/profile"), &profile).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("abuot")));
    // What the screen may add means nothing, and what is not carried is the log's to refuse.
    let notice = json!({
        "user_id": "ann", "phone_number_id": NUMBER, "action": "acknowledge_notice", "recipient": { "phone": "491701234567" },
    });
    assert_eq!(api.post("/v1/commands/consent", &notice).await.0, 202);
    body = a_text("");
    body["content"] = json!({ "type": "location", "latitude": 1, "longitude": 2 });
    assert_eq!(api.post("/v1/commands/send", &body).await.0, 202);
}

#[tokio::test]
async fn a_field_that_there_is_not_is_refused_by_its_name_in_lists_too() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let refused = async |content: Value| {
        let mut body = a_text("");
        body["content"] = content;
        let (status, problem) = api.post("/v1/commands/send", &body).await;
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        (status, errors.iter().map(|e| e["field"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
    };
    let call = |body: Value, buttons: Value| json!({ "type": "template", "name": "t", "language": "en", "body": body, "buttons": buttons });
    let button = json!({ "index": 0, "sub_type": "url", "text": "x" });
    assert_eq!(refused(call(json!(["a", { "name": "n", "text": "b" }]), json!([button]))).await, (202, vec![]));
    let mut more = button.clone();
    more["payload"] = json!("y");
    let strangers = call(json!(["a", { "name": "n", "text": "b", "txt": "c" }]), json!([button, more]));
    assert_eq!(
        refused(strangers).await,
        (422, vec!["content.body.1.txt".to_owned(), "content.buttons.1.payload".to_owned()])
    );
    let wrong = call(json!([1, { "name": "n" }]), json!([{ "index": "first", "sub_type": "url", "text": "x" }, 7]));
    let fields = ["content.body.0", "content.body.1.text", "content.buttons.0.index", "content.buttons.1"];
    assert_eq!(refused(wrong).await, (422, fields.map(str::to_owned).to_vec()));
    let many: Vec<_> = (0..5_000).map(|n| json!({ "text": "x", format!("f{n}"): 1 })).collect();
    assert!(refused(call(json!(many), json!([]))).await.1.len() <= 20, "not every one of thousands is named");
}

#[tokio::test]
async fn who_is_named_in_a_query_and_how_long_a_name_is_are_looked_at() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    for request in [
        "/v1/conversations/k1-c/events?user_id=%2B491701234567",
        "/v1/conversations/k1-c/messages?user_id=491701234567",
        "/v1/stream?user_id=a%20b",
        "/v1/stream?conversation=k1-c&user_id=a%2Fb",
    ] {
        let (status, problem) = api.get(request).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("user_id")), "{request}: {problem}");
    }
    let (status, problem) = api.get("/v1/numbers/a%20b").await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("phone_number_id")), "{problem}");
    let contact = |name: String| json!({ "phone": "491701234567", "name": name });
    let path = "/v1/directory/users/ann/contacts/7";
    assert_eq!(api.put(path, &contact("é".repeat(256))).await.0, 202);
    let (status, problem) = api.put(path, &contact("e".repeat(257))).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("name")), "{problem}");
    let (status, problem) =
        api.put(&format!("/v1/numbers/{NUMBER}/profile"), &json!({ "vertical": "V".repeat(65) })).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("vertical")), "{problem}");
}

#[tokio::test]
async fn what_was_not_read_yet_is_not_shown_as_not_there() {
    let installation = Installation::without_topics().await;
    let (status, head, problem) = ask(installation.address(), "GET /v1/numbers", "", "").await;
    assert_eq!(status, 503, "{problem}");
    assert!(head.contains("retry-after: "), "{head}");
    let installation = Installation::without_templates().await;
    installation.assign("a").await;
    let templates = format!("GET /v1/templates?phone_number_id={NUMBER}");
    let (status, head, problem) = ask(installation.address(), &templates, "", "").await;
    assert_eq!(status, 503, "{problem}");
    assert!(head.contains("retry-after: "), "{head}");
}

#[tokio::test]
async fn a_command_whose_answer_got_lost_is_repeated_under_its_key_and_stays_one() {
    let installation = Installation::start().await;
    let address = installation.address();
    let (key, json) = ("idempotency-key: \"order 17\"\r\n", a_text("hello").to_string());
    // The answer to the first one reaches nobody.
    let mut lost = TcpStream::connect(address).await.unwrap();
    let head = format!("authorization: Bearer token-a\r\ncontent-length: {}\r\n{key}", json.len());
    lost.write_all(format!("POST /v1/commands/send HTTP/1.1\r\nhost: x\r\n{head}\r\n{json}").as_bytes()).await.unwrap();
    installation.records(Topic::SendCommands, 1).await;
    drop(lost);
    let (status, _, first) = ask(address, "POST /v1/commands/send", key, &json).await;
    assert_eq!(status, 202, "{first}");
    let commands: Vec<SendMessage> = installation
        .records(Topic::SendCommands, 2)
        .await
        .iter()
        .map(|record| decode(record.value.as_deref().unwrap()).unwrap())
        .collect();
    assert_eq!(commands[0].command_id, commands[1].command_id);
    assert_eq!(commands[0].digest(), commands[1].digest(), "admission answers one of them");
    assert_eq!(first["command_id"], json!(commands[0].command_id));

    // Another organization's key is another one.
    let (_, other) = installation.api("token-b").post("/v1/commands/send", &a_text("hello")).await;
    assert_ne!(other["command_id"], first["command_id"]);
    // Once it is answered, the same again is fine, and another body is refused.
    installation.publish(vec![admitted("a", "k1-c", &commands[0], 1)]).await;
    let api = installation.api("token-a");
    api.until(&format!("/v1/commands/{}?wait=5s", commands[0].command_id), |seen| seen["state"] == "accepted").await;
    let (status, _, again) = ask(address, "POST /v1/commands/send", key, &json).await;
    assert_eq!((status, &again["command_id"]), (202, &first["command_id"]));
    let (status, _, problem) = ask(address, "POST /v1/commands/send", key, &a_text("bye").to_string()).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("Idempotency-Key")), "{problem}");
    let mut named = a_text("bye");
    named["command_id"] = first["command_id"].clone();
    let (status, problem) = api.post("/v1/commands/send", &named).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("command_id")), "{problem}");
    // Both at once say nothing clear.
    let (status, _, problem) = ask(address, "POST /v1/commands/send", key, &named.to_string()).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("Idempotency-Key")));
}

#[tokio::test]
async fn a_503_carries_the_id_under_which_the_command_can_be_repeated() {
    let installation = Installation::without_topics().await;
    let (status, head, problem) =
        ask(installation.address(), "POST /v1/commands/send", "", &a_text("hello").to_string()).await;
    assert_eq!(status, 503, "{problem}");
    let id = problem["command_id"].as_str().expect("an id");
    assert!(head.contains(&format!("location: /v1/commands/{id}")), "{head}");
}

#[tokio::test]
async fn a_command_whose_answer_is_late_is_pending_also_after_a_restart_and_for_nobody_else() {
    let installation = Installation::start().await;
    let (_, taken) = installation.api("token-a").post("/v1/commands/send", &a_text("hello")).await;
    let path = format!("/v1/commands/{}", taken["command_id"].as_str().unwrap());
    let (status, pending) = installation.api("token-a").get(&path).await;
    assert_eq!((status, &pending["state"]), (202, &json!("pending")));
    assert!(pending["detail"].as_str().unwrap().starts_with("accepted for processing at 20"), "{pending}");
    let installation = installation.restart().await;
    connector_testkit::wait::until("the command to be known again", PATIENCE, async || {
        (installation.api("token-a").get(&path).await.0 == 202).then_some(())
    })
    .await;
    assert_eq!(installation.api("token-b").get(&path).await.0, 404);
    let other = format!("/v1/commands/{}", crate::support::command("never sent"));
    assert_eq!(installation.api("token-a").get(&other).await.0, 404);
    let record = installation.records(Topic::SendCommands, 1).await.remove(0);
    let command: SendMessage = decode(record.value.as_deref().unwrap()).unwrap();
    installation.publish(vec![admitted("a", "k1-c", &command, 1)]).await;
    installation.api("token-a").until(&format!("{path}?wait=5s"), |seen| seen["state"] == "accepted").await;
}

#[tokio::test]
async fn what_the_reader_of_the_commands_has_behind_it_is_not_pending() {
    let installation = Installation::start().await;
    let ask = async |installation: &Installation, text: &str| {
        let (_, taken) = installation.api("token-a").post("/v1/commands/send", &a_text(text)).await;
        format!("/v1/commands/{}", taken["command_id"].as_str().unwrap())
    };
    let before = ask(&installation, "before").await;
    installation.admission_is_at_the_end().await;
    let after = ask(&installation, "after").await;
    let installation = installation.restart().await;
    // Both stand in one partition, in this order.
    connector_testkit::wait::until("the command to be known again", PATIENCE, async || {
        (installation.api("token-a").get(&after).await.0 == 202).then_some(())
    })
    .await;
    assert_eq!(installation.api("token-a").get(&before).await.0, 404);
}

#[tokio::test]
async fn a_stream_of_a_user_has_the_conversations_of_that_user_only() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let stream = a_contact(&installation, "a", "ann").await;
    api.until("/v1/users/ann/notices", |seen| seen["enabled"] == true).await;
    let before = api.get("/v1/users/ann/events").await.1["next"].as_str().unwrap().to_owned();
    installation
        .publish(vec![
            a_message("a", "k1-d", "wamid.1", "of somebody else", 10),
            linked("a", "k1-alias", &stream, 11),
            a_message("a", "k1-alias", "wamid.2", "of an alias", 12),
            a_message("a", &stream, "wamid.3", "of ann", 13),
            a_message("b", &stream, "wamid.4", "of another organization", 14),
        ])
        .await;
    api.until(&format!("/v1/conversations/{stream}/events"), |seen| {
        seen["events"].as_array().is_some_and(|all| all.len() == 3)
    })
    .await;
    let mut live = api.stream(&format!("/v1/stream?user_id=ann&after={before}")).await;
    let mut texts = Vec::new();
    for _ in 0..3 {
        texts.push(live.event().await["data"]["text"].clone());
    }
    assert_eq!(texts, [Value::Null, json!("of an alias"), json!("of ann")]);
    installation
        .publish(vec![
            a_message("a", "k1-d", "wamid.5", "of somebody else", 20),
            a_message("a", &stream, "wamid.6", "later", 21),
        ])
        .await;
    assert_eq!(live.event().await["data"]["text"], "later");
    // The user's own events come too, from the beginning.
    let mut whole = api.stream("/v1/stream?user_id=ann&after=").await;
    assert_eq!(whole.event().await["type"], "WhatsAppEnabled");
    let mut nobody = api.stream("/v1/stream?user_id=bob&after=").await;
    installation.publish(vec![a_message("a", &stream, "wamid.7", "not for bob", 30)]).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(300), nobody.event()).await.is_err(),
        "bob has no conversations"
    );
}

#[tokio::test]
async fn silent_connections_shut_nobody_out_and_half_a_request_does_not_hold_up_the_end() {
    let installation = Installation::with_connections(4).await;
    let mut silent = Vec::new();
    for n in 0..12 {
        let mut socket = TcpStream::connect(installation.address()).await.unwrap();
        if n % 2 == 0 {
            socket.write_all(b"GET /v1/templates HTTP/1.1\r\nho").await.unwrap();
        }
        silent.push(socket);
    }
    for _ in 0..8 {
        assert_eq!(installation.api("token-a").get("/v1/conversations?user_id=ann").await.0, 200);
    }
    tokio::time::timeout(Duration::from_secs(10), installation.end()).await.expect("it ends");
}

#[tokio::test]
async fn a_number_resolves_to_whoever_has_it_now_and_each_conversation_stays_its_persons() {
    let installation = Installation::start().await;
    installation.assign("a").await;
    let api = installation.api("token-a");
    let person = a_contact(&installation, "a", "ann").await;
    let who = json!({ "phone_number_id": NUMBER, "phone": "+49 170 1234567" });
    let resolved = async || api.post("/v1/conversations/resolve", &who).await.1["conversation_id"].clone();
    assert_eq!(resolved().await, json!(person));
    // Given that the number is passed on, and that the stranger who has it now writes.
    let (stranger, events) = passed_on("a", &person, 2_000);
    installation.publish(vec![a_message("a", &person, "wamid.1", "hello", 1_000)]).await;
    installation.publish(events).await;
    installation.publish(vec![a_message("a", &stranger, "wamid.2", "who is this?", 3_000)]).await;
    // When they are looked for by the number, it is the stranger; the person is found by the id.
    let read = async |id: &str, text: &str| {
        let path = format!("/v1/conversations/{id}/messages");
        let seen = api.until(&path, |seen| seen["messages"][0]["text"] == text).await;
        assert_eq!(seen["messages"].as_array().map(Vec::len), Some(1), "{seen}");
    };
    read(&stranger, "who is this?").await;
    read(&person, "hello").await;
    assert_eq!(resolved().await, json!(stranger));
    let (status, accepted) = api.post("/v1/commands/send", &a_text("hi")).await;
    assert_eq!((status, &accepted["conversation_id"]), (202, &json!(stranger)));
    let mut by_id = a_text("hi");
    by_id["recipient"] = json!({ "conversation_id": person });
    let (status, accepted) = api.post("/v1/commands/send", &by_id).await;
    assert_eq!((status, &accepted["conversation_id"]), (202, &json!(person)));
    // The user's entry is the person's; the stranger is in no list of theirs.
    let list = api.get("/v1/conversations?user_id=ann").await.1.to_string();
    assert!(list.contains(&person) && !list.contains(&stranger), "{list}");
}

/// They may have it from another conversation, or by another identity of the person than the new owner knows.
#[tokio::test]
async fn who_gets_a_number_is_not_told_how_its_former_owner_addressed_people() {
    let installation = Installation::start().await;
    let (former, next) = (installation.api("token-a"), installation.api("token-b"));
    let stream = a_contact(&installation, "a", "ann").await;
    installation.publish(vec![a_message("a", &stream, "wamid.1", "to the former owner", 1_000)]).await;
    let path = |user: &str| format!("/v1/conversations/{stream}?user_id={user}");
    let seen = former.until(&path("ann"), |seen| seen["conversation"]["address"]["phone"].is_string()).await;
    assert_eq!(seen["conversation"]["address"]["phone"], "491701234567");
    // Given that the number is assigned to another organization, whose user has the person in the contacts.
    a_contact(&installation, "b", "bob").await;
    let nothing = |seen: &Value| seen["address"]["phone"].is_null() && seen["address"]["bsuid"].is_null();
    let seen = next.until(&path("bob"), |seen| seen["conversation"]["contact"].is_object()).await;
    assert!(nothing(&seen["conversation"]), "before anything was done: {seen}");
    installation.publish(vec![asked("b", &stream, 2_000)]).await;
    let seen = next.until(&path("bob"), |seen| seen["conversation"]["consent"] == "requested").await;
    assert!(nothing(&seen["conversation"]), "after it was entered: {seen}");
    let list = next.get("/v1/conversations?user_id=bob").await.1;
    assert!(nothing(&list["conversations"][0]), "{list}");
    // When the person writes to the new owner, these know it too.
    installation.publish(vec![a_message("b", &stream, "wamid.2", "to the next one", 3_000)]).await;
    let seen = next.until(&path("bob"), |seen| seen["conversation"]["address"]["phone"].is_string()).await;
    assert_eq!(seen["conversation"]["last_message"]["text"], "to the next one");
}

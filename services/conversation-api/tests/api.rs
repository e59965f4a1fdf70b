//! The API over HTTP, on an embedded log: commands in, conversations out.

#[cfg(test)]
#[path = "doors/mod.rs"]
mod doors;
#[cfg(test)]
#[path = "order/mod.rs"]
mod order;
#[cfg(test)]
mod support;

use std::time::Duration;

use connector_contracts::{Topic, decode};
use connector_domain::command::{
    ContentKind, DirectoryKind, DirectoryRecord, NumberSettings, NumberState, SendMessage,
};
use connector_domain::identity::Address;
use connector_domain::template::{Template, TemplateButton};
use serde_json::{Value, json};
use support::{
    Installation, NUMBER, a_contact, a_message, a_template, accepted, asked, failed, reply, sent, status, the_template,
};

const CONVERSATION: &str = "/v1/conversations/k1-c";

#[tokio::test]
async fn nobody_gets_in_without_a_token_and_no_organization_sees_another_one() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let other = installation.api("token-b");
    let stream = a_contact(&installation, "a", "ann").await;
    installation.publish(vec![a_message("a", &stream, "wamid.1", "hello", 1_000)]).await;
    let path = format!("/v1/conversations/{stream}");
    api.until(&format!("{path}/messages"), |seen| seen["messages"][0]["text"] == "hello").await;

    for wrong in ["", "token-c", "a"] {
        let (status, problem) = installation.api(wrong).get("/v1/conversations?user_id=ann").await;
        assert_eq!((status, &problem["status"]), (401, &json!(401)), "{wrong}");
    }
    for path in [format!("{path}?user_id=ann"), format!("{path}/events"), format!("{path}/messages")] {
        assert_eq!(api.get(&path).await.0, 200, "{path}");
        assert_eq!(other.get(&path).await.0, 404, "{path}");
    }
    assert_eq!(other.get(&format!("/v1/stream?conversation={stream}")).await.0, 404);
    assert_eq!(other.get("/v1/conversations?user_id=ann").await.1, json!({"conversations": []}));
    let (_, own) = api.get("/v1/conversations?user_id=ann").await;
    assert_eq!(own["conversations"][0]["conversation_id"], json!(stream));
    assert_eq!(own["conversations"][0]["unread"], 1);
    // Another user of the same organization has no business there either.
    assert_eq!(api.get(&format!("{path}/messages?user_id=bob")).await.0, 404);
    let (_, seen) = api.get(&format!("{path}?user_id=bob")).await;
    assert_eq!(seen["conversation"], Value::Null);
}

#[tokio::test]
async fn a_number_belongs_to_the_organization_an_operator_assigned_it_to() {
    let installation = Installation::start().await;
    let (api, other) = (installation.api("token-a"), installation.api("token-b"));
    let number = format!("/v1/directory/numbers/{NUMBER}");
    let enabled = json!({ "phone_number_id": NUMBER });
    let (status, problem) = api.put("/v1/directory/users/ann", &enabled).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("phone_number_id")));
    let operator = installation.api("token-o");
    let (to_a, to_b) =
        (json!({ "organization_id": "a", "waba_id": "waba" }), json!({ "organization_id": "b", "waba_id": "waba" }));
    // No tenant assigns anything, whether the number is somebody's or nobody's.
    assert_eq!((api.put(&number, &to_a).await.0, api.delete(&number).await.0), (403, 403));
    assert_eq!(installation.api("nobody").put(&number, &to_a).await.0, 401);
    assert_eq!(operator.put(&number, &to_a).await.0, 202);
    assert_eq!((other.put(&number, &to_b).await.0, other.delete(&number).await.0), (403, 403));
    assert_eq!(operator.get("/v1/conversations?user_id=ann").await.0, 401, "an operator is no tenant");
    assert_eq!(api.put("/v1/directory/users/ann", &enabled).await.0, 202);
    assert_eq!(api.get(&number).await, (200, json!({ "phone_number_id": NUMBER, "waba_id": "waba" })));
    assert_eq!(other.get(&number).await.0, 404);
    assert_eq!(api.get("/v1/directory/numbers").await.1["numbers"].as_array().map(Vec::len), Some(1));
    assert_eq!(other.get("/v1/directory/numbers").await.1, json!({ "numbers": [] }));
    // It has to be given back before another organization gets it.
    assert_eq!(operator.put(&number, &to_b).await.0, 409);
    assert_eq!(other.put("/v1/directory/users/eve", &enabled).await.0, 422);
    let profile = format!("/v1/numbers/{NUMBER}/profile");
    assert_eq!((api.get(&profile).await.0, other.get(&profile).await.0), (200, 404));
    let who = json!({ "phone_number_id": NUMBER, "phone": "+49 170 1234567" });
    let (status, resolved) = api.post("/v1/conversations/resolve", &who).await;
    assert_eq!(status, 200);
    assert!(resolved["conversation_id"].as_str().is_some_and(|id| id.starts_with("k1-")), "{resolved}");
    assert_eq!(other.post("/v1/conversations/resolve", &who).await.0, 404);

    let contact = "/v1/directory/users/ann/contacts/ben";
    assert_eq!(api.put(contact, &json!({ "phone": "491701234567", "name": "Ben" })).await.0, 202);
    assert_eq!(api.delete(contact).await.0, 202);
    assert_eq!(operator.delete(&number).await.0, 202);
    assert_eq!(api.get(&number).await.0, 404);
    assert_eq!(operator.put(&number, &to_b).await.0, 202);
    assert_eq!(other.get(&number).await.0, 200);
    let records = installation.records(Topic::Directory, 6).await;
    let keys: Vec<_> =
        records.iter().map(|record| String::from_utf8_lossy(record.key.as_deref().unwrap()).into_owned()).collect();
    for key in [format!("number/{NUMBER}"), "user/a/ann".to_owned(), "contact/a/ann/ben".to_owned()] {
        assert!(keys.contains(&key), "{key} is not in {keys:?}");
    }
    let gone = records.iter().filter(|record| record.value.is_none()).count();
    assert_eq!(gone, 2, "a deletion is a tombstone");
    let first = records.iter().find_map(|record| decode::<DirectoryRecord>(record.value.as_deref()?).ok()).unwrap();
    assert_eq!(first.organization_id.as_str(), "a");
}

#[tokio::test]
async fn every_field_at_fault_is_named_and_nothing_is_written() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let body = json!({
        "command_id": "no", "phone_number_id": 7, "recipient": { "phone": "letters" }, "policy": "twice",
        "content": { "type": "template", "name": "", "body": [1] }, "not_after": "soon",
    });
    let (status, problem) = api.post("/v1/commands/send", &body).await;
    assert_eq!(status, 422);
    let fields: Vec<_> = problem["errors"].as_array().unwrap().iter().filter_map(|e| e["field"].as_str()).collect();
    for field in [
        "command_id",
        "user_id",
        "phone_number_id",
        "recipient.phone",
        "policy",
        "content.name",
        "content.language",
        "content.body.0",
        "not_after",
    ] {
        assert!(fields.contains(&field), "{field} is not in {fields:?}");
    }
    assert!(!problem.to_string().contains("letters"), "values are not repeated");
    assert_eq!(api.post_text("/v1/commands/send", "{").await.0, 400);
    let (status, problem) = api.post("/v1/commands/consent", &json!({ "action": "sing" })).await;
    assert_eq!(status, 422);
    assert!(problem.to_string().contains("request_opt_in"), "{problem}");
    assert_eq!(api.get("/v1/nothing").await.0, 404);
    assert_eq!(api.get("/v1/commands/no").await.0, 422);
}

#[tokio::test]
async fn a_command_is_in_its_topic_when_it_is_acknowledged() {
    let installation = Installation::start().await;
    installation.assign("a").await;
    let api = installation.api("token-a");
    let id = "k1-0123456789abcdef0123456789abcdef";
    let body = json!({
        "user_id": "ann", "phone_number_id": NUMBER, "recipient": { "conversation_id": id },
        "content": { "type": "sticker", "sticker": "x" }, "reply_to": "wamid.1",
    });
    let (status, answer) = api.post("/v1/commands/send", &body).await;
    assert_eq!((status, &answer["conversation_id"]), (202, &json!(id)));
    let record = installation.records(Topic::SendCommands, 1).await.remove(0);
    assert_eq!(record.key.as_deref(), Some(id.as_bytes()));
    let command: SendMessage = decode(record.value.as_deref().unwrap()).unwrap();
    assert_eq!(json!(command.command_id), answer["command_id"]);
    assert_eq!(command.organization_id.as_str(), "a", "the token decides, not the body");
    // What is not supported is refused in the log, where every reader learns of it.
    assert_eq!(command.content.kind, ContentKind::Unknown);
}

#[tokio::test]
async fn a_log_that_is_away_is_said_and_not_guessed() {
    let installation = Installation::without_topics().await;
    let body = json!({
        "user_id": "ann", "phone_number_id": NUMBER, "recipient": { "phone": "491701234567" },
        "content": { "type": "text", "text": "hi" },
    });
    let (status, problem) = installation.api("token-a").post("/v1/commands/send", &body).await;
    assert_eq!((status, &problem["status"]), (503, &json!(503)), "a topic that is missing is waited for: {problem}");
    let (user, number) = (json!({ "phone_number_id": NUMBER }), json!({ "organization_id": "a", "waba_id": "waba" }));
    let contact = json!({ "phone": "491701234567" });
    let consent = json!({
        "user_id": "ann", "phone_number_id": NUMBER, "recipient": contact, "action": "request_opt_in",
    });
    let person = json!({ "phone_number_id": NUMBER, "phone": "491701234567" });
    let preview = json!({ "phone_number_id": NUMBER, "name": "welcome", "language": "en" });
    let (ask, operate) = (installation.api("token-a"), installation.api("token-o"));
    let of_number = format!("/v1/directory/numbers/{NUMBER}");
    for (what, (status, problem)) in [
        ("consent", ask.post("/v1/commands/consent", &consent).await),
        ("assign", operate.put(&of_number, &number).await),
        ("take away", operate.delete(&of_number).await),
        ("a number", ask.get(&of_number).await),
        ("numbers", ask.get("/v1/directory/numbers").await),
        ("a user", ask.put("/v1/directory/users/ann", &user).await),
        ("no user", ask.delete("/v1/directory/users/ann").await),
        ("a contact", ask.put("/v1/directory/users/ann/contacts/ben", &contact).await),
        ("no contact", ask.delete("/v1/directory/users/ann/contacts/ben").await),
        ("resolve", ask.post("/v1/conversations/resolve", &person).await),
        ("templates", ask.get(&format!("/v1/templates?phone_number_id={NUMBER}")).await),
        ("preview", ask.post("/v1/templates/preview", &preview).await),
        ("a number's page", ask.get(&format!("/v1/numbers/{NUMBER}")).await),
        ("profile", ask.get(&format!("/v1/numbers/{NUMBER}/profile")).await),
    ] {
        assert_eq!(status, 503, "{what}: {problem}");
    }
}

#[tokio::test]
async fn a_message_only_moves_up_whatever_the_order_of_its_facts() {
    let facts = [
        accepted("a", "k1-c", "one", "hello", 1),
        sent("a", "k1-c", "one", "wamid.1", 2),
        status("a", "k1-c", "one", "wamid.1", "delivered", 3),
        status("a", "k1-c", "one", "wamid.1", "read", 4),
    ];
    for order in [[0, 1, 2, 3], [0, 3, 2, 1], [3, 0, 1, 2], [2, 1, 3, 0], [1, 3, 0, 2]] {
        let installation = Installation::start().await;
        let api = installation.api("token-a");
        installation.publish(order.iter().map(|at| facts[*at].clone()).collect()).await;
        let command = support::command("one");
        let outcome = api.until(&format!("/v1/commands/{command}?wait=5s&until=read"), |o| o["state"] == "read").await;
        assert_eq!(outcome["wamid"], "wamid.1", "{order:?}");
        let messages =
            api.until(&format!("{CONVERSATION}/messages"), |seen| seen["messages"][0]["state"] == "read").await;
        assert_eq!(messages["messages"].as_array().map(Vec::len), Some(1), "{order:?}");
    }
}

#[tokio::test]
async fn a_status_that_knows_only_the_attempt_settles_a_lost_answer() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    installation
        .publish(vec![
            accepted("a", "k1-c", "one", "hello", 1),
            support::unconfirmed("a", "k1-c", "one", 2),
            status("a", "k1-c", "one", "wamid.9", "delivered", 3),
        ])
        .await;
    let path = format!("/v1/commands/{}?wait=5s&until=delivered", support::command("one"));
    let outcome = api.until(&path, |outcome| outcome["state"] == "delivered").await;
    assert_eq!(outcome["wamid"], "wamid.9");
}

#[tokio::test]
async fn a_refusal_says_why_and_a_conflict_does_not_replace_the_first_outcome() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let rejected = |name, reason| support::rejected("a", "k1-c", name, reason);
    installation
        .publish(vec![
            rejected("two", "window_closed"),
            accepted("a", "k1-c", "one", "hello", 1),
            rejected("one", "conflict"),
            accepted("a", "k1-c", "three", "bye", 2),
            failed("a", "k1-c", "three", "opted_out", 3),
        ])
        .await;
    let outcome = async |name: &str| api.get(&format!("/v1/commands/{}?wait=5s", support::command(name))).await.1;
    let two = outcome("two").await;
    assert_eq!((&two["state"], &two["reason"]), (&json!("rejected"), &json!("window_closed")));
    assert!(two["remedy"].is_string());
    let path = format!("/v1/commands/{}?wait=5s&until=sent", support::command("three"));
    let three = api.until(&path, |three| three["state"] == "failed").await;
    assert_eq!(three["reason"], "opted_out");
    assert_eq!(outcome("one").await["state"], "accepted");
    let stranger = installation.api("token-b");
    assert_eq!(stranger.get(&format!("/v1/commands/{}", support::command("one"))).await.0, 404);
}

#[tokio::test]
async fn who_gets_a_number_sees_every_no_and_nothing_that_was_allowed_before() {
    let installation = Installation::start().await;
    let (ann, bob) = (installation.api("token-a"), installation.api("token-b"));
    let stream = a_contact(&installation, "a", "ann").await;
    let of_ann = format!("/v1/conversations/{stream}?user_id=ann");
    let of_bob = format!("/v1/conversations/{stream}?user_id=bob");
    let now = installation.now();
    installation.publish(vec![asked("a", &stream, now - 1), reply("a", &stream, "wamid.1", "accept", now)]).await;
    ann.until(&of_ann, |seen| seen["composer"]["state"] == "free_form").await;
    // The number is theirs now, and nothing has happened yet.
    a_contact(&installation, "b", "bob").await;
    bob.until(&of_bob, |seen| seen["composer"]["state"] == "opt_in_required").await;
    installation.publish(vec![a_message("b", &stream, "wamid.2", "hi", now + 1)]).await;
    bob.until(&of_bob, |seen| seen["composer"]["state"] == "free_form").await;
    ann.until(&of_ann, |seen| seen["composer"]["state"] == "opt_in_required").await;
    installation.publish(vec![reply("b", &stream, "wamid.3", "stop", now + 2)]).await;
    bob.until(&of_bob, |seen| seen["composer"]["state"] == "opted_out").await;
    // And it comes back.
    installation.publish(vec![a_message("a", &stream, "wamid.4", "hello", now + 3)]).await;
    ann.until(&of_ann, |seen| seen["composer"]["state"] == "opted_out").await;
    let messages = ann.get(&format!("/v1/conversations/{stream}/messages?user_id=ann")).await.1.to_string();
    assert!(messages.contains("wamid.4") && !messages.contains("wamid.2"), "{messages}");
}

#[tokio::test]
async fn the_composer_follows_the_log() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let stream = a_contact(&installation, "a", "ann").await;
    let path = format!("/v1/conversations/{stream}?user_id=ann");
    let required = api.until(&path, |seen| seen["composer"]["state"] == "opt_in_required").await;
    assert_eq!(required["conversation"]["contact"]["name"], "Ben");
    let notices = api.get("/v1/users/ann/notices").await.1;
    assert_eq!(notices["notices"][0]["kind"], "activation");
    let now = installation.now();
    installation.publish(vec![reply("a", &stream, "wamid.1", "accept", now)]).await;
    let seen = api.until(&path, |seen| seen["composer"]["state"] == "free_form").await;
    assert!(seen["composer"]["until"].as_i64() > Some(now), "{seen}");
    installation.publish(vec![reply("a", &stream, "wamid.2", "stop", now + 1)]).await;
    api.until(&path, |seen| seen["composer"]["state"] == "opted_out").await;
    let events = api.get("/v1/users/ann/events").await.1;
    let types: Vec<_> = events["events"].as_array().unwrap().iter().map(|e| e["type"].clone()).collect();
    assert_eq!(types, ["WhatsAppEnabled", "ActivationNoticeRaised", "ContactAdded"]);
}

#[tokio::test]
async fn a_call_is_shown_as_something_unsupported_and_opens_the_window_of_who_accepted() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let stream = a_contact(&installation, "a", "ann").await;
    let path = format!("/v1/conversations/{stream}?user_id=ann");
    let now = installation.now();
    installation.publish(vec![support::a_call("a", &stream, "wacid.1", now)]).await;
    let seen = api.until(&path, |seen| seen["conversation"]["unread"] == 1).await;
    assert_eq!(seen["composer"]["state"], "opt_in_required", "a call is no consent");
    let messages = api.get(&format!("/v1/conversations/{stream}/messages")).await.1;
    let [shown] = messages["messages"].as_array().unwrap().as_slice() else { panic!("{messages}") };
    assert_eq!((&shown["type"], &shown["direction"]), (&json!("call"), &json!("inbound")));
    assert!(shown["unsupported"] == true && shown["text"].is_null() && shown["wamid"].is_null(), "{shown}");
    // A contact who accepted two days ago.
    let before = now - 48 * 3_600_000;
    let consented = vec![asked("a", &stream, before), reply("a", &stream, "wamid.1", "accept", before)];
    installation.publish(consented).await;
    let seen = api.until(&path, |seen| seen["composer"]["state"] == "free_form").await;
    assert!(seen["composer"]["until"].as_i64() > Some(now), "{seen}");
}

#[tokio::test]
async fn a_linked_conversation_shows_the_history_of_both() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    installation
        .publish(vec![
            a_message("a", "k1-alias", "wamid.1", "first", 1),
            a_message("a", "k1-c", "wamid.2", "second", 2),
            support::linked("a", "k1-alias", "k1-c", 3),
            a_message("a", "k1-c", "wamid.3", "third", 4),
        ])
        .await;
    for path in ["/v1/conversations/k1-alias/messages", "/v1/conversations/k1-c/messages"] {
        let seen = api.until(path, |seen| seen["messages"].as_array().is_some_and(|all| all.len() == 3)).await;
        let texts: Vec<_> = seen["messages"].as_array().unwrap().iter().map(|m| m["text"].clone()).collect();
        assert_eq!(texts, ["first", "second", "third"]);
    }
    // Page by page it is the same history, each event once.
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let (_, page) = api.get(&format!("{CONVERSATION}/events?limit=1&after={after}")).await;
        let Some(event) = page["events"].as_array().and_then(|events| events.first()).cloned() else { break };
        seen.push(event["recorded_at"].as_i64().unwrap());
        after = page["next"].as_str().unwrap().to_owned();
    }
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_waiting_request_is_answered_by_the_event_it_waits_for() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    installation.publish(vec![a_message("a", "k1-c", "wamid.1", "one", 1)]).await;
    let first = api
        .until(&format!("{CONVERSATION}/events"), |seen| seen["events"].as_array().is_some_and(|e| e.len() == 1))
        .await;
    let next = first["next"].as_str().unwrap();
    let waiting = format!("{CONVERSATION}/events?wait=20s&after={next}");
    let asked = api.get(&waiting);
    let later = installation.publish(vec![a_message("a", "k1-c", "wamid.2", "two", 2)]);
    let ((_, page), ()) =
        tokio::time::timeout(Duration::from_secs(15), async { tokio::join!(asked, later) }).await.unwrap();
    assert_eq!(page["events"][0]["data"]["text"], "two");
    let (_, nothing) =
        api.get(&format!("{CONVERSATION}/events?wait=20ms&after={}", page["next"].as_str().unwrap())).await;
    assert_eq!(nothing["events"], json!([]));
}

#[tokio::test]
async fn the_stream_goes_on_where_the_client_was() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    installation
        .publish(vec![a_message("a", "k1-c", "wamid.1", "one", 1), a_message("b", "k1-d", "wamid.2", "no", 2)])
        .await;
    let first = api.until(&format!("{CONVERSATION}/events"), |seen| seen["next"] != "").await;
    let mut live = api.stream(&format!("/v1/stream?after={}", first["next"].as_str().unwrap())).await;
    installation
        .publish(vec![a_message("b", "k1-d", "wamid.3", "no", 3), a_message("a", "k1-c", "wamid.4", "two", 4)])
        .await;
    let event = live.event().await;
    assert_eq!(event["data"]["text"], "two", "only the own organization's");
    let mut again = api.stream(&format!("/v1/stream?conversation=k1-c&after={}", "")).await;
    assert_eq!(again.event().await["data"]["text"], "one");
    assert_eq!(again.event().await["event_id"], event["event_id"]);
}

#[tokio::test]
async fn templates_are_listed_and_previewed() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    installation.assign("a").await;
    installation.append(vec![a_template("a", "waba"), a_template("b", "other")]).await;
    let path = format!("/v1/templates?phone_number_id={NUMBER}");
    let list = api.until(&path, |list| list["templates"].as_array().is_some_and(|all| !all.is_empty())).await;
    assert_eq!(list["templates"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["templates"][0]["placeholders"]["body"], json!(["1", "2"]));
    let mut call = the_template();
    call["phone_number_id"] = json!(NUMBER);
    let (_, preview) = api.post("/v1/templates/preview", &call).await;
    assert_eq!((&preview["text"], &preview["sendable"]), (&json!("Hello Ben, until Monday."), &json!(true)));
    call["body"] = json!(["Ben"]);
    let (_, preview) = api.post("/v1/templates/preview", &call).await;
    assert_eq!((&preview["sendable"], &preview["refusal"]["reason"]), (&json!(false), &json!("template_parameters")));
    call["body"] = json!(["Ben", "Monday\nat nine"]);
    let (_, preview) = api.post("/v1/templates/preview", &call).await;
    assert_eq!(
        (&preview["sendable"], &preview["refusal"]["field"]),
        (&json!(false), &json!("content.template.body")),
        "WhatsApp refuses line breaks in values"
    );
}

#[tokio::test]
async fn a_template_that_cannot_be_filled_is_listed_and_previewed_with_the_reason() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    installation.assign("a").await;
    let flow = TemplateButton { kind: "FLOW".to_owned(), text: "Choose".to_owned(), url: None };
    let mut picture = a_template("a", "waba");
    picture.header_format = Some("IMAGE".to_owned());
    let visit = Template { name: "visit".to_owned(), buttons: vec![flow], ..a_template("a", "waba") };
    installation.append(vec![picture, visit]).await;
    let path = format!("/v1/templates?phone_number_id={NUMBER}");
    let list = api.until(&path, |list| list["templates"].as_array().is_some_and(|all| all.len() == 2)).await;
    for (at, why) in [(0, "media_header"), (1, "flow_button")] {
        let shown = &list["templates"][at];
        assert_eq!(shown["sendable"], false, "{shown}");
        assert_eq!(shown["refusal"]["reason"], "template_not_sendable");
        assert_eq!(shown["refusal"]["why"], why);
    }
    let mut call = the_template();
    call["phone_number_id"] = json!(NUMBER);
    let (_, preview) = api.post("/v1/templates/preview", &call).await;
    assert_eq!((&preview["sendable"], &preview["refusal"]["why"]), (&json!(false), &json!("media_header")));
}

#[tokio::test]
async fn a_number_is_shown_with_what_is_set_for_it_and_what_whatsapp_reports() {
    let installation = Installation::start().await;
    let settings = NumberSettings { number_rate: Some(20), ..NumberSettings::default() };
    let general = NumberSettings { number_rate: Some(10), opt_in_limit: Some(2), ..NumberSettings::default() };
    let state = NumberState {
        messaging_limit: Some("TIER_2K".to_owned()),
        throughput: Some("STANDARD".to_owned()),
        ..NumberState::default()
    };
    let record = |kind, settings, state| DirectoryRecord {
        kind,
        organization_id: "a".into(),
        phone_number_id: Some(NUMBER.into()),
        waba_id: Some("waba".into()),
        user_id: None,
        enabled: false,
        contact_id: None,
        address: Address::default(),
        name: None,
        settings,
        state,
    };
    installation
        .register(vec![
            record(DirectoryKind::Number, Some(settings), None),
            record(DirectoryKind::Organization, Some(general), None),
            record(DirectoryKind::NumberState, None, Some(state)),
        ])
        .await;
    let api = installation.api("token-a");
    let list = api.until("/v1/numbers", |list| !list["numbers"][0]["whatsapp"]["throughput"].is_null()).await;
    let number = api.until(&format!("/v1/numbers/{NUMBER}"), |shown| shown["settings"]["opt_in_limit"] == 2).await;
    assert_eq!(list["numbers"].as_array().map(Vec::len), Some(1));
    assert_eq!(number["settings"]["number_rate"], 20);
    assert_eq!(
        (&number["whatsapp"]["contacts_per_day"], &number["whatsapp"]["messages_per_second"]),
        (&json!(2000), &json!(80))
    );
    // Who assigns it again changes nothing of that.
    let again = json!({ "organization_id": "a", "waba_id": "moved" });
    let assigned = installation.api("token-o").put(&format!("/v1/directory/numbers/{NUMBER}"), &again).await;
    assert_eq!(assigned.0, 202);
    assert_eq!(api.get(&format!("/v1/directory/numbers/{NUMBER}")).await.1["waba_id"], "moved");
    assert_eq!(api.get(&format!("/v1/numbers/{NUMBER}")).await.1["settings"]["number_rate"], 20);
    let other = installation.api("token-b");
    assert_eq!(other.get("/v1/numbers").await.1, json!({ "numbers": [] }));
    assert_eq!(other.get(&format!("/v1/numbers/{NUMBER}")).await.0, 404);
}

#[tokio::test]
async fn a_reopened_read_model_goes_on_and_repeats_nothing() {
    let installation = Installation::start().await;
    installation.publish(vec![a_message("a", "k1-c", "wamid.1", "one", 1)]).await;
    let api = installation.api("token-a");
    api.until(&format!("{CONVERSATION}/messages"), |seen| seen["messages"][0]["text"] == "one").await;
    let installation = installation.restart().await;
    installation.publish(vec![a_message("a", "k1-c", "wamid.2", "two", 2)]).await;
    let api = installation.api("token-a");
    let path = format!("{CONVERSATION}/events");
    let seen = api.until(&path, |seen| seen["events"].as_array().is_some_and(|events| events.len() > 1)).await;
    assert_eq!(seen["events"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn two_who_assign_one_number_at_once_do_not_both_have_it() {
    let installation = Installation::start().await;
    let number = format!("/v1/directory/numbers/{NUMBER}");
    let assign = async |organization: &str| {
        let body = json!({ "organization_id": organization, "waba_id": "waba" });
        installation.api("token-o").put(&number, &body).await.0
    };
    let (one, other) = tokio::join!(assign("a"), assign("b"));
    let has = async |token: &str| installation.api(token).get(&number).await.0 == 200;
    let owners = (has("token-a").await, has("token-b").await);
    match (one, other) {
        (202, 409) => assert_eq!(owners, (true, false)),
        (409, 202) => assert_eq!(owners, (false, true)),
        other => panic!("one wins and the other is told: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_opaque_id_is_refused_with_its_name_and_becomes_no_key() {
    let installation = Installation::start().await;
    installation.assign("a").await;
    let api = installation.api("token-a");
    let phone = "+491701234567";
    let content = json!({ "type": "text", "text": "hi" });
    let command = |change: &dyn Fn(&mut Value)| {
        let mut body = json!({
            "user_id": "ann", "phone_number_id": NUMBER, "recipient": { "phone": phone }, "content": content,
        });
        change(&mut body);
        body
    };
    let bodies: [(&str, Value); 6] = [
        ("recipient.bsuid", command(&|body| body["recipient"] = json!({ "bsuid": "491701234567" }))),
        (
            "recipient.conversation_id",
            command(&|body| body["recipient"] = json!({ "conversation_id": "491701234567" })),
        ),
        ("user_id", command(&|body| body["user_id"] = json!(phone))),
        ("phone_number_id", command(&|body| body["phone_number_id"] = json!("a/b"))),
        ("reply_to", command(&|body| body["reply_to"] = json!(phone))),
        ("not_after", command(&|body| body["not_after"] = json!(installation.now() + 7 * 24 * 3_600_000))),
    ];
    for (field, body) in &bodies {
        let (status, problem) = api.post("/v1/commands/send", body).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!(field)), "{problem}");
        assert!(!problem.to_string().contains("4917"), "{problem}");
    }
    for (path, field) in [
        ("/v1/directory/users/%2B491701234567/contacts/ben", "user"),
        ("/v1/directory/users/ann/contacts/491701234567", "contact"),
    ] {
        let (status, problem) = api.put(path, &json!({ "phone": phone })).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!(field)), "{problem}");
    }
    // A phone number as a user id would be another conversation with the same person, in which nobody has said no.
    for bsuid in ["491701234567", phone, "0170 1234567"] {
        let body = json!({ "bsuid": bsuid });
        let (status, problem) = api.put("/v1/directory/users/ann/contacts/ben", &body).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("bsuid")), "{problem}");
        let body = json!({ "bsuid": bsuid, "phone_number_id": NUMBER });
        let (status, problem) = api.post("/v1/conversations/resolve", &body).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("bsuid")), "{problem}");
    }
    for (path, field) in [
        ("/v1/conversations/491701234567?user_id=ann", "conversation_id"),
        ("/v1/conversations/491701234567/events", "conversation_id"),
        ("/v1/conversations/491701234567/messages", "conversation_id"),
        ("/v1/conversations?user_id=491701234567", "user_id"),
        ("/v1/users/491701234567/notices", "user"),
        ("/v1/numbers/a%20b/profile", "phone_number_id"),
        ("/v1/stream?conversation=491701234567", "conversation"),
    ] {
        let (status, problem) = api.get(path).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!(field)), "{path}: {problem}");
    }
    let written = installation.records(Topic::Directory, 1).await;
    assert_eq!(written.len(), 1, "the number alone");
}

#[tokio::test]
async fn nothing_is_said_about_the_conversations_of_a_number_that_is_not_ones_own() {
    let installation = Installation::start().await;
    installation.assign("a").await;
    let body = |number: &str| {
        json!({
            "user_id": "ann", "phone_number_id": number, "recipient": { "phone": "491701234567" },
            "content": { "type": "text", "text": "hi" },
        })
    };
    let (status, own) = installation.api("token-a").post("/v1/commands/send", &body(NUMBER)).await;
    assert_eq!(status, 202);
    assert!(own["conversation_id"].is_string(), "{own}");
    let other = installation.api("token-b");
    for number in [NUMBER, "404"] {
        let (status, accepted) = other.post("/v1/commands/send", &body(number)).await;
        assert_eq!((status, &accepted["conversation_id"]), (202, &Value::Null));
        let mut revoke = body(number);
        revoke["action"] = json!("revoke");
        revoke.as_object_mut().unwrap().remove("content");
        let (status, accepted) = other.post("/v1/commands/consent", &revoke).await;
        assert_eq!((status, &accepted["conversation_id"]), (202, &Value::Null));
    }
}

#[tokio::test]
async fn organizations_that_share_an_account_see_its_templates() {
    let installation = Installation::start().await;
    installation.assign("a").await;
    let second = json!({ "organization_id": "b", "waba_id": "waba" });
    assert_eq!(installation.api("token-o").put("/v1/directory/numbers/200", &second).await.0, 202);
    installation.append(vec![a_template("a", "waba")]).await;
    for (token, number) in [("token-a", NUMBER), ("token-b", "200")] {
        let path = format!("/v1/templates?phone_number_id={number}");
        let has = |answer: &Value| answer["templates"].as_array().is_some_and(|found| found.len() == 1);
        installation.api(token).until(&path, has).await;
        let asked =
            json!({ "phone_number_id": number, "name": "reminder", "language": "en_US", "body": ["Ben", "Monday"] });
        assert_eq!(installation.api(token).post("/v1/templates/preview", &asked).await.0, 200);
    }
    assert_eq!(installation.api("token-b").get(&format!("/v1/templates?phone_number_id={NUMBER}")).await.0, 404);
}

/// A repeated event is shown, and counted, once; one in the wrong partition, or bytes that are none, not at all.
#[tokio::test]
async fn an_event_that_stands_twice_is_shown_once_and_one_in_the_wrong_partition_is_not() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let stream = a_contact(&installation, "a", "ann").await;
    let message = a_message("a", &stream, "wamid.1", "hello", 1_000);
    installation.publish(vec![message.clone(), message.clone()]).await;
    installation.publish_elsewhere(a_message("a", &stream, "wamid.2", "elsewhere", 1_500)).await;
    installation.publish(vec![message, a_message("a", &stream, "wamid.3", "last", 2_000)]).await;
    let path = format!("/v1/conversations/{stream}");
    let seen = api.until(&format!("{path}/messages"), |seen| seen["messages"][1]["text"] == "last").await;
    assert_eq!(seen["messages"].as_array().map(Vec::len), Some(2), "{seen}");
    let (_, own) = api.get("/v1/conversations?user_id=ann").await;
    assert_eq!(own["conversations"][0]["unread"], 2);
    let (_, events) = api.get(&format!("{path}/events")).await;
    let received =
        events["events"].as_array().expect("events").iter().filter(|event| event["type"] == "MessageReceived");
    assert_eq!(received.count(), 2, "{events}");
}

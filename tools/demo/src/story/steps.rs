//! The eight steps of the story.

use reqwest::Method;
use serde_json::{Value, json};

use super::Tell;
use super::world::{Broken, World, ensure};

pub(super) async fn step(number: usize, world: &mut World, tell: Tell<'_>) -> Result<(), Broken> {
    match number {
        1 => enabled(world, tell).await,
        2 => opt_in_requested(world, tell).await,
        3 => both_write(world, tell).await,
        4 => a_picture(world, tell).await,
        5 => silence(world, tell).await,
        6 => a_template(world, tell).await,
        7 => stop(world, tell).await,
        _ => read_back(world, tell).await,
    }
}

fn is(event: &Value, name: &str) -> bool {
    event["type"] == name
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

async fn notice(world: &World) -> Result<Value, Broken> {
    world.get(&format!("/v1/users/{}/notices", world.user)).await
}

async fn enabled(world: &mut World, tell: Tell<'_>) -> Result<(), Broken> {
    tell("1. The organization enables WhatsApp for Anna and puts Ben into her contacts.");
    let number = world.cast.phone_number_id.clone();
    world.assign_number().await?;
    let user = format!("/v1/directory/users/{}", world.user);
    world.write(Method::PUT, &user, &json!({ "phone_number_id": number, "enabled": true })).await?;

    let shown =
        async || Ok(Some(notice(world).await?).filter(|n| n["notices"].as_array().is_some_and(|n| !n.is_empty())));
    world.until("the activation notice", shown).await?;
    tell("   Anna sees the notice that WhatsApp has been activated, and dismisses it.");
    world.consent("acknowledge_notice").await?;
    let gone = async || Ok(notice(world).await?["notices"].as_array().is_some_and(Vec::is_empty).then_some(()));
    world.until("the notice to go", gone).await?;

    let contact = json!({ "phone": world.cast.contact_phone, "name": "Ben" });
    world.write(Method::PUT, &format!("{user}/contacts/ben"), &contact).await?;
    let who = json!({ "phone_number_id": number, "phone": world.cast.contact_phone });
    let resolved = world.write(Method::POST, "/v1/conversations/resolve", &who).await?;
    world.conversation = resolved["conversation_id"].as_str().unwrap_or_default().to_owned();
    ensure(!world.conversation.is_empty(), || "the contact has no conversation id".to_owned())
}

async fn opt_in_requested(world: &mut World, tell: Tell<'_>) -> Result<(), Broken> {
    tell("2. Anna opens Ben and writes. The connector answers that an opt-in is needed; nothing leaves.");
    world.composer("opt_in_required").await?;
    let refused = world.send(text("Good morning, Ben")).await?;
    let outcome = world.outcome(&refused, "accepted").await?;
    ensure(outcome["reason"] == "opt_in_required", || format!("the first message ended as {outcome}"))?;
    ensure(world.posts().await?.1 == 0, || "something left before the opt-in".to_owned())?;

    tell("   Anna confirms. Ben's phone shows the opt-in message and the business profile behind it.");
    let shown = async || {
        let screen = world.screen().await?;
        let message = screen["messages"].as_array().and_then(|messages| messages.first().cloned());
        Ok(message.map(|message| (screen["sender"].clone(), message)))
    };
    let approved = async || {
        let list = world.get(&format!("/v1/templates?phone_number_id={}", world.cast.phone_number_id)).await?;
        Ok(list["templates"].as_array().is_some_and(|list| !list.is_empty()).then_some(()))
    };
    world.until("the approved templates", approved).await?;
    world.consent("request_opt_in").await?;
    let (sender, message) = world.until("the opt-in message on Ben's phone", shown).await?;
    ensure(message["template"]["name"] == "opt_in_request", || format!("Ben's phone shows {message}"))?;
    ensure(sender["verified"] == true, || format!("the sender is not verified: {sender}"))?;
    let name = sender["name"].as_str().unwrap_or_default().to_owned();
    tell(&format!("   Behind it stands {name}, with the verified mark."));
    world.composer("opt_in_pending").await?;
    Ok(())
}

async fn both_write(world: &mut World, tell: Tell<'_>) -> Result<(), Broken> {
    tell("3. Ben taps the button that accepts. The window opens, typing is on.");
    world.contact_sends(json!({ "type": "button", "payload": "OPT_IN_ACCEPT" })).await?;
    world.composer("free_form").await?;
    world.event("WindowOpened", |event| is(event, "WindowOpened")).await?;
    world.event("OptInAccepted", |event| is(event, "OptInAccepted")).await?;

    tell("   Both write. Anna's ticks go from sent to delivered to read.");
    let hello = world.send(text("Hello Ben, thank you")).await?;
    world.outcome(&hello, "sent").await?;
    world.outcome(&hello, "delivered").await?;
    world.contact_sends(json!({ "type": "text", "text": "Hello Anna" })).await?;
    world.simulate(Method::POST, &format!("/contacts/{}/read", world.cast.contact_phone), None).await?;
    let outcome = world.outcome(&hello, "read").await?;
    ensure(outcome["state"] == "read", || format!("the message ended as {outcome}"))
}

async fn a_picture(world: &mut World, tell: Tell<'_>) -> Result<(), Broken> {
    tell("4. Ben sends a picture. Anna sees that something unsupported arrived; the window is renewed.");
    let before = world.composer("free_form").await?["until"].as_i64().unwrap_or_default();
    // WhatsApp's clock counts whole seconds: in the same one nothing would be renewed.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let wamid = world.contact_sends(json!({ "type": "image", "text": "look" })).await?;
    let event = world.event("the picture", |event| event["data"]["wamid"] == json!(wamid)).await?;
    let data = &event["data"];
    ensure(data["unsupported"] == true && data["message_type"] == "image", || format!("it was recorded as {data}"))?;
    ensure(data["raw"].as_str().is_some_and(|raw| raw.contains("sha256")), || "the raw item is lost".to_owned())?;
    let renewed = async || {
        let until = world.composer("free_form").await?["until"].as_i64().unwrap_or_default();
        Ok((until > before).then_some(()))
    };
    world.until("the window to be renewed", renewed).await
}

async fn silence(world: &mut World, tell: Tell<'_>) -> Result<(), Broken> {
    let until = world.composer("free_form").await?["until"].as_i64().unwrap_or_default();
    tell("5. Nobody writes until the window ends. The screen turns typing off by itself and points to templates.");
    let expired = |event: &Value| is(event, "WindowExpired") && event["data"]["deadline"].as_i64() >= Some(until);
    let event = world.event("WindowExpired", expired).await?;
    let deadline = event["data"]["deadline"].as_i64().unwrap_or_default();
    let late = event["recorded_at"].as_i64().unwrap_or_default() - deadline;
    ensure(late >= 0, || format!("the window expired {} ms too early", -late))?;
    tell(&format!("   The event is in the log {late} ms after the deadline."));
    let composer = world.composer("template_only").await?;
    ensure(composer["reason"] == "window_expired", || format!("the composer says {composer}"))?;
    let refused = world.send(text("Are you there?")).await?;
    let outcome = world.outcome(&refused, "accepted").await?;
    ensure(outcome["reason"] == "window_closed", || format!("a text after the deadline ended as {outcome}"))
}

async fn a_template(world: &mut World, tell: Tell<'_>) -> Result<(), Broken> {
    tell("6. Anna picks a template, previews it and sends it. Typing stays off.");
    let call = json!({ "name": "appointment_reminder", "language": "en_US", "body": ["Ben", "Monday at ten"] });
    let mut preview = call.clone();
    preview["phone_number_id"] = json!(world.cast.phone_number_id);
    let preview = world.write(Method::POST, "/v1/templates/preview", &preview).await?;
    ensure(preview["sendable"] == true, || format!("the preview says {preview}"))?;
    let shown = preview["text"].as_str().unwrap_or_default().to_owned();
    tell(&format!("   The preview reads: {}", shown.replace('\n', " ")));
    let mut content = call;
    content["type"] = json!("template");
    let reminder = world.send(content).await?;
    let outcome = world.outcome(&reminder, "delivered").await?;
    ensure(outcome["state"] == "delivered", || format!("the template ended as {outcome}"))?;
    world.composer("template_only").await?;

    tell("   Ben replies. Typing is on again.");
    world.contact_sends(json!({ "type": "text", "text": "I will be there" })).await?;
    world.composer("free_form").await?;
    Ok(())
}

async fn stop(world: &mut World, tell: Tell<'_>) -> Result<(), Broken> {
    tell("7. WhatsApp slows Anna down, so two messages are still queued when Ben writes STOP. Neither leaves.");
    let (accepted, seen) = world.posts().await?;
    let slow = json!({ "fault": "error", "code": 131_056, "wa_id": world.cast.contact_phone });
    world.simulate(Method::POST, "/faults", Some(&slow)).await?;
    let first = world.send(text("One more thing")).await?;
    let second = world.send(text("And another")).await?;
    for command in [&first, &second] {
        let outcome = world.outcome(command, "accepted").await?;
        ensure(outcome["state"] != "rejected", || format!("a message inside the window ended as {outcome}"))?;
    }
    world.until("WhatsApp to refuse the pace", async || Ok((world.posts().await?.1 > seen).then_some(()))).await?;
    world.contact_sends(json!({ "type": "text", "text": "STOP" })).await?;
    world.composer("opted_out").await?;
    world.simulate(Method::DELETE, "/faults", None).await?;
    for command in [&first, &second] {
        let outcome = world.outcome(command, "sent").await?;
        ensure(outcome["state"] == "failed" && outcome["reason"] == "opted_out", || {
            format!("a message that was queued at the STOP ended as {outcome}")
        })?;
    }
    ensure(world.posts().await?.0 == accepted, || "a message left after the STOP".to_owned())?;
    world.event("OptedOut", |event| is(event, "OptedOut")).await?;
    Ok(())
}

/// What the conversation's log must hold, in this order, whatever stands between.
const CHAPTERS: &[&str] = &[
    "MessageRejected",
    "OptInRequested",
    "MessageAccepted",
    "MessageReceived",
    "MessageAccepted",
    "MessageReceived",
    "MessageReceived",
    "WindowExpired",
    "MessageRejected",
    "MessageAccepted",
    "MessageReceived",
    "MessageAccepted",
    "MessageAccepted",
    "MessageReceived",
    "MessageFailed",
    "MessageFailed",
];

async fn read_back(world: &mut World, tell: Tell<'_>) -> Result<(), Broken> {
    tell("8. Everything is read back from the log, in order.");
    let events = world.events().await?;
    let mut chapters = CHAPTERS.iter().peekable();
    for event in &events {
        chapters.next_if(|chapter| is(event, chapter));
    }
    ensure(chapters.peek().is_none(), || {
        let types: Vec<_> = events.iter().filter_map(|event| event["type"].as_str()).collect();
        format!("{} is missing or out of order in {types:?}", chapters.peek().unwrap_or(&&""))
    })?;
    let mut ids: Vec<_> = events.iter().filter_map(|event| event["event_id"].as_str()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    ensure(ids.len() == all, || "an event stands in the log twice".to_owned())?;
    // R3: who was killed in the middle may have left an answer unread, but never two outcomes and never none.
    for accepted in events.iter().filter(|event| is(event, "MessageAccepted")) {
        let ends = ["MessageSent", "MessageFailed", "MessageUnconfirmed"];
        let same = |event: &&Value| event["command_id"] == accepted["command_id"];
        let outcomes = events.iter().filter(same).filter(|event| ends.iter().any(|end| is(event, end))).count();
        ensure(outcomes == 1, || format!("an accepted message has {outcomes} outcomes"))?;
    }
    let closing = events.iter().filter(|event| is(event, "WindowExpired")).count();
    ensure(closing == 1, || format!("the one window expired {closing} times"))?;
    ensure(notice(world).await?["notices"].as_array().is_some_and(Vec::is_empty), || {
        "the activation notice came back".to_owned()
    })?;
    tell(&format!("   {all} events, each once; conversation {}.", world.conversation));
    Ok(())
}

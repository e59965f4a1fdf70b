//! What items become, and that each becomes it once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use connector_contracts::headers::dlq;
use connector_contracts::{Topic, decode, decode_event};
use connector_domain::command::{WebhookItem, WebhookKind};
use connector_domain::consent::Intent;
use connector_domain::conversation::Conversation;
use connector_domain::event::{Event, Recorded, TimeSource};
use connector_domain::identity::Address;
use connector_domain::ids::{Bsuid, PhoneNumber, StreamId, Text};
use connector_domain::time::Timestamp;
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Step};
use connector_runtime::lanes::Work;
use connector_runtime::table::Table;
use connector_simulated::{Fault, Noise, Plan, SimWorld, When};
use connector_whatsapp::webhook::{Split, split};
use inbound_processor::{Config, InboundHandler};
use tokio_util::sync::CancellationToken;

use crate::world::{
    ACCOUNT, NUMBER, dead_letters, deliver, delivery, files, items, keys, known, log, number, number_of, of_items,
    platform, process, put, scene, text,
};

const PHONE: &str = r#""from":"15550100042""#;
const BOTH: &str = r#""from":"15550100042","from_user_id":"US.77""#;

fn by_phone(phone: &str) -> StreamId {
    keys().by_phone(&NUMBER.into(), &PhoneNumber::parse(phone).unwrap())
}

fn by_bsuid(bsuid: &str) -> StreamId {
    keys().by_bsuid(&NUMBER.into(), &Bsuid(bsuid.to_owned()))
}

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/whatsapp/tests/fixtures/webhooks"));
    let read = |path: std::path::PathBuf| {
        (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
    };
    files(folder).into_iter().map(read).collect()
}

/// Samples share message ids among different people, which WhatsApp never does.
fn make_unique(split: &mut Split, at: usize) {
    if split.item.kind == WebhookKind::Change {
        return;
    }
    let mut raw: serde_json::Value = serde_json::from_str(split.item.raw.expose()).unwrap();
    if let Some(id) = raw["id"].as_str().map(str::to_owned) {
        raw["id"] = format!("{id}.{at}").into();
        split.item.raw = Text(raw.to_string());
    }
}

/// Delivers each item `times` times and checks that every one ended once: in one event, or in a dead letter per delivery.
async fn each_item_ends_once(deliveries: Vec<Vec<Split>>, times: usize) -> BTreeMap<&'static str, usize> {
    let world = scene(SimWorld::new(7)).await;
    let mut all: Vec<Split> = deliveries.into_iter().flatten().collect();
    for (at, split) in all.iter_mut().enumerate() {
        make_unique(split, at);
    }
    let mut accounts = BTreeSet::new();
    for split in &all {
        let of_number = split.item.phone_number_id.as_ref().map_or("no-number", |n| n.as_str()).to_owned();
        accounts.insert((of_number, split.item.waba_id.0.clone()));
    }
    for (of_number, account) in accounts {
        number(&world, &of_number, &account).await;
    }
    for _ in 0..times {
        deliver(&world, &all).await;
    }
    process(&world).await.unwrap();

    let mut ended: BTreeMap<String, usize> = BTreeMap::new();
    let mut calls = BTreeSet::new();
    let log = log(&world);
    let mut types = BTreeMap::new();
    for event in of_items(&log) {
        *types.entry(event.event.type_name()).or_default() += 1;
        let raw = match &event.event {
            Event::MessageReceived(e) => &e.raw,
            Event::MessageStatusChanged(e) => &e.raw,
            Event::AccountNotice(e) => &e.raw,
            Event::MarketingPreferenceChanged(e) => &e.raw,
            // All that is told of a call is one event, which does not keep the item.
            Event::CallReceived(e) => {
                assert!(calls.insert(e.call_id.0.clone()), "twice: {:?}", e.call_id);
                continue;
            }
            other => panic!("{other:?} is written by somebody else"),
        };
        ended.entry(raw.expose().to_owned()).or_default();
    }
    let mut ids = BTreeMap::new();
    for event in &log {
        let about = (event.event.type_name(), &event.envelope.cause_id, &event.envelope.stream_id);
        let before = ids.insert(event.envelope.event_id, about);
        assert_eq!(before, None, "an event stands in the log twice: {about:?}");
    }
    for letter in dead_letters(&world) {
        let item: WebhookItem = decode(letter.value.as_deref().unwrap()).unwrap();
        *ended.entry(item.raw.expose().to_owned()).or_default() += 1;
    }
    for split in &all {
        let letters = ended.get(split.item.raw.expose());
        if split.item.field == "calls" && letters.is_none() {
            let raw: serde_json::Value = serde_json::from_str(split.item.raw.expose()).unwrap();
            assert!(raw["id"].as_str().is_some_and(|id| calls.contains(id)), "a lost call");
            continue;
        }
        assert!(letters.is_some_and(|letters| letters % times == 0), "lost or torn: {:?}", split.item.field);
    }
    types
}

#[tokio::test(start_paused = true)]
async fn every_documented_shape_is_recorded_once_though_it_comes_four_times() {
    let deliveries = fixtures().iter().filter_map(|(_, body)| split(body, Timestamp(1), "d").ok()).collect();
    let types = each_item_ends_once(deliveries, 4).await;
    for expected in
        ["AccountNotice", "CallReceived", "MarketingPreferenceChanged", "MessageReceived", "MessageStatusChanged"]
    {
        assert!(types.contains_key(expected), "{types:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_item_of_the_corpus_ends_in_an_event_or_a_dead_letter() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/payloads"));
    // The corpus is not part of the repository.
    let read = files(folder).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let deliveries: Vec<_> =
        read.filter_map(|path| split(&std::fs::read(path).unwrap(), Timestamp(1), "d").ok()).collect();
    if !deliveries.is_empty() {
        each_item_ends_once(deliveries, 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_opens_the_window_by_whatsapps_clock_and_a_stop_is_recognised() {
    let world = scene(SimWorld::new(1)).await;
    let stop =
        format!(r#"{{{PHONE},"id":"wamid.S","timestamp":"1790000001","type":"text","text":{{"body":"Stop!"}}}}"#);
    let image = format!(r#"{{{PHONE},"id":"wamid.I","timestamp":1790000002,"type":"image","image":{{"id":"1"}}}}"#);
    deliver(&world, &text("T", PHONE)).await;
    deliver(&world, &delivery("messages", &stop)).await;
    deliver(&world, &delivery("messages", &image)).await;
    process(&world).await.unwrap();

    let log = log(&world);
    let messages: Vec<_> = log
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::MessageReceived(message) => Some((&recorded.envelope, message)),
            _ => None,
        })
        .collect();
    let (envelope, first) = messages[0];
    assert_eq!(envelope.cause_id, format!("{NUMBER}/wamid.T"));
    assert_eq!(envelope.stream_id, by_phone("15550100042"));
    assert_eq!(
        (envelope.occurred_at, envelope.time_source),
        (Timestamp::from_secs(1_790_000_000), TimeSource::Whatsapp)
    );
    assert_eq!(first.window_deadline, Some(Timestamp::from_secs(1_790_000_000 + 24 * 3600)));
    assert_eq!(messages[1].1.intent, connector_domain::consent::Intent::Stop);
    // Content that is not carried counts as a reply all the same (P5).
    assert!(messages[2].1.unsupported && messages[2].1.text.is_none() && messages[2].1.window_deadline.is_some());
    assert_eq!(messages.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn statuses_are_told_apart_by_their_word_and_a_nameless_one_is_kept_with_the_number() {
    let world = scene(SimWorld::new(1)).await;
    let status = |word: &str, who: &str| {
        delivery("statuses", &format!(r#"{{"id":"wamid.O","status":"{word}","timestamp":"1790000003"{who}}}"#))
    };
    let to = r#","recipient_id":"15550100042""#;
    for (word, who) in
        [("sent", to), ("sent", to), ("delivered", to), ("teleported", to), ("beamed", to), ("failed", "")]
    {
        deliver(&world, &status(word, who)).await;
    }
    process(&world).await.unwrap();
    let log = log(&world);
    let streams: Vec<_> = log.iter().map(|recorded| recorded.envelope.stream_id.clone()).collect();
    let number = keys().number(&NUMBER.into());
    assert_eq!(streams.iter().filter(|stream| **stream == by_phone("15550100042")).count(), 4);
    assert_eq!(streams.iter().filter(|stream| **stream == number).count(), 1);
    assert_eq!(log.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_understood_goes_to_the_dead_letters_with_its_reason() {
    let world = scene(SimWorld::new(1)).await;
    let mut unknown = text("U", PHONE);
    unknown[0].item.phone_number_id = Some("999".into());
    deliver(&world, &unknown).await;
    deliver(&world, &delivery("messages", r#"{"from":"15550100042","type":"text"}"#)).await;
    put(&world, Topic::Webhooks, "k".to_owned(), b"garbage".as_slice().into()).await;
    process(&world).await.unwrap();
    let letters = dead_letters(&world);
    let reasons: BTreeSet<_> = letters.iter().map(|letter| letter.header(dlq::REASON).unwrap().clone()).collect();
    assert_eq!(reasons, ["unknown_number", "no_id", "not_framed"].map(bytes::Bytes::from).into());
    assert!(letters.iter().any(|letter| letter.value.as_deref() == Some(b"garbage".as_slice())), "bytes are untouched");
    assert!(log(&world).is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_a_wipe_of_the_gate_and_a_replay_of_the_topic_nothing_is_recorded_again() {
    let world = scene(SimWorld::new(3)).await;
    let all: Vec<_> = ["A", "B", "C"].iter().flat_map(|id| text(id, BOTH)).collect();
    deliver(&world, &all).await;
    process(&world).await.unwrap();
    let before = log(&world).len();
    world.restart();
    world.calm_gate().wipe();
    deliver(&world, &all).await;
    process(&world).await.unwrap();
    assert_eq!(log(&world).len(), before);
}

#[tokio::test(start_paused = true)]
async fn a_new_contact_with_two_identities_is_one_conversation_and_the_other_one_is_linked_once() {
    let world = scene(SimWorld::new(1)).await;
    for id in ["A", "B", "A"] {
        deliver(&world, &text(id, BOTH)).await;
    }
    process(&world).await.unwrap();
    world.restart();
    deliver(&world, &text("C", BOTH)).await;
    process(&world).await.unwrap();
    let (phone, bsuid) = (by_phone("15550100042"), by_bsuid("US.77"));
    let log = log(&world);
    let find = |name: &str| {
        log.iter().filter(|e| e.event.type_name() == name).map(|e| e.envelope.stream_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(find("MessageReceived"), vec![phone.clone(); 3]);
    assert_eq!(find("IdentityLearned"), [phone]);
    assert_eq!(find("ConversationLinked"), [bsuid]);
}

/// A contact known by a user id only, who now writes with a phone number that lies in another partition.
async fn known_by_bsuid(world: SimWorld) -> (SimWorld, StreamId, StreamId) {
    let world = scene(world).await;
    let canonical = (0..).map(|n| format!("US.{n}")).find(|id| {
        let partition =
            |stream: &StreamId| connector_runtime::situation::partition_of(stream, crate::world::PARTITIONS);
        partition(&by_bsuid(id)) != partition(&by_phone("15550100042"))
    });
    let id = canonical.unwrap();
    let canonical = by_bsuid(&id);
    let address = Address { phone: None, bsuid: Some(Bsuid(id.clone())) };
    let conversation = Conversation { phone_number_id: Some(NUMBER.into()), address, ..Conversation::default() };
    known(&world, &canonical, &conversation).await;
    let who = format!(r#""from":"15550100042","from_user_id":"{id}""#);
    for name in ["A", "B", "A", "B"] {
        deliver(&world, &text(name, &who)).await;
    }
    (world, by_phone("15550100042"), canonical)
}

fn check_known_by_bsuid(world: &SimWorld, phone: &StreamId, canonical: &StreamId) {
    let told: Vec<_> =
        log(world).into_iter().map(|e| (e.event.type_name(), e.envelope.stream_id, e.envelope.cause_id)).collect();
    let mut expected = vec![
        ("ConversationLinked", phone.clone(), format!("{phone}/{canonical}")),
        ("IdentityLearned", canonical.clone(), format!("{phone}/{canonical}")),
        ("MessageReceived", canonical.clone(), format!("{NUMBER}/wamid.A")),
        ("MessageReceived", canonical.clone(), format!("{NUMBER}/wamid.B")),
    ];
    let order: Vec<_> = told.iter().filter(|(name, ..)| *name == "MessageReceived").map(|(.., id)| id).collect();
    assert!(order.is_sorted(), "the order of the contact is lost: {order:?}");
    let mut sorted = told.clone();
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected);
}

#[tokio::test(start_paused = true)]
async fn the_conversation_known_first_continues_in_its_own_partition() {
    let (world, phone, canonical) = known_by_bsuid(SimWorld::new(1)).await;
    process(&world).await.unwrap();
    check_known_by_bsuid(&world, &phone, &canonical);
}

#[tokio::test(start_paused = true)]
async fn a_changed_number_continues_the_same_conversation() {
    let world = scene(SimWorld::new(1)).await;
    let (old, new) = (by_phone("15550100042"), by_phone("15550100099"));
    let system = format!(
        r#"{{{PHONE},"id":"wamid.N","timestamp":"1790000000","type":"system",
        "system":{{"type":"user_changed_number","wa_id":"15550100099","body":"x"}}}}"#
    );
    deliver(&world, &delivery("messages", &system)).await;
    process(&world).await.unwrap();
    let log = log(&world);
    let learned = log.iter().find_map(|e| match &e.event {
        Event::IdentityLearned(learned) => Some((e.envelope.stream_id.clone(), learned.clone())),
        _ => None,
    });
    let (stream, learned) = learned.unwrap();
    assert_eq!((stream, learned.alias), (old.clone(), new.clone()));
    assert_eq!(learned.address.phone, PhoneNumber::parse("15550100099").ok());
    let linked = log.iter().find(|e| matches!(&e.event, Event::ConversationLinked(to) if to.canonical == old));
    assert_eq!(linked.unwrap().envelope.stream_id, new);
    let message = log.iter().find_map(|e| match &e.event {
        Event::MessageReceived(message) => Some(message),
        _ => None,
    });
    assert_eq!(message.unwrap().window_deadline, None);
}

#[tokio::test(start_paused = true)]
async fn account_webhooks_without_a_number_are_kept_once_by_account() {
    let world = scene(SimWorld::new(1)).await;
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{ACCOUNT}","changes":[
        {{"field":"account_update","value":{{"event":"DISABLED_UPDATE"}}}}]}}]}}"#
    );
    for _ in 0..4 {
        deliver(&world, &items(body.as_bytes())).await;
    }
    process(&world).await.unwrap();
    let log = log(&world);
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].envelope.stream_id, keys().number(&ACCOUNT.into()));
}

#[tokio::test(start_paused = true)]
async fn an_account_webhook_without_a_number_goes_to_every_organization_of_the_account_and_to_no_other() {
    let world = scene(SimWorld::new(1)).await;
    // Two organizations share the account, one of them with two numbers; a third has another account.
    for (organization, number, account) in
        [("globex", "2", ACCOUNT), ("globex", "3", ACCOUNT), ("initech", "4", "100000000000009")]
    {
        number_of(&world, organization, number, account).await;
    }
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{ACCOUNT}","changes":[
        {{"field":"account_update","value":{{"event":"DISABLED_UPDATE"}}}}]}}]}}"#
    );
    for _ in 0..2 {
        deliver(&world, &items(body.as_bytes())).await;
    }
    process(&world).await.unwrap();
    let log = log(&world);
    let told: Vec<_> = log.iter().map(|recorded| recorded.envelope.organization_id.as_str()).collect();
    assert_eq!(told, ["acme", "globex"]);
    assert_ne!(log[0].envelope.event_id, log[1].envelope.event_id, "each has an event of its own");
    assert!(log.iter().all(|recorded| matches!(recorded.event, Event::AccountNotice(_))));
    assert!(dead_letters(&world).is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_same_account_webhook_of_another_moment_is_another_one() {
    let world = scene(SimWorld::new(1)).await;
    for time in [1_790_000_000, 1_790_000_000, 1_789_996_400] {
        let body = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{ACCOUNT}","time":{time},"changes":[
            {{"field":"account_update","value":{{"event":"ACCOUNT_VIOLATION"}}}}]}}]}}"#
        );
        deliver(&world, &items(body.as_bytes())).await;
    }
    process(&world).await.unwrap();
    let when: Vec<_> = log(&world).iter().map(|event| event.envelope.occurred_at).collect();
    assert_eq!(when, [1_790_000_000, 1_789_996_400].map(Timestamp::from_secs));
    assert!(log(&world).iter().all(|event| event.envelope.time_source == TimeSource::Whatsapp));
}

#[tokio::test(start_paused = true)]
async fn half_an_emoji_costs_neither_the_stop_nor_the_identity() {
    let world = scene(SimWorld::new(1)).await;
    let body = format!(
        r#"{{"entry":[{{"id":"{ACCOUNT}","changes":[{{"field":"messages","value":{{"metadata":{{"phone_number_id":"{NUMBER}"}},
        "contacts":[{{"profile":{{"name":"M\ud83d"}},"wa_id":"15550100042","user_id":"US.7"}}],
        "messages":[{{{PHONE},"id":"wamid.H","timestamp":"1790000000","type":"text","text":{{"body":"STOP \ud83d"}}}}]}}}}]}}]}}"#
    );
    deliver(&world, &items(body.as_bytes())).await;
    process(&world).await.unwrap();
    assert!(dead_letters(&world).is_empty());
    let log = log(&world);
    let Event::MessageReceived(message) = &of_items(&log)[0].event else { panic!("{log:?}") };
    assert_eq!(message.text.as_ref().unwrap().expose(), "STOP \u{fffd}");
    assert_eq!(message.intent, Intent::Stop);
    assert!(message.window_deadline.is_some() && message.raw.expose().contains(r"STOP \ud83d"));
    let learned = |event: &Recorded| matches!(&event.event, Event::IdentityLearned(l) if l.alias == by_bsuid("US.7"));
    assert!(log.iter().any(learned));
}

#[tokio::test(start_paused = true)]
async fn what_is_written_while_another_one_answers_is_recorded_beside_its_copy_and_opens_no_window() {
    let world = scene(SimWorld::new(1)).await;
    let stop = format!(r#"{{{PHONE},"id":"wamid.B","timestamp":"1790000000","type":"text","text":{{"body":"STOP"}}}}"#);
    let standby = format!(
        r#"{{"entry":[{{"id":"{ACCOUNT}","changes":[{{"field":"standby","value":{{"metadata":{{"phone_number_id":"{NUMBER}"}},
        "standby":{{"messages":[{stop}]}}}}}}]}}]}}"#
    );
    for _ in 0..2 {
        deliver(&world, &items(standby.as_bytes())).await;
        deliver(&world, &delivery("messages", &stop)).await;
    }
    process(&world).await.unwrap();
    assert!(dead_letters(&world).is_empty());
    let log = log(&world);
    let received: Vec<_> = of_items(&log)
        .into_iter()
        .map(|recorded| match &recorded.event {
            Event::MessageReceived(m) => (recorded.envelope.stream_id.clone(), m.intent, m.window_deadline.is_some()),
            other => panic!("{other:?}"),
        })
        .collect();
    let person = by_phone("15550100042");
    assert_eq!(received, [(person.clone(), Intent::Stop, false), (person, Intent::Stop, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_new_user_id_and_a_new_number_at_once_continue_the_same_conversation() {
    let old = by_bsuid("US.111");
    for (who, kind, new) in [
        ("", r#""type":"user_changed_user_id""#, vec![by_bsuid("US.222")]),
        (r#""from_user_id":"US.222","#, r#""type":"user_changed_user_id""#, vec![by_bsuid("US.222")]),
        (
            "",
            r#""type":"user_changed_number","wa_id":"15550100099""#,
            vec![by_phone("15550100099"), by_bsuid("US.222")],
        ),
    ] {
        let world = scene(SimWorld::new(1)).await;
        let system = format!(
            r#"{{{who}"id":"wamid.N","timestamp":"1790000000","type":"system",
            "system":{{{kind},"body":"x","previous_user_id":"US.111","user_id":"US.222"}}}}"#
        );
        deliver(&world, &delivery("messages", &system)).await;
        deliver(&world, &delivery("messages", &system)).await;
        process(&world).await.unwrap();
        assert!(dead_letters(&world).is_empty(), "{who} {kind}");
        let log = log(&world);
        assert!(of_items(&log).iter().all(|event| event.envelope.stream_id == old), "{who} {kind}");
        let mut linked: Vec<_> = log
            .iter()
            .filter(|e| matches!(&e.event, Event::ConversationLinked(to) if to.canonical == old))
            .map(|e| e.envelope.stream_id.clone())
            .collect();
        linked.sort();
        let mut new = new;
        new.sort();
        assert_eq!(linked, new, "{who} {kind}");
        let ids: BTreeSet<_> = log.iter().map(|event| event.envelope.event_id).collect();
        assert_eq!(ids.len(), log.len(), "every event has an id of its own");
    }
}

#[tokio::test(start_paused = true)]
async fn a_moment_to_come_is_taken_as_the_arrival() {
    let world = scene(SimWorld::new(1)).await;
    let message = |id: &str, at: &str| {
        let rest = r#""type":"text","text":{"body":"STOP"}"#;
        delivery("messages", &format!(r#"{{{PHONE},"id":"wamid.{id}","timestamp":{at},{rest}}}"#))
    };
    for (id, at) in [("A", r#""99999999999""#), ("B", "1e999"), ("C", r#""1790000001""#)] {
        deliver(&world, &message(id, at)).await;
    }
    process(&world).await.unwrap();
    let when: Vec<_> = log(&world).iter().map(|event| event.envelope.occurred_at).collect();
    assert_eq!(when, [1_790_000_005, 1_790_000_005, 1_790_000_001].map(Timestamp::from_secs));
}

#[tokio::test(start_paused = true)]
async fn an_item_as_large_as_a_delivery_may_be_is_recorded_or_kept_with_the_dead_letters() {
    let world = scene(SimWorld::new(1)).await;
    let message = |id: &str, field: &str, size: usize| {
        let long = "x".repeat(size);
        delivery(
            "messages",
            &format!(
                r#"{{{PHONE},"id":"wamid.{id}","timestamp":"1790000000","type":"text","text":{{"{field}":"{long}"}}}}"#
            ),
        )
    };
    // Without a text that stands in the event a second time, and with one.
    deliver(&world, &message("A", "novel", 3_000_000)).await;
    deliver(&world, &message("B", "body", 3_000_000)).await;
    deliver(&world, &text("C", PHONE)).await;
    process(&world).await.unwrap();
    assert_eq!(log(&world).len(), 2);
    let letters = dead_letters(&world);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].header(dlq::REASON).unwrap(), "too_large");
}

#[tokio::test(start_paused = true)]
async fn a_status_of_somebody_elses_message_is_recorded_and_joins_the_person_whatever_form_the_number_has() {
    let world = scene(SimWorld::new(1)).await;
    let status = r#"{"id":"wamid.Z","status":"read","timestamp":"1790000000","recipient_id":"553187654321"}"#;
    deliver(&world, &delivery("statuses", status)).await;
    deliver(&world, &text("A", r#""from":"5531987654321""#)).await;
    process(&world).await.unwrap();
    let log = log(&world);
    assert_eq!(log.len(), 2);
    assert_eq!(log[0].envelope.stream_id, log[1].envelope.stream_id);
    let attempt = log.iter().find_map(|event| match &event.event {
        Event::MessageStatusChanged(status) => Some(status.attempt_id),
        _ => None,
    });
    assert_eq!(attempt, Some(None));
}

#[tokio::test(start_paused = true)]
async fn a_crash_or_failure_at_any_port_call_loses_nothing_and_doubles_nothing() {
    let (world, phone, canonical) = known_by_bsuid(SimWorld::new(11)).await;
    let calm = process(&world).await.unwrap();
    check_known_by_bsuid(&world, &phone, &canonical);
    for point in 0..calm.points {
        for fault in [
            Fault::Crash(When::Before),
            Fault::Crash(When::After),
            Fault::Fail(When::Before),
            Fault::Fail(When::After),
            Fault::Rebalance,
        ] {
            let (world, phone, canonical) = known_by_bsuid(SimWorld::new(11).with(Plan::one(point, fault))).await;
            let run = process(&world).await;
            assert!(run.is_ok(), "{fault:?} at {point} ({:?}): {run:?}", world.trace().get(point as usize));
            check_known_by_bsuid(&world, &phone, &canonical);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn under_noise_every_item_is_still_recorded_once() {
    let noise = Noise { crash_before: 5, crash_after: 5, fail_before: 20, fail_after: 20, rebalance: 10, wipe_gate: 5 };
    for seed in 0..20 {
        let world = scene(SimWorld::new(seed).with(Plan::noisy(noise))).await;
        let all: Vec<_> =
            (0..30).flat_map(|n| text(&n.to_string(), &format!(r#""from":"1555010{:04}""#, n % 7))).collect();
        for _ in 0..4 {
            deliver(&world, &all).await;
        }
        let run = process(&world).await;
        assert!(run.is_ok(), "seed {seed}: {run:?}");
        assert_eq!(log(&world).len(), 30, "seed {seed}");
    }
}

/// The number goes to another organization, and its contact writes before the table of numbers has read that.
#[tokio::test(start_paused = true)]
async fn what_comes_in_belongs_to_who_has_the_number_now() {
    let world = scene(SimWorld::new(7)).await;
    let platform = platform(&world, "one");
    let numbers = Table::new(platform.log.clone(), platform.clock.clone(), platform.topic(Topic::Directory), |_| true);
    let mut handler = InboundHandler::new(&platform, Config::default(), numbers.clone());
    deliver(&world, &text("1", PHONE)).await;
    let record = world.history(&platform.topic(Topic::Webhooks)).remove(0);
    handler.assigned(&record.source, None).await.unwrap();
    let work = [Work { record, replay: false, round: 0 }];
    let owner = |steps: Vec<Step<()>>| {
        let Step::Done(appends) = &steps[0] else { panic!("it is recorded") };
        decode_event(appends[0].value.as_deref().unwrap()).unwrap().envelope.organization_id
    };
    let following = tokio::spawn(numbers.clone().follow(CancellationToken::new()));
    assert_eq!(owner(handler.handle(&work).await.unwrap()), "acme".into());
    // The table stands still while its topic goes on.
    following.abort();
    number_of(&world, "globex", NUMBER, ACCOUNT).await;
    assert!(matches!(handler.handle(&work).await, Err(Failure::Later(_))));
    let following = tokio::spawn(numbers.clone().follow(CancellationToken::new()));
    assert_eq!(owner(handler.handle(&work).await.unwrap()), "globex".into());
    following.abort();
}

//! Calls: each is one event, whatever is told of it and however often, and only those that a person makes.

use connector_contracts::Topic;
use connector_domain::conversation::Conversation;
use connector_domain::event::{CallReceived, Envelope, Event, TimeSource};
use connector_domain::identity::Address;
use connector_domain::ids::{Bsuid, PhoneNumber, StreamId};
use connector_domain::time::Timestamp;
use connector_runtime::situation::partition_of;
use connector_simulated::SimWorld;
use connector_whatsapp::webhook::Split;

use crate::world::{
    ACCOUNT, NUMBER, PARTITIONS, dead_letters, deliver, items, keys, known, log, of_items, process, scene, text, topic,
};

const PHONE: &str = r#""from":"15550100042""#;
const BY_PERSON: &str = r#""direction":"USER_INITIATED""#;

fn by_phone() -> StreamId {
    keys().by_phone(&NUMBER.into(), &PhoneNumber::parse("15550100042").unwrap())
}

fn by_bsuid(bsuid: &str) -> StreamId {
    keys().by_bsuid(&NUMBER.into(), &Bsuid(bsuid.to_owned()))
}

fn value(parts: &str) -> Vec<Split> {
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{ACCOUNT}","changes":[{{"field":"calls","value":{{
        "messaging_product":"whatsapp","metadata":{{"phone_number_id":"{NUMBER}"}},{parts}}}}}]}}]}}"#
    );
    items(body.as_bytes())
}

fn connect(id: &str, who: &str) -> Vec<Split> {
    value(&format!(
        r#""calls":[{{{who},{BY_PERSON},"id":"wacid.{id}","event":"connect","timestamp":"1790000000",
        "session":{{"sdp_type":"offer","sdp":"c=IN IP4 203.0.113.7"}}}}]"#
    ))
}

fn terminate(id: &str, who: &str) -> Vec<Split> {
    value(&format!(
        r#""calls":[{{{who},{BY_PERSON},"id":"wacid.{id}","event":"terminate","timestamp":"1790000003",
        "start_time":"1790000002","status":"COMPLETED","duration":1}}]"#
    ))
}

fn calls(world: &SimWorld) -> Vec<(Envelope, CallReceived)> {
    let call = |recorded: connector_domain::event::Recorded| match recorded.event {
        Event::CallReceived(call) => Some((recorded.envelope, call)),
        _ => None,
    };
    log(world).into_iter().filter_map(call).collect()
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_told_of_eight_times_is_one_event_by_whatsapps_clock() {
    let world = scene(SimWorld::new(1)).await;
    for _ in 0..4 {
        deliver(&world, &connect("A", PHONE)).await;
        deliver(&world, &terminate("A", PHONE)).await;
    }
    process(&world).await.unwrap();
    let calls = calls(&world);
    let [(envelope, call)] = calls.as_slice() else { panic!("{} calls", calls.len()) };
    assert_eq!((&envelope.stream_id, &envelope.cause_id), (&by_phone(), &format!("{NUMBER}/wacid.A")));
    let began = Timestamp::from_secs(1_790_000_000);
    assert_eq!((envelope.occurred_at, envelope.time_source), (began, TimeSource::Whatsapp));
    assert_eq!(call.window_deadline, Timestamp::from_secs(1_790_000_000 + 24 * 3600));
    assert_eq!((call.call_id.as_str(), call.phone_number_id.as_str()), ("wacid.A", NUMBER));
    assert_eq!(of_items(&log(&world)).len(), 1, "and nothing else");
    for record in world.history(&topic(Topic::ConversationEvents).into()) {
        let bytes = record.value.unwrap();
        assert!(!bytes.windows(11).any(|part| part == b"203.0.113.7"), "the caller's network is nobody's business");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_end_is_told_first_is_one_event_too() {
    let world = scene(SimWorld::new(2)).await;
    for told in [terminate("A", PHONE), connect("A", PHONE), terminate("A", PHONE), connect("B", PHONE)] {
        deliver(&world, &told).await;
        process(&world).await.unwrap();
    }
    let calls: Vec<_> = calls(&world).into_iter().map(|(e, c)| (c.call_id.0, e.occurred_at)).collect();
    let at = |second: i64| Timestamp::from_secs(1_790_000_000 + second);
    assert_eq!(calls, [("wacid.A".to_owned(), at(2)), ("wacid.B".to_owned(), at(0))]);
}

#[tokio::test(start_paused = true)]
async fn what_the_business_does_and_what_becomes_of_it_opens_nothing() {
    let world = scene(SimWorld::new(3)).await;
    let by_business = value(
        r#""calls":[{"from":"15550100001","to":"15550100042","direction":"BUSINESS_INITIATED","id":"wacid.O",
        "event":"connect","timestamp":"1790000000"}]"#,
    );
    let ringing = value(r#""statuses":[{"id":"wacid.O","type":"call","status":"RINGING","timestamp":"1790000001"}]"#);
    let undirected =
        value(r#""calls":[{"from":"15550100042","id":"wacid.P","event":"connect","timestamp":"1790000000"}]"#);
    for _ in 0..2 {
        for told in [&by_business, &ringing, &undirected] {
            deliver(&world, told).await;
        }
    }
    process(&world).await.unwrap();
    let log = log(&world);
    let number = keys().number(&NUMBER.into());
    let kept = log.iter().filter(|recorded| match &recorded.event {
        Event::AccountNotice(notice) => notice.field == "calls" && recorded.envelope.stream_id == number,
        _ => false,
    });
    assert_eq!((kept.count(), log.len()), (3, 3), "kept, each once");
    assert!(dead_letters(&world).is_empty());
}

/// A user id whose stream lies in another partition than the one of the phone number.
fn apart() -> String {
    let apart = |id: &String| partition_of(&by_bsuid(id), PARTITIONS) != partition_of(&by_phone(), PARTITIONS);
    (0..).map(|n| format!("US.{n}")).find(apart).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_call_stands_where_the_messages_of_the_caller_stand() {
    let world = scene(SimWorld::new(4)).await;
    let id = apart();
    let address = Address { phone: None, bsuid: Some(Bsuid(id.clone())) };
    let conversation = Conversation { phone_number_id: Some(NUMBER.into()), address, ..Conversation::default() };
    known(&world, &by_bsuid(&id), &conversation).await;
    let both = format!(r#"{PHONE},"from_user_id":"{id}""#);
    for told in [connect("A", &both), text("T", &both), terminate("A", &both)] {
        deliver(&world, &told).await;
    }
    process(&world).await.unwrap();
    let log = log(&world);
    let of_person = of_items(&log).into_iter().map(|e| (e.event.type_name(), e.envelope.stream_id.clone()));
    let home = by_bsuid(&id);
    assert_eq!(of_person.collect::<Vec<_>>(), [("CallReceived", home.clone()), ("MessageReceived", home)]);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_stranger_under_two_identities_is_one_event() {
    let world = scene(SimWorld::new(5)).await;
    deliver(&world, &connect("A", PHONE)).await;
    process(&world).await.unwrap();
    deliver(&world, &terminate("A", &format!(r#""from_user_id":"{}""#, apart()))).await;
    process(&world).await.unwrap();
    assert_eq!(calls(&world).len(), 1);
}

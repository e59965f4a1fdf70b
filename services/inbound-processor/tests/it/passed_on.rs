//! A number that WhatsApp gives to somebody else: what one person writes is never recorded as another's.

use std::collections::BTreeMap;

use connector_domain::consent::Intent;
use connector_domain::conversation::{Conversation, root};
use connector_domain::event::{Event, Recorded};
use connector_domain::ids::{Bsuid, PhoneNumber, StreamId};
use connector_domain::time::Timestamp;
use connector_simulated::{Noise, Plan, SimWorld};
use connector_whatsapp::webhook::Split;
use inbound_processor::Config;

use crate::world::{
    NUMBER, dead_letters, deliver, delivery, keys, known, log, of_items, process, process_with_many, scene,
};

/// The three numbers of the stories.
const N1: &str = "15550100042";
const N2: &str = "15550100099";
const N3: &str = "15550100077";

/// The first second of the stories. The receiver's clock stands at five seconds behind it.
const START: i64 = 1_789_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(START + second)
}

fn by_phone(phone: &str) -> StreamId {
    keys().by_phone(&NUMBER.into(), &PhoneNumber::parse(phone).expect("a number"))
}

fn by_bsuid(bsuid: &str) -> StreamId {
    keys().by_bsuid(&NUMBER.into(), &Bsuid(bsuid.to_owned()))
}

/// The conversation with who has a number after its person left it in this second.
fn after(phone: &str, second: i64) -> StreamId {
    keys().successor(&by_phone(phone), at(second + 1))
}

fn sender(phone: &str, bsuid: &str) -> String {
    let from = if phone.is_empty() { String::new() } else { format!(r#""from":"{phone}","#) };
    let id = if bsuid.is_empty() { String::new() } else { format!(r#""from_user_id":"{bsuid}","#) };
    format!("{from}{id}")
}

fn text(id: &str, (phone, bsuid): (&str, &str), second: i64, body: &str) -> Vec<Split> {
    let (who, time) = (sender(phone, bsuid), START + second);
    let message =
        format!(r#"{{{who}"id":"wamid.{id}","timestamp":"{time}","type":"text","text":{{"body":"{body}"}}}}"#);
    delivery("messages", &message)
}

/// WhatsApp says that the person of one number has another one, or none that it shows.
fn moved(id: &str, from: &str, to: &str, second: i64) -> Vec<Split> {
    let wa_id = if to.is_empty() { String::new() } else { format!(r#","wa_id":"{to}""#) };
    system(id, &sender(from, ""), &format!(r#""type":"user_changed_number"{wa_id}"#), second)
}

fn system(id: &str, who: &str, what: &str, second: i64) -> Vec<Split> {
    let time = START + second;
    delivery(
        "messages",
        &format!(r#"{{{who}"id":"wamid.{id}","timestamp":"{time}","type":"system","system":{{{what},"body":"x"}}}}"#),
    )
}

fn status(id: &str, phone: &str, second: i64) -> Vec<Split> {
    let time = START + second;
    let status = format!(r#"{{"id":"wamid.{id}","status":"read","timestamp":"{time}","recipient_id":"{phone}"}}"#);
    delivery("statuses", &status)
}

/// What the tracker makes of the log.
fn folds(world: &SimWorld) -> BTreeMap<StreamId, Conversation> {
    let mut folds: BTreeMap<StreamId, Conversation> = BTreeMap::new();
    for Recorded { envelope, event } in log(world) {
        let fold = folds.entry(envelope.stream_id).or_default();
        fold.evolve(&event, envelope.event_id, envelope.occurred_at);
    }
    folds
}

async fn tracked(world: &SimWorld) {
    for (stream, conversation) in folds(world) {
        known(world, &stream, &conversation).await;
    }
}

/// Where each message and status ended, by its id.
fn places(world: &SimWorld) -> BTreeMap<String, StreamId> {
    let log = log(world);
    let place = |recorded: &Recorded| {
        let wamid = match &recorded.event {
            Event::MessageReceived(message) => message.wamid.to_string(),
            Event::MessageStatusChanged(status) => status.wamid.to_string(),
            other => panic!("{other:?}"),
        };
        (wamid.trim_start_matches("wamid.").to_owned(), recorded.envelope.stream_id.clone())
    };
    let items = of_items(&log);
    let places: BTreeMap<_, _> = items.iter().map(|recorded| place(recorded)).collect();
    assert_eq!(places.len(), items.len(), "each once");
    assert!(dead_letters(world).is_empty());
    places
}

/// Delivers these one after the other. `at_once`: all are there before the first is handled; else whoever handles one is another process
/// than before, and knows what the tracker does.
async fn told(seed: u64, items: &[Vec<Split>], at_once: bool) -> SimWorld {
    let world = scene(SimWorld::new(seed)).await;
    for item in items {
        deliver(&world, item).await;
        if !at_once {
            process(&world).await.expect("processed");
            tracked(&world).await;
            world.restart();
        }
    }
    process(&world).await.expect("processed");
    world
}

fn check(world: &SimWorld, expected: &[(&str, &StreamId)]) {
    assert_eq!(places(world), map(expected));
}

fn map(expected: &[(&str, &StreamId)]) -> BTreeMap<String, StreamId> {
    expected.iter().map(|(id, stream)| ((*id).to_owned(), (*stream).clone())).collect()
}

/// The same where each conversation goes on: what two partitions do at the same moment may have been recorded under an alias.
fn check_roots(world: &SimWorld, expected: &[(&str, &StreamId)]) {
    let folds = folds(world);
    let canonical = |stream: &StreamId| folds.get(stream).and_then(|fold| fold.canonical.clone());
    let roots: BTreeMap<_, _> = places(world).into_iter().map(|(id, at)| (id, root(&at, canonical))).collect();
    assert_eq!(roots, map(expected));
}

#[tokio::test(start_paused = true)]
async fn who_gets_a_number_that_somebody_left_is_a_new_person() {
    for at_once in [false, true] {
        // Given somebody who moved from one number to another; when a stranger writes from the old one, and a message from before is late.
        let items = [
            text("before", (N1, ""), 10, "hello"),
            moved("moves", N1, N2, 20),
            text("same second", (N1, ""), 20, "on my way"),
            text("stop", (N1, ""), 30, "STOP"),
            text("late", (N1, ""), 15, "late"),
            text("new number", (N2, ""), 31, "it is me"),
        ];
        let world = told(1, &items, at_once).await;
        let (person, stranger) = (by_phone(N1), after(N1, 20));
        let of_person = ["before", "moves", "same second", "late", "new number"].map(|id| (id, &person));
        check_roots(&world, &[&of_person[..], &[("stop", &stranger)]].concat());
        // Then each has their own answer, window and address.
        let folds = folds(&world);
        assert!(!folds[&person].blocked() && folds[&stranger].blocked(), "at once: {at_once}");
        assert_eq!(folds[&person].last_inbound, Some(at(if at_once { 20 } else { 31 })));
        assert_eq!(folds[&stranger].last_inbound, Some(at(30)));
        assert_eq!(folds[&person].address.phone, PhoneNumber::parse(N2).ok());
        assert_eq!(folds[&stranger].address.phone, PhoneNumber::parse(N1).ok());
        assert!(folds[&stranger].aliases.is_empty() && folds[&stranger].canonical.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_number_goes_from_one_to_the_next_and_back() {
    let items = [
        text("a1", (N1, ""), 10, "hello"),
        moved("a moves", N1, N2, 20),
        text("b1", (N1, ""), 30, "no"),
        moved("b moves", N1, N3, 40),
        text("c1", (N1, ""), 50, "hello"),
        text("b2", (N3, ""), 51, "hello"),
        text("a2", (N2, ""), 52, "hello"),
        // Whoever had it has left WhatsApp: the first one is back, and moves once more.
        moved("a returns", N2, N1, 60),
        text("a3", (N1, ""), 70, "STOP"),
        text("d1", (N2, ""), 71, "hello"),
        moved("a leaves again", N1, "15550100066", 80),
        text("e1", (N1, ""), 90, "hello"),
        text("a4", ("15550100066", ""), 91, "hello"),
    ];
    let world = told(2, &items, false).await;
    let (a, b, c) = (by_phone(N1), after(N1, 20), after(N1, 40));
    let (d, e) = (after(N2, 60), after(N1, 80));
    let of = |stream, ids: &[&'static str]| ids.iter().map(|id| (*id, stream)).collect::<Vec<_>>();
    let expected = [
        of(&a, &["a1", "a moves", "a2", "a returns", "a3", "a leaves again", "a4"]),
        of(&b, &["b1", "b moves", "b2"]),
        of(&c, &["c1"]),
        of(&d, &["d1"]),
        of(&e, &["e1"]),
    ];
    check(&world, &expected.concat());
    let folds = folds(&world);
    let blocked: Vec<_> = folds.iter().filter(|(_, fold)| fold.blocked()).map(|(stream, _)| stream).collect();
    assert_eq!(blocked, [&a]);
    assert_eq!(folds[&b].address.phone, PhoneNumber::parse(N3).ok());
    assert_eq!(folds[&a].address.phone, PhoneNumber::parse("15550100066").ok());
}

#[tokio::test(start_paused = true)]
async fn another_user_id_under_a_number_is_another_person_though_nobody_said_so() {
    for at_once in [false, true] {
        let items = [
            text("a1", (N1, "US.1"), 10, "hello"),
            text("b1", (N1, "US.2"), 30, "STOP"),
            text("b2", (N1, ""), 31, "hello"),
            // Each user id stays with its person, whatever comes late, and whatever number stands beside it.
            text("a2", (N1, "US.1"), 20, "late"),
            text("a3", ("", "US.1"), 40, "hello"),
            text("b3", ("", "US.2"), 41, "hello"),
        ];
        let world = told(3, &items, at_once).await;
        let (a, b) = (by_phone(N1), by_bsuid("US.2"));
        let of = |stream, ids: [&'static str; 3]| ids.map(|id| (id, stream));
        check(&world, &[of(&a, ["a1", "a2", "a3"]), of(&b, ["b1", "b2", "b3"])].concat());
        let folds = folds(&world);
        assert!(!folds[&a].blocked() && folds[&b].blocked(), "at once: {at_once}");
        // A message to the first one does not go to the number any more.
        assert_eq!((&folds[&a].address.phone, &folds[&a].address.bsuid), (&None, &Some(Bsuid("US.1".to_owned()))));
        assert!(!folds[&a].aliases.contains(&b) && folds[&b].aliases.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_user_id_that_was_announced_too_late_is_the_same_person_after_all() {
    for at_once in [false, true] {
        let rotated = r#""type":"user_changed_user_id","user_id":"US.2","previous_user_id":"US.1""#;
        let items = [
            text("first", (N1, "US.1"), 10, "hello"),
            text("new id", (N1, "US.2"), 30, "hello"),
            system("rotated", "", rotated, 29),
            text("later", (N1, "US.2"), 40, "hello"),
        ];
        let world = told(4, &items, at_once).await;
        let (person, alias) = (by_phone(N1), by_bsuid("US.2"));
        let folds = folds(&world);
        assert_eq!(folds[&alias].canonical, Some(person.clone()), "at once: {at_once}");
        check_roots(&world, &["first", "new id", "rotated", "later"].map(|id| (id, &person)));
        if !at_once {
            assert_eq!(folds[&person].address.phone, PhoneNumber::parse(N1).ok(), "they have their number");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_announced_user_id_hands_nothing_over() {
    let rotated = r#""type":"user_changed_user_id","user_id":"US.2","previous_user_id":"US.1""#;
    for at_once in [false, true] {
        let items = [
            text("first", (N1, "US.1"), 10, "hello"),
            system("rotated", &sender(N1, ""), rotated, 20),
            text("later", (N1, "US.2"), 30, "hello"),
            text("late", (N1, "US.1"), 15, "hello"),
        ];
        let world = told(5, &items, at_once).await;
        let person = by_phone(N1);
        check(&world, &["first", "rotated", "later", "late"].map(|id| (id, &person)));
        assert!(folds(&world).values().all(|fold| fold.handovers.is_empty()), "at once: {at_once}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_hides_the_new_number_has_left_the_old_one() {
    for new in ["", r#","user_id":"US.2","previous_user_id":"US.1""#] {
        let what = format!(r#""type":"user_changed_number"{new}"#);
        let items = [
            text("first", (N1, "US.1"), 10, "hello"),
            system("moves", &sender(N1, ""), &what, 20),
            text("stranger", (N1, "US.9"), 30, "STOP"),
            text("again", (N1, "US.9"), 31, "hello"),
            text("person", ("", if new.is_empty() { "US.1" } else { "US.2" }), 32, "hello"),
        ];
        let world = told(6, &items, false).await;
        let (person, stranger) = (by_phone(N1), after(N1, 20));
        let expected = [
            ("first", &person),
            ("moves", &person),
            ("stranger", &stranger),
            ("again", &stranger),
            ("person", &person),
        ];
        check(&world, &expected);
        let folds = folds(&world);
        assert_eq!(folds[&person].address.phone, None);
        assert!(!folds[&person].blocked() && folds[&stranger].blocked());
    }
}

#[tokio::test(start_paused = true)]
async fn who_moves_to_a_number_of_somebody_else_takes_over_nothing_of_theirs() {
    // By the user ids, or by the time alone.
    for (d, a) in [("US.4", "US.1"), ("", "")] {
        for at_once in [false, true] {
            let items = [
                text("d", (N2, d), 5, "STOP"),
                text("a1", (N1, a), 10, "hello"),
                moved("a moves", N1, N2, 20),
                text("a2", (N2, ""), 30, "hello"),
                text("d late", (N2, ""), 19, "hello"),
            ];
            // The time is in the views only.
            if at_once && d.is_empty() {
                continue;
            }
            let world = told(7, &items, at_once).await;
            let (a, d) = (by_phone(N1), by_phone(N2));
            let folds = folds(&world);
            if !at_once {
                check(&world, &[("d", &d), ("a1", &a), ("a moves", &a), ("a2", &a), ("d late", &d)]);
                assert!(folds[&d].canonical.is_none() && !folds[&a].aliases.contains(&d));
                assert_eq!(folds[&d].address.phone, None);
            }
            assert!(folds[&d].blocked() && !folds[&a].blocked());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_wrote_from_the_new_number_before_it_was_announced_is_the_same_person() {
    for bsuid in ["", "US.2"] {
        let ids = if bsuid.is_empty() { "" } else { r#","user_id":"US.2","previous_user_id":"US.1""# };
        let what = format!(r#""type":"user_changed_number","wa_id":"{N2}"{ids}"#);
        let items = [
            text("a1", (N1, ""), 10, "hello"),
            text("early", (N2, bsuid), 30, "hello"),
            system("a moves", &sender(N1, ""), &what, 20),
            text("a2", (N2, bsuid), 40, "hello"),
        ];
        let world = told(8, &items, false).await;
        let (a, early) = (by_phone(N1), by_phone(N2));
        check(&world, &[("a1", &a), ("early", &early), ("a moves", &a), ("a2", &a)]);
        assert_eq!(folds(&world)[&early].canonical, Some(a), "{bsuid}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_receipt_belongs_to_whom_the_message_went() {
    let items = [
        text("a1", (N1, ""), 10, "hello"),
        moved("a moves", N1, N2, 20),
        status("to a", N1, 25),
        text("b1", (N1, ""), 30, "hello"),
        status("to b", N1, 40),
    ];
    let world = told(9, &items, false).await;
    let (a, b) = (by_phone(N1), after(N1, 20));
    check(&world, &[("a1", &a), ("a moves", &a), ("to a", &a), ("b1", &b), ("to b", &b)]);
}

#[tokio::test(start_paused = true)]
async fn whatever_comes_twice_and_whoever_crashes_every_message_has_the_same_place() {
    let items = [
        text("a1", (N1, "US.1"), 10, "hello"),
        moved("a moves", N1, N2, 20),
        text("b1", (N1, "US.2"), 30, "STOP"),
        text("b2", (N1, ""), 31, "hello"),
    ];
    for seed in 0..20 {
        let crashes = Noise { crash_before: 10, crash_after: 10, fail_before: 20, fail_after: 20, ..Noise::default() };
        let world = scene(SimWorld::new(seed)).await.with(Plan::noisy(crashes));
        for item in &items {
            for _ in 0..2 {
                deliver(&world, item).await;
            }
            process_with_many(&world, &Config::default(), &["one", "two"]).await.expect("processed");
            tracked(&world).await;
        }
        let (a, b) = (by_phone(N1), after(N1, 20));
        check(&world, &[("a1", &a), ("a moves", &a), ("b1", &b), ("b2", &b)]);
        let stops: Vec<_> = log(&world)
            .into_iter()
            .filter(|e| matches!(&e.event, Event::MessageReceived(m) if m.intent == Intent::Stop))
            .map(|e| e.envelope.stream_id)
            .collect();
        assert_eq!(stops, [b], "seed {seed}");
    }
}

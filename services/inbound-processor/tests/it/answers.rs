//! What people say about being written to: words by organization and language, and WhatsApp's own switch for marketing.

use std::collections::BTreeMap;

use connector_domain::consent::Intent;
use connector_domain::event::{Event, TimeSource};
use connector_domain::ids::{Bsuid, PhoneNumber, StreamId};
use connector_domain::time::Timestamp;
use connector_simulated::SimWorld;
use connector_whatsapp::webhook::Split;
use inbound_processor::Config;

use crate::world::{ACCOUNT, NUMBER, dead_letters, deliver, items, keys, log, number_of, process, process_with, scene};

const OTHER_NUMBER: &str = "200000000000002";

fn says(number: &str, id: &str, words: &str) -> Vec<Split> {
    items(
        format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{ACCOUNT}","changes":[{{"field":"messages","value":{{
            "messaging_product":"whatsapp","metadata":{{"phone_number_id":"{number}"}},"messages":[{{"from":"15550100042",
            "id":"wamid.{id}","timestamp":"1790000000","type":"text","text":{{"body":"{words}"}}}}]}}}}]}}]}}"#
        )
        .as_bytes(),
    )
}

#[tokio::test(start_paused = true)]
async fn every_organization_has_its_words_in_every_language_and_nobody_can_take_stop_away() {
    let vocabulary = r#"{"organizations":{"acme":{"stop":["genug"],"start":["wieder"],"accept":["na klar"],"decline":["lieber nicht"]}}}"#;
    let config = Config { vocabulary: serde_json::from_str(vocabulary).expect("a vocabulary") };
    let world = scene(SimWorld::new(1)).await;
    number_of(&world, "globex", OTHER_NUMBER, ACCOUNT).await;
    use Intent::{Accept, Decline, Other, Start, Stop};
    // Words, what they mean to the organization that brought its own, and to one with the built-in words.
    let said = [
        ("Genug!", Stop, Other),
        ("STOP", Stop, Stop),
        ("start", Start, Start),
        ("wieder bitte", Start, Other),
        ("basta", Other, Stop),
        ("arrêtez", Other, Stop),
        ("descadastrar", Other, Stop),
        ("na klar", Accept, Other),
        ("Sí", Other, Accept),
        ("lieber nicht", Decline, Other),
        ("nein danke", Other, Decline),
        ("başla", Other, Start),
    ];
    for (n, (words, ..)) in said.iter().enumerate() {
        deliver(&world, &says(NUMBER, &format!("own.{n}"), words)).await;
        deliver(&world, &says(OTHER_NUMBER, &format!("built-in.{n}"), words)).await;
    }
    process_with(&world, config).await.expect("processed");
    let meant: BTreeMap<String, (String, Intent)> = log(&world)
        .into_iter()
        .filter_map(|recorded| match recorded.event {
            Event::MessageReceived(e) => Some((e.wamid.to_string(), (recorded.envelope.organization_id.0, e.intent))),
            _ => None,
        })
        .collect();
    for (n, (words, own, built_in)) in said.into_iter().enumerate() {
        assert_eq!(meant[&format!("wamid.own.{n}")], ("acme".to_owned(), own), "{words}");
        assert_eq!(meant[&format!("wamid.built-in.{n}")], ("globex".to_owned(), built_in), "{words}");
    }
}

fn message(id: &str, at: i64, what: &str) -> Vec<Split> {
    items(
        format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{ACCOUNT}","changes":[{{"field":"messages","value":{{
            "messaging_product":"whatsapp","metadata":{{"phone_number_id":"{NUMBER}"}},"messages":[{{"from":"15550100042",
            "id":"wamid.{id}","timestamp":"{at}",{what}}}]}}}}]}}]}}"#
        )
        .as_bytes(),
    )
}

/// What each message means by itself, what it answers under the opt-in message, and whether it is shown as unsupported.
fn meanings(world: &SimWorld) -> BTreeMap<String, (Intent, Intent, bool)> {
    let messages = log(world).into_iter().filter_map(|recorded| match recorded.event {
        Event::MessageReceived(e) => Some((e.wamid.to_string(), (e.intent, e.answer, e.unsupported))),
        _ => None,
    });
    messages.collect()
}

#[tokio::test(start_paused = true)]
async fn a_button_says_by_itself_only_what_can_mean_nothing_else() {
    let world = scene(SimWorld::new(4)).await;
    let button = |payload: &str, text: &str| {
        format!(r#""type":"button","context":{{"id":"wamid.out"}},"button":{{"payload":"{payload}","text":"{text}"}}"#)
    };
    let row = |kind: &str, id: &str, title: &str| {
        format!(r#""type":"interactive","interactive":{{"type":"{kind}","{kind}":{{"id":"{id}","title":"{title}"}}}}"#)
    };
    use Intent::{Accept, Decline, Other, Stop, StopMarketing};
    let said = [
        (button("Stop promotions", "Stop promotions"), StopMarketing, Other),
        (button("campaign-7", "Detener promociones"), StopMarketing, Other),
        (button("No", "No"), Other, Decline),
        (button("Yes", "Yes"), Other, Accept),
        (button("appointment-7", "Cancel"), Other, Stop),
        (button("appointment-7", "Unsubscribe"), Stop, Other),
        (button("OPT_IN_ACCEPT", "Count me in"), Accept, Other),
        (row("button_reply", "order-7", "End"), Other, Stop),
        (row("list_reply", "unsubscribe", "Leave"), Stop, Other),
    ];
    for (n, (what, ..)) in said.iter().enumerate() {
        deliver(&world, &message(&n.to_string(), 1_790_000_000, what)).await;
    }
    process(&world).await.expect("processed");
    let meant = meanings(&world);
    for (n, (what, intent, answer)) in said.into_iter().enumerate() {
        assert_eq!(meant[&format!("wamid.{n}")], (intent, answer, false), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn words_below_any_medium_count_and_the_medium_is_still_one_that_is_not_carried() {
    let world = scene(SimWorld::new(5)).await;
    let below =
        |medium: &str, caption: &str| format!(r#""type":"{medium}","{medium}":{{"id":"7","caption":"{caption}"}}"#);
    // The new words below a picture that was sent before.
    let edited = |medium: &str, caption: &str| {
        let new = below(medium, caption);
        format!(r#""type":"edit","edit":{{"original_message_id":"wamid.earlier","message":{{{new}}}}}"#)
    };
    use Intent::{Other, Stop, StopMarketing};
    let said = [
        (below("image", "STOP"), Stop),
        (below("video", "Unsubscribe me"), Stop),
        (below("document", "Stop promotions"), StopMarketing),
        (below("hologram", "ＳＴＯＰ"), Stop),
        (below("image", "bus stop"), Other),
        (edited("image", "STOP"), Stop),
        (edited("image", "yes"), Other),
        (r#""type":"audio","audio":{"id":"7"}"#.to_owned(), Other),
    ];
    for (n, (what, _)) in said.iter().enumerate() {
        deliver(&world, &message(&n.to_string(), 1_790_000_000, what)).await;
    }
    process(&world).await.expect("processed");
    let meant = meanings(&world);
    for (n, (what, intent)) in said.into_iter().enumerate() {
        assert_eq!(meant[&format!("wamid.{n}")], (intent, Other, true), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_people_write_is_understood_at_once() {
    let world = scene(SimWorld::new(6)).await;
    let texts = ["no ".repeat(33), "no ".repeat(20_000), "stop sending me ".repeat(4_000), "STOP ".repeat(13_000)];
    for (n, text) in texts.iter().enumerate() {
        deliver(&world, &says(NUMBER, &n.to_string(), text)).await;
    }
    process(&world).await.expect("processed");
    let meant: Vec<Intent> = meanings(&world).into_values().map(|(intent, ..)| intent).collect();
    assert_eq!(meant, [Intent::Decline, Intent::Decline, Intent::Other, Intent::Stop]);
}

fn preferences(entries: &str) -> Vec<Split> {
    items(
        format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{ACCOUNT}","time":1790000100,"changes":[
            {{"field":"user_preferences","value":{{"messaging_product":"whatsapp","metadata":{{"phone_number_id":"{NUMBER}"}},
            "user_preferences":[{entries}]}}}}]}}]}}"#
        )
        .as_bytes(),
    )
}

fn preference(who: &str, category: &str, value: &str, at: i64) -> String {
    format!(r#"{{{who},"detail":"x","category":"{category}","value":"{value}","timestamp":{at}}}"#)
}

/// Who stopped (or resumed) marketing, and when.
fn told(world: &SimWorld) -> Vec<(StreamId, bool, Timestamp)> {
    let events = log(world).into_iter().filter_map(|recorded| match recorded.event {
        Event::MarketingPreferenceChanged(e) => {
            assert_eq!(recorded.envelope.time_source, TimeSource::Whatsapp);
            Some((recorded.envelope.stream_id, e.stopped, recorded.envelope.occurred_at))
        }
        _ => None,
    });
    let mut told: Vec<_> = events.collect();
    told.sort();
    told
}

#[tokio::test(start_paused = true)]
async fn whatsapps_switch_for_marketing_is_recorded_once_for_each_person_with_its_moment() {
    const MARKETING: &str = "marketing_messages";
    let world = scene(SimWorld::new(2)).await;
    let (phone, bsuid) = (r#""wa_id":"15550100042""#, r#""user_id":"US.77""#);
    let one = preferences(&preference(phone, MARKETING, "stop", 1_790_000_001));
    let two =
        [preference(phone, MARKETING, "resume", 1_790_000_003), preference(bsuid, MARKETING, "stop", 1_790_000_004)];
    for _ in 0..3 {
        deliver(&world, &one).await;
        deliver(&world, &preferences(&two.join(","))).await;
    }
    process(&world).await.expect("processed");
    let by_phone = keys().by_phone(&NUMBER.into(), &PhoneNumber::parse("15550100042").expect("a number"));
    let by_bsuid = keys().by_bsuid(&NUMBER.into(), &Bsuid("US.77".to_owned()));
    let mut expected = [
        (by_phone.clone(), true, Timestamp::from_secs(1_790_000_001)),
        (by_phone, false, Timestamp::from_secs(1_790_000_003)),
        (by_bsuid, true, Timestamp::from_secs(1_790_000_004)),
    ];
    expected.sort();
    assert_eq!(told(&world), expected);
    assert!(dead_letters(&world).is_empty());
}

#[tokio::test(start_paused = true)]
async fn nobodys_preference_is_written_into_the_conversation_of_somebody_else() {
    let world = scene(SimWorld::new(4)).await;
    let entries = |categories: [&str; 3]| {
        let mut n = 0;
        let entry = |category: &str| {
            n += 1;
            preference(&format!(r#""wa_id":"1555010004{n}""#), category, "stop", 1_790_000_000 + n)
        };
        categories.map(entry)
    };
    let all = entries(["marketing_messages"; 3]);
    // One word about marketing, and two others of other people.
    let mixed = entries(["utility_messages", "marketing_messages", "utility_messages"]);
    deliver(&world, &preferences(&all.join(","))).await;
    deliver(&world, &preferences(&mixed.join(","))).await;
    process(&world).await.expect("processed");
    let events = log(&world).into_iter().filter_map(|recorded| match recorded.event {
        Event::MarketingPreferenceChanged(e) => Some((recorded.envelope.stream_id, e.raw.expose().to_owned())),
        _ => None,
    });
    let person = |n: usize| {
        let phone = PhoneNumber::parse(&format!("1555010004{n}")).expect("a number");
        keys().by_phone(&NUMBER.into(), &phone)
    };
    let mut found: Vec<_> = events.collect();
    found.sort();
    let mut expected: Vec<_> = (1..).map(person).zip(all.clone()).take(3).collect();
    expected.push((person(2), mixed[1].clone()));
    expected.sort();
    assert_eq!(found, expected);
    // What was said of other categories is kept, too: in the stream of the number.
    let notices = log(&world).into_iter().filter(|recorded| matches!(recorded.event, Event::AccountNotice(_)));
    assert_eq!(notices.count(), 2);
    assert!(dead_letters(&world).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_preference_about_another_category_is_kept_and_stops_no_marketing() {
    let world = scene(SimWorld::new(3)).await;
    deliver(&world, &preferences(&preference(r#""wa_id":"15550100042""#, "utility_messages", "stop", 1_790_000_001)))
        .await;
    process(&world).await.expect("processed");
    assert_eq!(told(&world), []);
    assert!(matches!(&log(&world)[..], [only] if matches!(only.event, Event::AccountNotice(_))));
}

//! What WhatsApp has is what the table has, whatever happens in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connector_contracts::headers::dlq;
use connector_contracts::{Topic, Topics, decode, encode};
use connector_domain::command::{DirectoryKind, DirectoryRecord, NumberState};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::settings::Rules;
use connector_domain::template::Template;
use connector_domain::time::Timestamp;
use connector_ports::log::{Append, Record, TopicSpec};
use connector_ports::partition::partition_for;
use connector_runtime::platform::Platform;
use connector_runtime::service::Service;
use connector_simulated::{Fault, Plan, SimWorld, When};
use connector_telemetry::Metrics;
use connector_testkit::wait;
use connector_whatsapp::webhook::split;
use template_catalog::Config;
use tokio_util::sync::CancellationToken;

const INTERVAL: Duration = Duration::from_secs(60);

fn template(name: &str, status: &str) -> Template {
    Template {
        waba_id: "account".into(),
        organization_id: "acme".into(),
        name: name.to_owned(),
        language: "en_US".to_owned(),
        status: status.to_owned(),
        category: "UTILITY".to_owned(),
        parameter_format: "POSITIONAL".to_owned(),
        header_format: None,
        header: None,
        body: "Hi".to_owned(),
        footer: None,
        buttons: Vec::new(),
        other_components: vec![],
    }
}

async fn scene(world: SimWorld) -> SimWorld {
    for topic in [Topic::Directory, Topic::Templates, Topic::Webhooks] {
        for name in [Topics::default().name(topic), Topics::default().dlq(topic)] {
            let spec = TopicSpec { name: name.into(), partitions: 2, replication: 1, settings: Vec::new() };
            world.calm_log().create_topic(&spec).await.unwrap();
        }
    }
    world
}

async fn add_number(world: &SimWorld) {
    add_number_of(world, "acme", "1").await;
}

async fn add_number_of(world: &SimWorld, organization: &str, number: &str) {
    let record = DirectoryRecord {
        kind: DirectoryKind::Number,
        organization_id: organization.into(),
        phone_number_id: Some(number.into()),
        waba_id: Some("account".into()),
        user_id: None,
        enabled: false,
        contact_id: None,
        address: Address::default(),
        name: None,
        settings: None,
        state: None,
    };
    let append = Append {
        topic: Topics::default().name(Topic::Directory).into(),
        partition: None,
        key: record.key().map(Into::into),
        value: Some(encode(&record).unwrap().into()),
        headers: Vec::new(),
    };
    world.calm_log().appender().await.unwrap().append(vec![append]).await.unwrap();
}

async fn service(world: SimWorld) {
    let platform = Platform {
        log: world.log(),
        gate: world.gate(),
        clock: world.clock(),
        ids: world.ids(),
        topics: Topics::default(),
        partitions: 2,
        keys: StreamKeys::new("t", b"secret"),
        rules: Rules::default(),
        instance: "one".to_owned(),
        metrics: Arc::new(Metrics::new("test", "test")),
    };
    let mut service = Service::new(platform, CancellationToken::new());
    template_catalog::start(Config { interval: INTERVAL }, world.whatsapp(), &mut service);
    let _ = service.run().await;
}

/// The table as a reader folds it: name to status.
fn table(world: &SimWorld) -> BTreeMap<String, String> {
    let mut table = BTreeMap::new();
    for record in world.history(&Topics::default().name(Topic::Templates).into()) {
        let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        match record.value {
            Some(value) => table.insert(key, decode::<Template>(&value).unwrap().status),
            None => table.remove(&key),
        };
    }
    table
}

fn records(world: &SimWorld) -> usize {
    world.history(&Topics::default().name(Topic::Templates).into()).len()
}

async fn until(world: &SimWorld, expected: &[(&str, &str)]) {
    let key = |name: &str| format!("account/{name}/en_US");
    let expected: BTreeMap<_, _> = expected.iter().map(|(name, status)| (key(name), (*status).to_owned())).collect();
    while table(world) != expected {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn templates_are_added_changed_and_removed_and_nothing_else_is_written() {
    let world = scene(SimWorld::new(1)).await;
    let done = |world: SimWorld| async move {
        world.whatsapp_side().set_templates(vec![template("a", "PENDING"), template("b", "APPROVED")]);
        // A number that appears later is found soon, without waiting for the interval.
        tokio::time::sleep(Duration::from_secs(5)).await;
        add_number(&world).await;
        let before = tokio::time::Instant::now();
        until(&world, &[("a", "PENDING"), ("b", "APPROVED")]).await;
        assert!(before.elapsed() < Duration::from_secs(3));
        world.whatsapp_side().set_templates(vec![template("a", "APPROVED"), template("c", "REJECTED")]);
        until(&world, &[("a", "APPROVED"), ("c", "REJECTED")]).await;
        assert_eq!(records(&world), 5);
        tokio::time::sleep(3 * INTERVAL).await;
        assert_eq!(records(&world), 5, "what did not change is not written again");
    };
    world.run(Duration::from_secs(600), service, done).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_webhook_about_a_template_brings_the_news_before_the_interval_ends() {
    let world = scene(SimWorld::new(1)).await;
    add_number(&world).await;
    let story = |world: SimWorld| async move {
        world.whatsapp_side().set_templates(vec![template("a", "PENDING")]);
        until(&world, &[("a", "PENDING")]).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = tokio::time::Instant::now();
        world.whatsapp_side().set_templates(vec![template("a", "APPROVED")]);
        let body = r#"{"entry":[{"id":"account","time":1790000000,"changes":[{"field":"message_template_status_update",
            "value":{"event":"APPROVED","message_template_name":"a","message_template_language":"en_US"}}]}]}"#;
        for split in split(body.as_bytes(), Timestamp(1), "d").unwrap() {
            let append = Append {
                topic: Topics::default().name(Topic::Webhooks).into(),
                partition: None,
                key: Some(split.key(&StreamKeys::new("t", b"secret")).into()),
                value: Some(encode(&split.item).unwrap().into()),
                headers: Vec::new(),
            };
            world.calm_log().appender().await.unwrap().append(vec![append]).await.unwrap();
        }
        until(&world, &[("a", "APPROVED")]).await;
        assert!(before.elapsed() < INTERVAL / 4, "{:?}", before.elapsed());
    };
    world.run(Duration::from_secs(600), service, story).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_or_failure_at_any_port_call_the_table_still_becomes_right() {
    let story = |world: SimWorld| async move {
        world.whatsapp_side().set_templates(vec![template("a", "PENDING"), template("b", "APPROVED")]);
        until(&world, &[("a", "PENDING"), ("b", "APPROVED")]).await;
        world.whatsapp_side().set_templates(vec![template("b", "PAUSED")]);
        until(&world, &[("b", "PAUSED")]).await;
    };
    let world = scene(SimWorld::new(5)).await;
    add_number(&world).await;
    let calm = world.run(Duration::from_secs(600), service, story).await.unwrap();
    // Polls of an idle table go on for ever; the first hundred calls hold every kind of call.
    for point in 0..calm.points.min(100) {
        for fault in
            [Fault::Crash(When::Before), Fault::Crash(When::After), Fault::Fail(When::Before), Fault::Fail(When::After)]
        {
            let world = scene(SimWorld::new(5).with(Plan::one(point, fault))).await;
            add_number(&world).await;
            let run = world.run(Duration::from_secs(1200), service, story).await;
            assert!(run.is_ok(), "{fault:?} at {point}: {run:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_template_gets_to_the_dead_letters_once_byte_for_byte() {
    let (topic, letters) = (Topics::default().name(Topic::Templates), Topics::default().dlq(Topic::Templates).into());
    let good = encode(&template("good", "APPROVED")).unwrap();
    let home = |key: &str| partition_for(key.as_bytes(), 2);
    let record = |key: &str, partition: u32, value: Option<&[u8]>| Append {
        topic: topic.as_str().into(),
        partition: Some(partition),
        key: Some(key.to_owned().into()),
        value: value.map(|value| value.to_vec().into()),
        headers: vec![("foreign".into(), None), ("empty".into(), Some(Bytes::new()))],
    };
    let (key, other) = ("account/good/en_US", "account/other/en_US");
    let bad = [
        ("not_framed", record(key, home(key), Some(b"nonsense"))),
        ("key_mismatch", record(other, home(other), Some(&good))),
        ("misplaced", record(key, 1 - home(key), Some(&good))),
        ("unknown_key", Append { key: None, ..record("", 0, Some(&good)) }),
    ];
    let world = scene(SimWorld::new(1)).await;
    let all = [record(key, home(key), Some(&good)), record(other, home(other), None)];
    let all = all.into_iter().chain(bad.iter().map(|(_, bad)| bad.clone())).collect();
    world.calm_log().appender().await.unwrap().append(all).await.unwrap();
    let story = async |world: SimWorld| {
        let there = async || (world.history(&letters).len() == bad.len()).then_some(());
        wait::until("the dead letters", Duration::from_secs(60), there).await;
        wait::still("more of them", Duration::from_secs(10), Duration::from_secs(60), async || {
            world.history(&letters).len()
        })
        .await;
    };
    world.run(Duration::from_secs(600), service, story).await.unwrap();
    // Whoever comes next does not find them again.
    world.restart();
    world.run(Duration::from_secs(600), service, story).await.unwrap();
    for (word, bad) in bad {
        let word = Bytes::from(word);
        let is_it = |letter: &&Record| letter.header(dlq::REASON) == Some(&word);
        let found = world.history(&letters).into_iter().find(|letter| is_it(&letter)).expect("its letter");
        assert_eq!((&found.key, &found.value), (&bad.key, &bad.value), "{word:?}");
        assert_eq!(found.headers[..2], bad.headers[..], "{word:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_whatsapp_reports_about_a_number_is_written_when_it_changes() {
    let world = scene(SimWorld::new(1)).await;
    add_number(&world).await;
    let states = |world: &SimWorld| -> Vec<NumberState> {
        let records = world.history(&Topics::default().name(Topic::Directory).into());
        let records = records.iter().filter(|record| record.key.as_deref() == Some(b"number-state/1"));
        let decoded = records.map(|record| decode::<DirectoryRecord>(record.value.as_deref().unwrap()).unwrap());
        decoded.filter_map(|record| record.state).collect()
    };
    let story = |world: SimWorld| async move {
        let tier = |tier: &str| NumberState { messaging_limit: Some(tier.to_owned()), ..NumberState::default() };
        for (at, word) in ["TIER_250", "TIER_2K"].iter().enumerate() {
            world.whatsapp_side().set_number_state(&"1".into(), tier(word));
            while states(&world).last() != Some(&tier(word)) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            tokio::time::sleep(3 * INTERVAL).await;
            let of_tiers = states(&world).iter().filter(|state| state.messaging_limit.is_some()).count();
            assert_eq!(of_tiers, at + 1, "what did not change is not written again");
        }
    };
    world.run(Duration::from_secs(1200), service, story).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn organizations_that_share_an_account_each_have_the_state_of_their_numbers_and_one_list_of_templates() {
    let world = scene(SimWorld::new(1)).await;
    add_number_of(&world, "beta", "2").await;
    add_number(&world).await;
    world.whatsapp_side().set_templates(vec![template("hello", "APPROVED")]);
    let tier = |tier: &str| NumberState { messaging_limit: Some(tier.to_owned()), ..NumberState::default() };
    let tiers = [("1", "acme", "TIER_250"), ("2", "beta", "TIER_2K")];
    for (number, _, word) in tiers {
        world.whatsapp_side().set_number_state(&number.into(), tier(word));
    }
    let state = |world: &SimWorld, number: &str| {
        let records = world.history(&Topics::default().name(Topic::Directory).into());
        let key = format!("number-state/{number}");
        let last = records.into_iter().rfind(|record| record.key.as_deref() == Some(key.as_bytes()))?;
        Some(decode::<DirectoryRecord>(last.value.as_deref()?).unwrap())
    };
    let story = |world: SimWorld| async move {
        for (number, organization, word) in tiers {
            let expected = (organization.to_owned(), Some(tier(word)));
            let of = |record: DirectoryRecord| (record.organization_id.to_string(), record.state);
            while state(&world, number).map(of).as_ref() != Some(&expected) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let written = || (records(&world), world.history(&Topics::default().name(Topic::Directory).into()).len());
        let before = written();
        tokio::time::sleep(3 * INTERVAL).await;
        assert_eq!(written(), before, "nothing flaps");
        assert_eq!(table(&world).len(), 1);
    };
    world.run(Duration::from_secs(1200), service, story).await.unwrap();
}

//! Records and topics.

use std::collections::BTreeMap;

use bytes::Bytes;
use connector_ports::log::{
    Append, Header, Identity, Isolation, LogError, MAX_RECORD_BYTES, MIN_TOPIC_BYTES, Start, TopicFacts, TopicName,
    TopicSpec,
};
use connector_ports::partition::partition_for;

use super::{LogWorld, append, at, new_name, new_topic, read, reader, record, records, text, values};

/// Bytes, headers (repeated, empty and null ones), tombstones, empty values and missing keys survive.
pub async fn records_come_back_as_they_were_written(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let blob = Bytes::from((0..=255).cycle().take(10_000).collect::<Vec<u8>>());
    let headers = vec![
        ("trace".into(), Some(Bytes::from_static(b"\x00\xff"))),
        ("trace".into(), Some(Bytes::from_static(b"second"))),
        ("null".into(), None),
        ("empty".into(), Some(Bytes::new())),
        ("null".into(), None),
    ];
    let shape = |key: Option<Bytes>, value: Option<Bytes>, headers: &[Header]| Append {
        topic: topic.clone(),
        partition: Some(0),
        key,
        value,
        headers: headers.to_vec(),
    };
    let written = vec![
        shape(Some(blob.clone()), Some(blob.clone()), &headers),
        shape(text("tombstone"), None, &headers),
        shape(None, text("no key"), &[]),
        shape(text("empty"), Some(Bytes::new()), &[]),
    ];
    append(&*log, written.clone()).await;
    let other = world.log().await;
    let mut reader = reader(&*other, &[at(&topic, 0)], Start::Beginning, Isolation::Committed).await;
    let seen = read(&mut *reader, written.len()).await;
    for (seen, written) in seen.iter().zip(&written) {
        assert_eq!(seen.source, at(&topic, 0));
        assert_eq!(
            (&seen.key, &seen.value, &seen.headers),
            (&written.key, &written.value, &written.headers),
            "the record at {:?}",
            seen.offset
        );
        assert!(seen.timestamp.as_millis() > 0, "a record has a timestamp");
    }
    reader.close().await;
}

/// Within and between calls of one task.
pub async fn records_of_a_key_keep_their_order(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 4).await;
    let appender = log.appender().await.expect("open an appender");
    let keys = ["anna", "boris", "chen", "dara", "emil"];
    for batch in 0..5 {
        let batch = (0..20).flat_map(|n| keys.map(|key| (key, batch * 20 + n)));
        let records = batch.map(|(key, n)| Append {
            topic: topic.clone(),
            partition: None,
            key: text(key),
            value: text(&n.to_string()),
            headers: Vec::new(),
        });
        appender.append(records.collect()).await.expect("append");
    }
    let partitions: Vec<_> = (0..4).map(|partition| at(&topic, partition)).collect();
    let mut reader = reader(&*log, &partitions, Start::Beginning, Isolation::Committed).await;
    let mut by_key: BTreeMap<Bytes, Vec<String>> = BTreeMap::new();
    for record in read(&mut *reader, 500).await {
        by_key.entry(record.key.clone().unwrap_or_default()).or_default().extend(values(&[record]));
    }
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(by_key.len(), keys.len());
    assert!(by_key.values().all(|order| *order == expected), "{by_key:?}");
    reader.close().await;
}

/// Every adapter and every other Kafka client agree on it.
pub async fn the_partition_follows_from_the_key(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 7).await;
    let keys: Vec<String> = (0..50).map(|n| format!("conversation-{n}")).collect();
    let records = keys.iter().map(|key| Append { partition: None, key: text(key), ..record(&topic, 0, key) });
    let appender = log.appender().await.expect("open an appender");
    let appended = appender.append(records.collect()).await.expect("append");
    for (key, appended) in keys.iter().zip(&appended) {
        assert_eq!(appended.target, at(&topic, partition_for(key.as_bytes(), 7)), "{key}");
    }
}

/// Dead letters keep the partition of their source.
pub async fn a_named_partition_wins_over_the_key(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 5).await;
    let named = (partition_for(b"key", 5) + 1) % 5;
    append(&*log, records(&topic, named, &["here"])).await;
    let mut reader = reader(&*log, &[at(&topic, named)], Start::Beginning, Isolation::Committed).await;
    assert_eq!(values(&read(&mut *reader, 1).await), ["here"]);
    reader.close().await;
}

/// The answer of an append is the truth, in the order of the call.
pub async fn an_acknowledged_record_stands_where_the_log_said(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 2).await;
    let appender = log.appender().await.expect("open an appender");
    let mixed: Vec<Append> = (0..20).map(|n| record(&topic, n % 2, &n.to_string())).collect();
    let appended = appender.append(mixed).await.expect("append");
    let mut reader = reader(&*log, &[at(&topic, 0), at(&topic, 1)], Start::Beginning, Isolation::Committed).await;
    for seen in read(&mut *reader, 20).await {
        let n: usize = values(std::slice::from_ref(&seen))[0].parse().expect("a number");
        assert_eq!((&appended[n].target, appended[n].offset), (&seen.source, seen.offset));
    }
    reader.close().await;
}

/// The existing topic is left alone, whatever it is like.
pub async fn creating_a_topic_twice_leaves_the_first(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 3).await;
    append(&*log, records(&topic, 2, &["kept"])).await;
    let again = TopicSpec { name: topic.clone(), partitions: 5, replication: 1, settings: Vec::new() };
    log.create_topic(&again).await.expect("create it again");
    assert_eq!(log.topic(&topic).await.expect("ask"), Some(TopicFacts { partitions: 3 }));
    let mut reader = reader(&*log, &[at(&topic, 2)], Start::Beginning, Isolation::Committed).await;
    assert_eq!(values(&read(&mut *reader, 1).await), ["kept"]);
    reader.close().await;
}

/// From the first record on, whoever asks and whatever is written.
pub async fn a_partition_keeps_its_identity(world: &dyn LogWorld) {
    let (log, other) = (world.log().await, world.log().await);
    let topic = new_topic(&*log, 2).await;
    append(&*log, records(&topic, 0, &["first"])).await;
    let known = log.identity(&at(&topic, 0)).await.expect("ask");
    assert!(matches!(known, Identity::Known(_)), "{known:?}");
    append(&*log, records(&topic, 0, &["second"])).await;
    append(&*log, records(&topic, 1, &["first"])).await;
    assert_eq!(other.identity(&at(&topic, 0)).await.expect("ask"), known);
    let neighbour = other.identity(&at(&topic, 1)).await.expect("ask");
    assert!(matches!(neighbour, Identity::Known(_)) && neighbour != known, "{neighbour:?}");
    let missing = TopicName::from(new_name("contract.missing"));
    let error = log.identity(&at(&missing, 0)).await.expect_err("there is no such topic");
    assert!(matches!(&error, LogError::UnknownTopic { topic } if *topic == missing), "{error:?}");
}

/// By the names they were created with.
pub async fn a_topic_tells_its_settings(world: &dyn LogWorld) {
    let log = world.log().await;
    let name = TopicName::from(new_name("contract.settings"));
    let settings = [("cleanup.policy", "compact"), ("retention.ms", "-1"), ("max.message.bytes", "4194304")];
    let settings: Vec<_> = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let spec = TopicSpec { name: name.clone(), partitions: 1, replication: 1, settings: settings.clone() };
    log.create_topic(&spec).await.expect("create");
    let told = log.topic_settings(&name).await.expect("ask");
    for (setting, value) in settings {
        assert_eq!(told.get(&setting), Some(&value), "{setting}");
    }
    let missing = TopicName::from(new_name("contract.missing"));
    let error = log.topic_settings(&missing).await.expect_err("there is no such topic");
    assert!(matches!(&error, LogError::UnknownTopic { topic } if *topic == missing), "{error:?}");
}

/// Nothing is created on the way, and waiting would not help.
pub async fn a_missing_topic_is_named_as_such(world: &dyn LogWorld) {
    let log = world.log().await;
    let missing = TopicName::from(new_name("contract.missing"));
    assert_eq!(log.topic(&missing).await.expect("ask"), None);
    let appender = log.appender().await.expect("open an appender");
    let error = appender.append(records(&missing, 0, &["lost"])).await.expect_err("there is no such topic");
    assert!(matches!(&error, LogError::UnknownTopic { topic } if *topic == missing), "{error:?}");
    let error = log.end_offset(&at(&missing, 0), Isolation::Committed).await.expect_err("there is no such topic");
    assert!(matches!(&error, LogError::UnknownTopic { topic } if *topic == missing), "{error:?}");
    assert_eq!(log.topic(&missing).await.expect("ask"), None);
}

/// Bytes that no compression makes fewer.
fn noise(count: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    bytes.truncate(count);
    bytes.into()
}

/// The largest record is written and read; one that is larger than that, or than its topic takes, is refused by its name and size, with all that
/// was written along with it. Whoever takes the transactional id over goes on.
pub async fn a_record_that_does_not_fit_is_refused_as_that(world: &dyn LogWorld) {
    let log = world.log().await;
    for (most, refused) in [(MAX_RECORD_BYTES, MAX_RECORD_BYTES + 1), (MIN_TOPIC_BYTES, MIN_TOPIC_BYTES + 1_000)] {
        let topic = TopicName::from(new_name("contract.sizes"));
        let settings = vec![("max.message.bytes".to_owned(), most.to_string())];
        let spec = TopicSpec { name: topic.clone(), partitions: 1, replication: 1, settings };
        log.create_topic(&spec).await.expect("create");
        let empty = record(&topic, 0, "").size();
        let of_size = |bytes: usize| Append { value: Some(noise(bytes - empty)), ..record(&topic, 0, "") };
        let is_refusal = |error: &LogError| matches!(error, LogError::TooLarge { topic: told, bytes } if *told == topic && *bytes == refused);
        let [small, large] = [record(&topic, 0, "small"), of_size(refused)];
        let appender = log.appender().await.expect("an appender");
        let error = appender.append(vec![large.clone()]).await.expect_err("too large");
        assert!(is_refusal(&error), "{error:?}");

        let id = new_name("tx");
        let mut transactor = log.transactor(&id).await.expect("a transactor");
        let error = transactor.append(vec![small.clone(), large, small]).await.expect_err("too large");
        assert!(is_refusal(&error), "{error:?}");
        drop(transactor);
        let mut transactor = log.transactor(&id).await.expect("a transactor");
        let largest = of_size(most);
        transactor.append(vec![largest.clone()]).await.expect("it fits");
        transactor.commit(None).await.expect("commit");
        appender.append(vec![largest.clone()]).await.expect("it fits");
        let mut reader = reader(&*log, &[at(&topic, 0)], Start::Beginning, Isolation::Committed).await;
        let seen = read(&mut *reader, 2).await;
        assert!(seen.iter().all(|seen| seen.value == largest.value && seen.size() == most));
        reader.close().await;
    }
}

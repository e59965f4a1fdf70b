//! Positions: where reading starts, seeks to, pauses and ends.

use std::time::Duration;

use connector_ports::log::{Isolation, LogError, Offset, Polled, Record, Start};

use super::{
    LogWorld, Member, TICK, WITHIN, append, at, new_name, new_topic, read, read_through, read_to_end, reader, records,
    values, within,
};
use crate::wait;

const FIVE: [&str; 5] = ["0", "1", "2", "3", "4"];

/// The first position that is kept is 0 as long as nothing was deleted.
pub async fn nothing_is_missing_at_the_beginning_of_a_new_partition(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let begin = async || log.begin_offset(&at(&topic, 0)).await.expect("a beginning");
    assert_eq!(begin().await, Offset(0));
    append(&*log, records(&topic, 0, &FIVE)).await;
    assert_eq!(begin().await, Offset(0));
    let missing = log.begin_offset(&at(&new_name("no-topic").as_str().into(), 0)).await;
    assert!(matches!(missing, Err(LogError::UnknownTopic { .. })), "{missing:?}");
}

/// Beginning, end, a position.
pub async fn reading_starts_where_asked(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let offsets = append(&*log, records(&topic, 0, &FIVE)).await;
    let partition = [at(&topic, 0)];
    let mut beginning = reader(&*log, &partition, Start::Beginning, Isolation::Committed).await;
    let mut third = reader(&*log, &partition, Start::At(offsets[2]), Isolation::Committed).await;
    let mut end = reader(&*log, &partition, Start::End, Isolation::Committed).await;
    // The end is where it was when reading began: this waits until it has.
    let (seen, _) = read_to_end(&mut *end, &partition[0]).await;
    assert_eq!(values(&seen), Vec::<String>::new());
    append(&*log, records(&topic, 0, &["5"])).await;
    assert_eq!(values(&read_through(&mut *beginning, "5").await), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(values(&read_through(&mut *third, "5").await), ["2", "3", "4", "5"]);
    assert_eq!(values(&read_through(&mut *end, "5").await), ["5"]);
    for reader in [beginning, third, end] {
        reader.close().await;
    }
}

/// The first record with that timestamp or a later one; a moment in the future is the end.
pub async fn reading_since_a_moment_starts_at_its_first_record(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let partition = [at(&topic, 0)];
    append(&*log, records(&topic, 0, &["first"])).await;
    let mut all = reader(&*log, &partition, Start::Beginning, Isolation::Committed).await;
    let mut seen = read(&mut *all, 1).await;
    let first = seen[0].timestamp;
    within("a later timestamp", async {
        while seen.last().is_none_or(|record| record.timestamp <= first) {
            append(&*log, records(&topic, 0, &["probe"])).await;
            seen.extend(read(&mut *all, 1).await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    append(&*log, records(&topic, 0, &["last"])).await;
    let moment = seen.last().expect("there are some").timestamp;
    let mut since = reader(&*log, &partition, Start::Since(moment), Isolation::Committed).await;
    let found = read_through(&mut *since, "last").await;
    let expected = seen.iter().find(|record| record.timestamp >= moment).expect("there is one");
    assert_eq!(found[0].offset, expected.offset);
    let mut future =
        reader(&*log, &partition, Start::Since(moment + Duration::from_secs(86_400)), Isolation::Committed).await;
    let (none, _) = read_to_end(&mut *future, &partition[0]).await;
    assert_eq!(values(&none), Vec::<String>::new());
    for reader in [all, since, future] {
        reader.close().await;
    }
}

/// Back, forward and to the end.
pub async fn seek_is_exact(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let offsets = append(&*log, records(&topic, 0, &FIVE)).await;
    let partition = at(&topic, 0);
    let mut reader = reader(&*log, std::slice::from_ref(&partition), Start::Beginning, Isolation::Committed).await;
    read(&mut *reader, 5).await;
    reader.seek(&partition, Start::At(offsets[1])).await.expect("seek back");
    assert_eq!(values(&read_through(&mut *reader, "4").await), ["1", "2", "3", "4"]);
    reader.seek(&partition, Start::Beginning).await.expect("seek to the beginning");
    assert_eq!(values(&read_through(&mut *reader, "4").await), FIVE);
    reader.seek(&partition, Start::At(offsets[4])).await.expect("seek forward");
    assert_eq!(values(&read_through(&mut *reader, "4").await), ["4"]);
    reader.seek(&partition, Start::Beginning).await.expect("seek to the beginning");
    reader.seek(&partition, Start::End).await.expect("seek to the end");
    let (seen, end) = read_to_end(&mut *reader, &partition).await;
    assert_eq!((values(&seen), end > offsets[4]), (Vec::new(), true));
    append(&*log, records(&topic, 0, &["5"])).await;
    assert_eq!(values(&read_through(&mut *reader, "5").await), ["5"]);
    reader.close().await;
}

/// Also what was prefetched but not delivered.
pub async fn seek_drops_what_was_in_hand(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let offsets = append(&*log, records(&topic, 0, &FIVE)).await;
    let partition = at(&topic, 0);
    let mut reader = reader(&*log, std::slice::from_ref(&partition), Start::Beginning, Isolation::Committed).await;
    let first = within("a first record", async {
        loop {
            if let Polled::Records(records) = reader.poll(TICK, 1).await.expect("poll") {
                return records;
            }
        }
    })
    .await;
    assert_eq!(values(&first), ["0"]);
    reader.seek(&partition, Start::At(offsets[3])).await.expect("seek");
    assert_eq!(values(&read_through(&mut *reader, "4").await), ["3", "4"]);
    reader.close().await;
}

/// The others go on; nothing is lost or repeated.
pub async fn paused_partitions_are_silent_until_resumed(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 2).await;
    let (quiet, loud) = (at(&topic, 0), at(&topic, 1));
    let mut reader = reader(&*log, &[quiet.clone(), loud.clone()], Start::Beginning, Isolation::Committed).await;
    append(&*log, records(&topic, 0, &["q0"])).await;
    assert_eq!(values(&read(&mut *reader, 1).await), ["q0"]);
    reader.pause(std::slice::from_ref(&quiet)).await.expect("pause");
    append(&*log, records(&topic, 0, &["q1", "q2"])).await;
    for n in 0..3 {
        append(&*log, records(&topic, 1, &[&format!("l{n}")])).await;
        assert_eq!(values(&read(&mut *reader, 1).await), [format!("l{n}")]);
    }
    reader.resume(std::slice::from_ref(&quiet)).await.expect("resume");
    assert_eq!(values(&read(&mut *reader, 2).await), ["q1", "q2"]);
    reader.close().await;
}

/// For an empty partition too.
pub async fn the_end_of_a_partition_is_told_and_told_anew(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let partition = at(&topic, 0);
    let mut reader = reader(&*log, std::slice::from_ref(&partition), Start::Beginning, Isolation::Committed).await;
    let (seen, end) = read_to_end(&mut *reader, &partition).await;
    assert_eq!((values(&seen), end), (Vec::new(), Offset(0)));
    for n in 0..3 {
        let offset = append(&*log, records(&topic, 0, &[&n.to_string()])).await[0];
        let mut seen: Vec<Record> = Vec::new();
        while seen.is_empty() {
            let (more, end) = read_to_end(&mut *reader, &partition).await;
            assert!(more.is_empty() || end > offset, "the end {end:?} is told behind the record at {offset:?}");
            assert!(end <= log.end_offset(&partition, Isolation::Committed).await.expect("ask"));
            seen.extend(more);
        }
        assert_eq!(values(&seen), [n.to_string()]);
    }
    reader.close().await;
}

/// Behind commit markers and aborted data, so that "caught up" can be compared with the end offset.
pub async fn the_told_end_moves_past_control_records(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let partition = at(&topic, 0);
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    transactor.append(records(&topic, 0, &["kept"])).await.expect("append");
    transactor.commit(None).await.expect("commit");
    let dropped = transactor.append(records(&topic, 0, &["dropped", "dropped"])).await.expect("append")[1].offset;
    transactor.abort().await.expect("abort");
    let end = wait::until("the abort to be over", WITHIN, async || {
        let end = log.end_offset(&partition, Isolation::Committed).await.expect("ask");
        (end > dropped).then_some(end)
    })
    .await;
    let mut reader = reader(&*log, std::slice::from_ref(&partition), Start::Beginning, Isolation::Committed).await;
    let mut seen = Vec::new();
    within("the told end to reach the end offset", async {
        loop {
            let (more, told) = read_to_end(&mut *reader, &partition).await;
            seen.extend(more);
            assert!(told <= end, "{told:?} is behind the end {end:?}");
            if told == end {
                return;
            }
        }
    })
    .await;
    assert_eq!(values(&seen), ["kept"]);
    reader.close().await;
}

/// The caller's memory is bounded by it.
pub async fn a_poll_brings_no_more_than_asked(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 2).await;
    append(&*log, records(&topic, 0, &FIVE)).await;
    append(&*log, records(&topic, 1, &FIVE)).await;
    let mut reader = reader(&*log, &[at(&topic, 0), at(&topic, 1)], Start::Beginning, Isolation::Committed).await;
    let mut seen = 0;
    within("all records", async {
        while seen < 10 {
            if let Polled::Records(records) = reader.poll(TICK, 3).await.expect("poll") {
                assert!((1..=3).contains(&records.len()), "{} records", records.len());
                seen += records.len();
            }
        }
    })
    .await;
    reader.close().await;
}

/// A poll inside a `select!` may be dropped at any moment.
pub async fn a_dropped_poll_loses_nothing(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let expected: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let batch: Vec<&str> = expected.iter().map(String::as_str).collect();
    append(&*log, records(&topic, 0, &batch)).await;
    let mut reader = reader(&*log, &[at(&topic, 0)], Start::Beginning, Isolation::Committed).await;
    let mut seen = Vec::new();
    within("all records", async {
        while seen.len() < expected.len() {
            // Polled once and dropped when it is not ready; then with a little patience.
            let impatient = tokio::time::timeout(Duration::ZERO, reader.poll(TICK, 7)).await;
            let polled = match impatient {
                Ok(polled) => polled,
                Err(_) => match tokio::time::timeout(Duration::from_millis(2), reader.poll(TICK, 7)).await {
                    Ok(polled) => polled,
                    Err(_) => continue,
                },
            };
            if let Polled::Records(records) = polled.expect("poll") {
                seen.extend(values(&records));
            }
        }
    })
    .await;
    assert_eq!(seen, expected);
    reader.close().await;
}

/// A worker starts at the offset of its projection, not of the group (R1).
pub async fn a_group_member_may_seek_in_what_it_was_assigned(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let offsets = append(&*log, records(&topic, 0, &FIVE)).await;
    let mut member = Member::join(&*log, &new_name("group"), &topic, None).await;
    member.until_owns(1).await;
    member.reader.seek(&at(&topic, 0), Start::At(offsets[3])).await.expect("seek");
    member.until_seen(2).await;
    assert_eq!(values(&member.seen), ["3", "4"]);
    member.reader.close().await;
}

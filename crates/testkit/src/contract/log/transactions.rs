//! Transactions: visibility, atomicity, fencing.

use std::time::Duration;

use connector_ports::log::{
    Consumed, Isolation, Landmark, Log, LogError, Offset, Position, Start, TopicName, TopicPartition,
};

use super::{
    LogWorld, Member, WITHIN, append, at, both, new_name, new_topic, read, read_through, read_to_end, reader, records,
    values,
};
use crate::wait;

/// How long a position is waited for that should not come.
const SOON: Duration = Duration::from_secs(1);

/// What a committed reader finds in partition 0, up to a record appended last.
async fn committed_values(log: &dyn Log, topic: &TopicName) -> Vec<String> {
    append(log, records(topic, 0, &["sentinel"])).await;
    let mut reader = reader(log, &[at(topic, 0)], Start::Beginning, Isolation::Committed).await;
    let mut seen = values(&read_through(&mut *reader, "sentinel").await);
    reader.close().await;
    seen.pop();
    seen
}

async fn group_position(log: &dyn Log, group: &str, partition: &TopicPartition) -> Option<Offset> {
    log.committed(group, std::slice::from_ref(partition)).await.expect("ask for committed positions")[0]
}

/// What was acknowledged inside an open transaction is durable: another client reads it uncommitted.
pub async fn open_transactions_are_hidden_from_committed_readers_only(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    let appended = transactor.append(records(&topic, 0, &["one", "two"])).await.expect("append");
    let other = world.log().await;
    let mut all = reader(&*other, &[at(&topic, 0)], Start::Beginning, Isolation::Uncommitted).await;
    assert_eq!(values(&read(&mut *all, 2).await), ["one", "two"]);
    let mut committed = reader(&*other, &[at(&topic, 0)], Start::Beginning, Isolation::Committed).await;
    let (seen, end) = read_to_end(&mut *committed, &at(&topic, 0)).await;
    assert_eq!(values(&seen), Vec::<String>::new());
    assert!(end <= appended[0].offset, "the end of a committed reader stops before open data");
    transactor.commit(None).await.expect("commit");
    assert_eq!(values(&read(&mut *committed, 2).await), ["one", "two"]);
    all.close().await;
    committed.close().await;
}

/// Whoever waits for one record of many need not wait for all of them.
pub async fn each_record_of_a_transaction_is_told_of_once_when_it_is_durable(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 3).await;
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    let names: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    let all = (0..names.len()).map(|n| records(&topic, u32::try_from(n % 3).expect("small"), &[&names[n]]).remove(0));
    let mut told = Vec::new();
    let appended = transactor.append_each(all.collect(), &mut |place| told.push(place)).await.expect("append");
    told.sort_unstable();
    assert_eq!(told, (0..names.len()).collect::<Vec<_>>());
    let other = world.log().await;
    for partition in 0..3 {
        let mut all = reader(&*other, &[at(&topic, partition)], Start::Beginning, Isolation::Uncommitted).await;
        let seen = read(&mut *all, 10).await;
        for record in &seen {
            let place: usize = values(std::slice::from_ref(record))[0].parse().expect("a number");
            assert_eq!((&record.source, record.offset), (&appended[place].target, appended[place].offset));
        }
        all.close().await;
    }
    transactor.commit(None).await.expect("commit");
}

/// Nothing may start that only the owner may start.
pub async fn a_record_that_a_former_owner_appends_is_not_told_of(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 2).await;
    let id = new_name("tx");
    let mut older = log.transactor(&id).await.expect("open a transactor");
    older.append(records(&topic, 0, &["mine"])).await.expect("append");
    let _newer = log.transactor(&id).await.expect("take over");
    let both = [records(&topic, 0, &["late"]), records(&topic, 1, &["late"])].concat();
    let mut told = Vec::new();
    older.append_each(both, &mut |place| told.push(place)).await.expect_err("it is fenced");
    assert_eq!(told, Vec::<usize>::new());
}

/// The last stable offset: order would be broken otherwise.
pub async fn nothing_behind_an_open_transaction_is_visible(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    append(&*log, records(&topic, 0, &["before"])).await;
    transactor.append(records(&topic, 0, &["open"])).await.expect("append");
    append(&*log, records(&topic, 0, &["behind"])).await;
    let mut committed = reader(&*log, &[at(&topic, 0)], Start::Beginning, Isolation::Committed).await;
    let (seen, _) = read_to_end(&mut *committed, &at(&topic, 0)).await;
    assert_eq!(values(&seen), ["before"]);
    transactor.commit(None).await.expect("commit");
    assert_eq!(values(&read(&mut *committed, 2).await), ["open", "behind"]);
    committed.close().await;
}

/// Committed readers never see them; uncommitted ones do (the journal of attempts needs that).
pub async fn aborted_records_are_never_seen_by_committed_readers(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    transactor.append(records(&topic, 0, &["kept"])).await.expect("append");
    transactor.commit(None).await.expect("commit");
    transactor.append(records(&topic, 0, &["dropped"])).await.expect("append");
    transactor.abort().await.expect("abort");
    transactor.append(records(&topic, 0, &["kept too"])).await.expect("append");
    transactor.commit(None).await.expect("commit");
    assert_eq!(committed_values(&*log, &topic).await, ["kept", "kept too"]);
    let mut all = reader(&*log, &[at(&topic, 0)], Start::Beginning, Isolation::Uncommitted).await;
    assert_eq!(values(&read(&mut *all, 4).await), ["kept", "dropped", "kept too", "sentinel"]);
    all.close().await;
}

struct Pipe {
    topics: [TopicName; 3],
    group: String,
    member: Member,
}

/// A member that has consumed two records of the first topic.
async fn pipe(log: &dyn Log) -> Pipe {
    let topics = [new_topic(log, 1).await, new_topic(log, 1).await, new_topic(log, 1).await];
    append(log, records(&topics[0], 0, &["a", "b"])).await;
    let group = new_name("group");
    let mut member = Member::join(log, &group, &topics[0], None).await;
    member.until_seen(2).await;
    Pipe { topics, group, member }
}

async fn consumed(pipe: &Pipe) -> Consumed {
    consumed_up_to(pipe, pipe.member.seen[1].offset.next()).await
}

async fn consumed_up_to(pipe: &Pipe, position: Offset) -> Consumed {
    Consumed {
        group: pipe.group.clone(),
        membership: pipe.member.reader.membership().await.expect("a membership"),
        positions: vec![(at(&pipe.topics[0], 0), position.into())],
    }
}

/// Waits until the group stands there.
async fn until_position(log: &dyn Log, pipe: &Pipe, position: Offset) {
    wait::until("the position", WITHIN, async || {
        let found = group_position(log, &pipe.group, &at(&pipe.topics[0], 0)).await;
        (found == Some(position)).then_some(())
    })
    .await;
}

/// Consume, append to two topics, commit: all of it is there.
pub async fn a_commit_covers_all_topics_and_the_consumed_positions(world: &dyn LogWorld) {
    let log = world.log().await;
    let pipe = pipe(&*log).await;
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    let mut output = records(&pipe.topics[1], 0, &["x"]);
    output.extend(records(&pipe.topics[2], 0, &["y"]));
    transactor.append(output).await.expect("append");
    assert_eq!(group_position(&*log, &pipe.group, &at(&pipe.topics[0], 0)).await, None);
    transactor.commit(Some(consumed(&pipe).await)).await.expect("commit");
    assert_eq!(committed_values(&*log, &pipe.topics[1]).await, ["x"]);
    assert_eq!(committed_values(&*log, &pipe.topics[2]).await, ["y"]);
    wait::until("the consumed position", WITHIN, async || {
        group_position(&*log, &pipe.group, &at(&pipe.topics[0], 0)).await
    })
    .await;
    let position = group_position(&*log, &pipe.group, &at(&pipe.topics[0], 0)).await;
    assert_eq!(position, Some(pipe.member.seen[1].offset.next()));
    pipe.member.reader.close().await;
}

/// Consume, append to two topics, abort: none of it is there.
pub async fn an_abort_covers_all_topics_and_the_consumed_positions(world: &dyn LogWorld) {
    let log = world.log().await;
    let pipe = pipe(&*log).await;
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    let mut output = records(&pipe.topics[1], 0, &["x"]);
    output.extend(records(&pipe.topics[2], 0, &["y"]));
    transactor.append(output).await.expect("append");
    transactor.abort().await.expect("abort");
    assert_eq!(committed_values(&*log, &pipe.topics[1]).await, Vec::<String>::new());
    assert_eq!(committed_values(&*log, &pipe.topics[2]).await, Vec::<String>::new());
    assert_eq!(group_position(&*log, &pipe.group, &at(&pipe.topics[0], 0)).await, None);
    pipe.member.reader.close().await;
}

/// The older one cannot journal, so it cannot send (R4).
pub async fn a_newer_transactor_fences_the_appends_of_the_older(world: &dyn LogWorld) {
    let (log, other) = (world.log().await, world.log().await);
    let topic = new_topic(&*log, 1).await;
    let id = new_name("tx");
    let mut older = log.transactor(&id).await.expect("open a transactor");
    older.append(records(&topic, 0, &["mine"])).await.expect("append");
    older.commit(None).await.expect("commit");
    let mut newer = other.transactor(&id).await.expect("take over");
    let error = older.append(records(&topic, 0, &["zombie"])).await.expect_err("the older one is fenced");
    assert!(matches!(error, LogError::Fenced { .. }), "{error:?}");
    newer.append(records(&topic, 0, &["new"])).await.expect("append");
    newer.commit(None).await.expect("commit");
    assert_eq!(committed_values(&*log, &topic).await, ["mine", "new"]);
}

/// What it had appended is not committed.
pub async fn a_newer_transactor_fences_the_commit_of_the_older(world: &dyn LogWorld) {
    let (log, other) = (world.log().await, world.log().await);
    let topic = new_topic(&*log, 1).await;
    let id = new_name("tx");
    let mut older = log.transactor(&id).await.expect("open a transactor");
    older.append(records(&topic, 0, &["zombie"])).await.expect("append");
    let mut newer = other.transactor(&id).await.expect("take over");
    let error = older.commit(None).await.expect_err("the older one is fenced");
    assert!(matches!(error, LogError::Fenced { .. }), "{error:?}");
    newer.append(records(&topic, 0, &["new"])).await.expect("append");
    newer.commit(None).await.expect("commit");
    assert_eq!(committed_values(&*log, &topic).await, ["new"]);
}

/// Before the takeover returns: whoever reads the end afterwards meets no open data of the older.
pub async fn a_takeover_aborts_what_was_left_open(world: &dyn LogWorld) {
    let (log, other) = (world.log().await, world.log().await);
    let topic = new_topic(&*log, 1).await;
    let id = new_name("tx");
    let mut left = log.transactor(&id).await.expect("open a transactor");
    left.append(records(&topic, 0, &["left open"])).await.expect("append");
    drop(left);
    let newer = other.transactor(&id).await.expect("take over");
    // No transaction is open now, so that a record behind the aborted one is visible.
    assert_eq!(committed_values(&*other, &topic).await, Vec::<String>::new());
    drop(newer);
}

/// A worker's loop may end a batch without output.
pub async fn committing_or_aborting_nothing_is_harmless(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    transactor.abort().await.expect("abort nothing");
    transactor.commit(None).await.expect("commit nothing");
    transactor.append(Vec::new()).await.expect("append nothing");
    transactor.commit(None).await.expect("commit nothing");
    transactor.append(records(&topic, 0, &["one"])).await.expect("append");
    transactor.commit(None).await.expect("commit");
    transactor.abort().await.expect("abort nothing");
    assert_eq!(committed_values(&*log, &topic).await, ["one"]);
}

/// Input that leads to no output is still consumed exactly once.
pub async fn a_transaction_of_positions_alone_commits_them(world: &dyn LogWorld) {
    let log = world.log().await;
    let pipe = pipe(&*log).await;
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    transactor.commit(Some(consumed(&pipe).await)).await.expect("commit");
    let position =
        wait::until("the position", WITHIN, async || group_position(&*log, &pipe.group, &at(&pipe.topics[0], 0)).await)
            .await;
    assert_eq!(position, pipe.member.seen[1].offset.next());
    pipe.member.reader.close().await;
}

/// Positions outlive their topic. What tells whether one still means anything comes back with it, from a held transaction and from a later
/// one. The embedded log deletes no topics: there a position and its topic stand and fall with one file, and the landmark is kept all the same.
pub async fn a_landmark_stays_beside_its_position(world: &dyn LogWorld) {
    let log = world.log().await;
    let pipe = pipe(&*log).await;
    let partition = at(&pipe.topics[0], 0);
    let mark = |at: usize| Landmark { offset: pipe.member.seen[at].offset, written: pipe.member.seen[at].timestamp };
    let position = async |next: Offset| {
        wait::until("the position", WITHIN, async || {
            let positions = log.positions(&pipe.group, std::slice::from_ref(&partition)).await.expect("ask");
            positions[0].filter(|position| position.next == next)
        })
        .await
    };
    let consumed = async |next: Offset, landmark: Option<Landmark>| Consumed {
        positions: vec![(partition.clone(), Position { next, landmark })],
        ..consumed(&pipe).await
    };
    let (first, second) = (pipe.member.seen[0].offset.next(), pipe.member.seen[1].offset.next());
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    transactor.hold(consumed(first, Some(mark(0))).await).await.expect("held");
    transactor.append(records(&pipe.topics[1], 0, &["x"])).await.expect("append");
    transactor.commit(None).await.expect("commit");
    assert_eq!(position(first).await.landmark, Some(mark(0)));
    transactor.commit(Some(consumed(second, Some(mark(1))).await)).await.expect("commit");
    assert_eq!(position(second).await.landmark, Some(mark(1)));
    transactor.commit(Some(consumed(first, None).await)).await.expect("commit");
    assert_eq!(position(first).await.landmark, None, "of no topic that is known");
    pipe.member.reader.close().await;
}

/// One transactor serves for ever, several of them side by side in one partition.
pub async fn transactions_follow_one_another(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    let mut one = log.transactor(&new_name("tx")).await.expect("open a transactor");
    let mut two = log.transactor(&new_name("tx")).await.expect("open a transactor");
    let mut expected = Vec::new();
    for round in 0..10 {
        let (kept, dropped) = (format!("kept {round}"), format!("dropped {round}"));
        one.append(records(&topic, 0, &[&kept])).await.expect("append");
        two.append(records(&topic, 0, &[&dropped])).await.expect("append");
        one.commit(None).await.expect("commit");
        two.abort().await.expect("abort");
        expected.push(kept);
    }
    assert_eq!(committed_values(&*log, &topic).await, expected);
}

/// A partition that went to another member cannot be committed with the proof from before.
pub async fn a_stale_membership_cannot_commit(world: &dyn LogWorld) {
    let (log, other) = (world.log().await, world.log().await);
    let (topic, output) = (new_topic(&*log, 2).await, new_topic(&*log, 1).await);
    append(&*log, records(&topic, 0, &["a"])).await;
    append(&*log, records(&topic, 1, &["b"])).await;
    let group = new_name("group");
    let mut a = Member::join(&*log, &group, &topic, None).await;
    a.until_seen(2).await;
    let stale = a.reader.membership().await.expect("a membership");
    let mut b = Member::join(&*other, &group, &topic, None).await;
    both(&mut a, &mut b, "a partition of each member", |a, b| a.owned.len() == 1 && b.owned.len() == 1).await;
    let moved = b.owned[0].clone();
    let record = a.seen.iter().find(|record| record.source == moved).expect("it was read before it moved");
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    transactor.append(records(&output, 0, &["zombie"])).await.expect("append");
    let positions = vec![(moved.clone(), record.offset.next().into())];
    let consumed = Consumed { group: group.clone(), membership: stale, positions };
    let error = transactor.commit(Some(consumed)).await.expect_err("the membership is stale");
    assert!(matches!(error, LogError::Fenced { .. }), "{error:?}");
    transactor.abort().await.expect("abort after the refusal");
    assert_eq!(committed_values(&*log, &output).await, Vec::<String>::new());
    assert_eq!(group_position(&*other, &group, &moved).await, None);
    a.reader.close().await;
    b.reader.close().await;
}

/// Whoever is not the owner any more finds that out before it appends anything.
pub async fn a_stale_membership_cannot_hold(world: &dyn LogWorld) {
    let (log, other) = (world.log().await, world.log().await);
    let topic = new_topic(&*log, 2).await;
    append(&*log, records(&topic, 0, &["a"])).await;
    append(&*log, records(&topic, 1, &["b"])).await;
    let group = new_name("group");
    let mut a = Member::join(&*log, &group, &topic, None).await;
    a.until_seen(2).await;
    let stale = a.reader.membership().await.expect("a membership");
    let mut b = Member::join(&*other, &group, &topic, None).await;
    both(&mut a, &mut b, "a partition of each member", |a, b| a.owned.len() == 1 && b.owned.len() == 1).await;
    let moved = b.owned[0].clone();
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    let consumed = Consumed { group: group.clone(), membership: stale, positions: vec![(moved, Offset(0).into())] };
    let error = transactor.hold(consumed).await.expect_err("the membership is stale");
    assert!(matches!(error, LogError::Fenced { .. }), "{error:?}");
    a.reader.close().await;
    b.reader.close().await;
}

/// Whoever owns the partition next goes on only when the transaction that holds it can append nothing more (R4).
pub async fn positions_that_are_held_are_not_given_out(world: &dyn LogWorld) {
    let (log, other) = (world.log().await, world.log().await);
    let (topic, output) = (new_topic(&*log, 2).await, new_topic(&*log, 1).await);
    append(&*log, records(&topic, 0, &["a"])).await;
    append(&*log, records(&topic, 1, &["b"])).await;
    let group = new_name("group");
    let mut a = Member::join(&*log, &group, &topic, None).await;
    a.until_seen(2).await;
    let membership = a.reader.membership().await.expect("a membership");
    let positions: Vec<(_, Position)> =
        a.seen.iter().map(|record| (record.source.clone(), record.offset.next().into())).collect();
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    let consumed = Consumed { group: group.clone(), membership, positions: positions.clone() };
    transactor.hold(consumed).await.expect("its owner holds it");
    transactor.append(records(&output, 0, &["while it is held"])).await.expect("append");
    let mut b = Member::join(&*other, &group, &topic, None).await;
    both(&mut a, &mut b, "a partition of each member", |a, b| a.owned.len() == 1 && b.owned.len() == 1).await;
    let moved = b.owned[0].clone();

    let asked = tokio::time::timeout(SOON, group_position(&*other, &group, &moved)).await;
    if asked.is_ok() {
        let error = transactor.append(records(&output, 0, &["zombie"])).await.expect_err("its owner is fenced");
        assert!(matches!(error, LogError::Fenced { .. }), "{error:?}");
        assert_eq!(committed_values(&*log, &output).await, Vec::<String>::new());
    } else {
        transactor.append(records(&output, 0, &["still its owner"])).await.expect("append");
        transactor.commit(None).await.expect("commit");
        let position = wait::until("the position", WITHIN, async || group_position(&*other, &group, &moved).await);
        assert!(positions.contains(&(moved.clone(), position.await.into())));
        assert_eq!(committed_values(&*log, &output).await, ["while it is held", "still its owner"]);
    }
    a.reader.close().await;
    b.reader.close().await;
}

/// What is held is committed as it is, unless the commit brings something newer; an abort leaves nothing of it.
pub async fn a_commit_overtakes_what_is_held(world: &dyn LogWorld) {
    let log = world.log().await;
    let pipe = pipe(&*log).await;
    let (first, last) = (pipe.member.seen[0].offset, pipe.member.seen[1].offset.next());
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");

    transactor.hold(consumed_up_to(&pipe, first).await).await.expect("hold");
    transactor.commit(None).await.expect("commit");
    until_position(&*log, &pipe, first).await;

    transactor.hold(consumed_up_to(&pipe, first).await).await.expect("hold");
    transactor.commit(Some(consumed(&pipe).await)).await.expect("commit");
    until_position(&*log, &pipe, last).await;

    transactor.hold(consumed_up_to(&pipe, first).await).await.expect("hold");
    transactor.abort().await.expect("abort");
    until_position(&*log, &pipe, last).await;
    pipe.member.reader.close().await;
}

/// "Caught up" (R2) is measured against it.
pub async fn the_end_offset_of_committed_readers_stops_at_an_open_transaction(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 2).await;
    let (partition, other) = (at(&topic, 0), at(&topic, 1));
    assert_eq!(log.end_offset(&partition, Isolation::Committed).await.expect("ask"), Offset(0));
    let elsewhere = append(&*log, records(&topic, 1, &["elsewhere"])).await[0];
    let before = append(&*log, records(&topic, 0, &["before"])).await[0];
    let mut transactor = log.transactor(&new_name("tx")).await.expect("open a transactor");
    let open = transactor.append(records(&topic, 0, &["open"])).await.expect("append")[0].offset;
    let committed = log.end_offset(&partition, Isolation::Committed).await.expect("ask");
    assert!(before < committed && committed <= open, "{before:?} < {committed:?} <= {open:?}");
    let both = log.end_offsets(&[other, partition.clone()], Isolation::Committed).await.expect("ask");
    assert_eq!(both, [elsewhere.next(), committed], "many in one question");
    assert!(log.end_offset(&partition, Isolation::Uncommitted).await.expect("ask") > open);
    transactor.commit(None).await.expect("commit");
    wait::until("the end to move", WITHIN, async || {
        (log.end_offset(&partition, Isolation::Committed).await.expect("ask") > open).then_some(())
    })
    .await;
}

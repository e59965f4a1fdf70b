//! Positions, owners, values and marks.

use connector_ports::gate::{Change, GateError, View};
use connector_ports::log::{LogId, Offset};

use super::{FUTURE, GateWorld, apply, bytes, new_view, owner, put, schedule, value};

/// So that its owner reads the log from the beginning.
pub async fn an_empty_view_has_no_position(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let snapshot = gate.read(&view, &["key".to_owned()]).await.expect("read");
    assert_eq!((snapshot.applied, snapshot.answers), (None, vec![None]));
    assert_eq!(owner(&*gate, &view).await.applied, None);
    assert_eq!(gate.next_due(&view).await.expect("ask"), None);
}

/// A repeat of an apply whose answer got lost is a conflict that tells the position.
pub async fn apply_moves_the_view_from_the_expected_position_only(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    gate.apply(&view, epoch, None, Offset(10), vec![put("key", "one")]).await.expect("apply");
    let repeat = gate.apply(&view, epoch, None, Offset(10), vec![put("key", "one")]).await.expect_err("it was applied");
    assert!(matches!(&repeat, GateError::Conflict { view: of, actual: Some(Offset(10)) } if *of == view), "{repeat:?}");
    gate.apply(&view, epoch, Some(Offset(10)), Offset(17), vec![]).await.expect("apply nothing");
    let ahead = gate.apply(&view, epoch, Some(Offset(20)), Offset(21), vec![]).await.expect_err("a gap");
    assert!(matches!(ahead, GateError::Conflict { actual: Some(Offset(17)), .. }), "{ahead:?}");
    assert_eq!(gate.read(&view, &[]).await.expect("read").applied, Some(Offset(17)));
}

/// Neither on a conflict nor when fenced.
pub async fn a_refused_apply_changes_nothing(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let older = owner(&*gate, &view).await.epoch;
    let position = apply(&*gate, &view, older, vec![put("key", "kept"), schedule("timer", FUTURE)]).await;
    let changes = || {
        vec![
            put("key", "changed"),
            put("other", "new"),
            Change::Unschedule { key: "timer".to_owned() },
            Change::Mark { id: bytes("id"), digest: 1, until: FUTURE },
        ]
    };
    gate.apply(&view, older, None, position.next(), changes()).await.expect_err("the wrong position");
    let newer = owner(&*gate, &view).await.epoch;
    gate.apply(&view, older, Some(position), position.next(), changes()).await.expect_err("the older owner");
    let snapshot = gate.read(&view, &["key".to_owned(), "other".to_owned()]).await.expect("read");
    assert_eq!((snapshot.applied, snapshot.answers), (Some(position), vec![Some(bytes("kept")), None]));
    assert_eq!(gate.next_due(&view).await.expect("ask"), Some(FUTURE));
    assert_eq!(gate.recall(&view, &[bytes("id")]).await.expect("recall").answers, [None]);
    gate.apply(&view, newer, Some(position), position.next(), vec![]).await.expect("the newer owner goes on");
}

/// From the moment of the takeover.
pub async fn a_new_owner_fences_the_older(world: &dyn GateWorld) {
    let (gate, other) = (world.gate().await, world.gate().await);
    let view = new_view();
    let older = owner(&*gate, &view).await.epoch;
    let position = apply(&*gate, &view, older, vec![]).await;
    let newer = owner(&*other, &view).await.epoch;
    assert!(newer > older);
    let error = gate.apply(&view, older, Some(position), position.next(), vec![]).await.expect_err("fenced");
    assert!(matches!(&error, GateError::Fenced { view: of } if *of == view), "{error:?}");
}

/// It seeks there (R1).
pub async fn a_new_owner_finds_the_position_of_the_older(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let older = owner(&*gate, &view).await;
    gate.apply(&view, older.epoch, None, Offset(42), vec![put("key", "value")]).await.expect("apply");
    assert_eq!(owner(&*world.gate().await, &view).await.applied, Some(Offset(42)));
    assert_eq!(value(&*gate, &view, "key").await, Some(bytes("value")));
}

/// Any bytes; the last one counts; deleted ones are gone; the answers stand in the order of the questions.
pub async fn values_come_back_as_they_were_put(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    let blob = bytes::Bytes::from((0..=255).collect::<Vec<u8>>());
    let changes = vec![
        put("a", "first"),
        put("a", "last"),
        Change::Put { key: "blob".to_owned(), value: blob.clone() },
        put("empty", ""),
        put("gone", "soon"),
        Change::Delete { key: "gone".to_owned() },
        Change::Delete { key: "never".to_owned() },
    ];
    apply(&*gate, &view, epoch, changes).await;
    let keys = ["never", "empty", "blob", "gone", "a", "a"].map(ToOwned::to_owned);
    let answers = gate.read(&view, &keys).await.expect("read").answers;
    let last = Some(bytes("last"));
    assert_eq!(answers, [None, Some(bytes("")), Some(blob), None, last.clone(), last]);
    apply(&*gate, &view, epoch, vec![Change::Delete { key: "a".to_owned() }]).await;
    assert_eq!(value(&*gate, &view, "a").await, None);
}

/// A reader never sees values of one position with another position.
pub async fn an_apply_is_one_step_with_its_position(world: &dyn GateWorld) {
    let (gate, other) = (world.gate().await, world.gate().await);
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    let writing = async {
        let mut applied = None;
        for n in 1..=200 {
            let text = n.to_string();
            let changes = vec![put("x", &text), put("y", &text)];
            gate.apply(&view, epoch, applied, Offset(n), changes).await.expect("apply");
            applied = Some(Offset(n));
            tokio::task::yield_now().await;
        }
    };
    let reading = async {
        let keys = ["x".to_owned(), "y".to_owned()];
        loop {
            let snapshot = other.read(&view, &keys).await.expect("read");
            let expected = snapshot.applied.map(|applied| bytes(&applied.0.to_string()));
            assert_eq!(snapshot.answers, [expected.clone(), expected]);
            if snapshot.applied == Some(Offset(200)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writing, reading);
}

/// Ids are any bytes up to 32; digests use all 64 bits; a mark is kept until its time.
pub async fn marks_come_back_with_their_digest(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    let long = bytes::Bytes::from((100..132).collect::<Vec<u8>>());
    let mark = |id: &bytes::Bytes, digest| Change::Mark { id: id.clone(), digest, until: FUTURE };
    let position = apply(
        &*gate,
        &view,
        epoch,
        vec![mark(&long, u64::MAX), mark(&bytes("short"), 0), mark(&bytes("sign"), 1 << 63)],
    )
    .await;
    let ids = [bytes("unknown"), bytes("short"), long, bytes("sign")];
    let snapshot = gate.recall(&view, &ids).await.expect("recall");
    assert_eq!(snapshot.applied, Some(position));
    assert_eq!(snapshot.answers, [None, Some(0), Some(u64::MAX), Some(1 << 63)]);
}

/// Neither other partitions nor other projections of the partition.
pub async fn views_do_not_see_each_other(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let one = new_view();
    let others = [View::new("contract-other", one.partition), View::new("contract", one.partition ^ 1)];
    let epoch = owner(&*gate, &one).await.epoch;
    for view in &others {
        owner(&*gate, view).await;
    }
    let changes =
        vec![put("key", "mine"), schedule("timer", FUTURE), Change::Mark { id: bytes("id"), digest: 7, until: FUTURE }];
    apply(&*gate, &one, epoch, changes).await;
    for view in &others {
        assert_eq!(gate.read(view, &["key".to_owned()]).await.expect("read").answers, [None]);
        assert_eq!(gate.recall(view, &[bytes("id")]).await.expect("recall").answers, [None]);
        assert_eq!(gate.next_due(view).await.expect("ask"), None);
        assert_eq!(gate.read(view, &[]).await.expect("read").applied, None);
    }
}

/// Its owner learns at its next call that it must read the log again.
pub async fn a_wiped_view_says_so(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    let position = apply(&*gate, &view, epoch, vec![put("key", "lost"), schedule("timer", FUTURE)]).await;
    world.wipe(&view).await;
    let snapshot = gate.read(&view, &["key".to_owned()]).await.expect("read");
    assert_eq!((snapshot.applied, snapshot.answers), (None, vec![None]));
    assert_eq!(gate.next_due(&view).await.expect("ask"), None);
    let error = gate.apply(&view, epoch, Some(position), position.next(), vec![]).await.expect_err("it is empty");
    assert!(matches!(error, GateError::Conflict { actual: None, .. }), "{error:?}");
}

/// Epochs grow over a loss of data.
pub async fn an_owner_after_a_wipe_is_newer(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    owner(&*gate, &view).await;
    owner(&*gate, &view).await;
    let before = owner(&*gate, &view).await.epoch;
    world.wipe(&view).await;
    let after = owner(&*gate, &view).await;
    assert!(after.epoch > before, "{:?} > {before:?}", after.epoch);
    assert_eq!(after.applied, None);
    let error = gate.apply(&view, before, None, Offset(1), vec![]).await.expect_err("an owner from before the loss");
    assert!(matches!(error, GateError::Fenced { .. }), "{error:?}");
}

/// Its owner builds it again, and nothing of the old is left.
pub async fn a_discarded_view_is_empty_and_keeps_its_owner(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let older = owner(&*gate, &view).await.epoch;
    let epoch = owner(&*gate, &view).await.epoch;
    let position = apply(&*gate, &view, epoch, vec![put("key", "old"), schedule("timer", FUTURE)]).await;
    gate.discard(&view).await.expect("discard");
    assert_eq!(gate.read(&view, &["key".to_owned()]).await.expect("read").answers, [None]);
    let error = gate.apply(&view, epoch, Some(position), position.next(), vec![]).await.expect_err("it is empty");
    assert!(matches!(error, GateError::Conflict { actual: None, .. }), "{error:?}");
    let error = gate.apply(&view, older, None, position, vec![]).await.expect_err("the older owner");
    assert!(matches!(error, GateError::Fenced { .. }), "{error:?}");
    gate.apply(&view, epoch, None, position, vec![put("other", "new")]).await.expect("apply");
    let read = gate.read(&view, &["key".to_owned(), "other".to_owned()]).await.expect("read");
    assert_eq!((read.applied, read.answers), (Some(position), vec![None, Some(bytes("new"))]));
    assert_eq!(gate.next_due(&view).await.expect("ask"), None);
}

/// As long as it has its position, and to everybody.
pub async fn a_view_says_which_log_it_projects(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    let log = LogId::from("this one");
    let position = apply(&*gate, &view, epoch, vec![put("key", "value")]).await;
    assert_eq!(gate.read(&view, &[]).await.expect("read").log, None);
    let projects = vec![put("other", "value"), Change::Projects { log: log.clone() }, put("third", "value")];
    gate.apply(&view, epoch, Some(position), position.next(), projects).await.expect("apply");
    let other = world.gate().await;
    assert_eq!(other.read(&view, &["third".to_owned()]).await.expect("read").log.as_ref(), Some(&log));
    assert_eq!(other.recall(&view, &[bytes("id")]).await.expect("recall").log.as_ref(), Some(&log));
    assert_eq!(other.timers(&view, &["timer".to_owned()]).await.expect("timers").log.as_ref(), Some(&log));
    let ownership = owner(&*gate, &view).await;
    assert_eq!((ownership.applied, ownership.log.as_ref()), (Some(position.next()), Some(&log)));
    let epoch = ownership.epoch;
    gate.apply(&view, epoch, Some(position.next()), Offset(90), vec![put("key", "next")]).await.expect("apply");
    assert_eq!(gate.read(&view, &[]).await.expect("read").log.as_ref(), Some(&log), "it stays");
    gate.discard(&view).await.expect("discard");
    assert_eq!(gate.read(&view, &[]).await.expect("read").log, None);
    gate.apply(&view, epoch, None, Offset(3), vec![put("key", "value")]).await.expect("apply");
    assert_eq!(gate.read(&view, &[]).await.expect("read").log, None, "another log, perhaps");
}

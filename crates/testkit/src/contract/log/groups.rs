//! Consumer groups.

use std::collections::BTreeSet;

use super::{LogWorld, Member, append, at, both, new_name, new_topic, records, values};

/// Of all its topics.
pub async fn a_lone_member_gets_every_partition(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 4).await;
    for partition in 0..4 {
        append(&*log, records(&topic, partition, &[&partition.to_string()])).await;
    }
    let mut member = Member::join(&*log, &new_name("group"), &topic, None).await;
    member.until_seen(4).await;
    assert_eq!(member.owned, (0..4).map(|partition| at(&topic, partition)).collect::<Vec<_>>());
    let seen: BTreeSet<String> = values(&member.seen).into_iter().collect();
    assert_eq!(seen, ["0", "1", "2", "3"].map(ToOwned::to_owned).into());
    member.reader.close().await;
}

/// The first owner is asked, finishes, releases; only then the partition has a new owner. Never two at once.
pub async fn a_second_member_gets_its_share_after_release(world: &dyn LogWorld) {
    let (log, other) = (world.log().await, world.log().await);
    let topic = new_topic(&*log, 4).await;
    let group = new_name("group");
    let mut a = Member::join(&*log, &group, &topic, None).await;
    a.until_owns(4).await;
    a.releases = false;
    let mut b = Member::join(&*other, &group, &topic, None).await;
    both(&mut a, &mut b, "partitions asked back", |a, _| !a.revoked.is_empty()).await;
    let asked: BTreeSet<_> = a.revoked.iter().cloned().collect();
    assert!(asked.len() < 4, "a member that stays keeps something");
    for _ in 0..10 {
        a.step().await;
        b.step().await;
        assert!(b.owned.iter().all(|partition| !asked.contains(partition)), "two owners at once");
    }
    a.release().await;
    a.releases = true;
    both(&mut a, &mut b, "the share of the second member", |a, b| a.owned.len() + b.owned.len() == 4).await;
    let union: BTreeSet<_> = a.owned.iter().chain(&b.owned).collect();
    assert_eq!(union.len(), 4, "each partition has one owner");
    assert!(!a.owned.is_empty() && !b.owned.is_empty());
    for partition in 0..4 {
        append(&*log, records(&topic, partition, &["new"])).await;
    }
    both(&mut a, &mut b, "records of both shares", |a, b| a.seen.len() + b.seen.len() == 4).await;
    assert_eq!((a.seen.len(), b.seen.len()), (a.owned.len(), b.owned.len()));
    a.reader.close().await;
    b.reader.close().await;
}

/// At once, without waiting for a session to end.
pub async fn partitions_of_a_closed_member_go_to_the_other(world: &dyn LogWorld) {
    let (log, other) = (world.log().await, world.log().await);
    let topic = new_topic(&*log, 4).await;
    let group = new_name("group");
    let mut a = Member::join(&*log, &group, &topic, None).await;
    a.until_owns(4).await;
    let mut b = Member::join(&*other, &group, &topic, None).await;
    both(&mut a, &mut b, "a share of each member", |a, b| a.owned.len() == 2 && b.owned.len() == 2).await;
    a.reader.close().await;
    b.until_owns(4).await;
    b.reader.close().await;
}

/// Also when it was paused in its former time here: that ended with it.
pub async fn a_partition_that_comes_back_is_read(world: &dyn LogWorld) {
    let (log, other) = (world.log().await, world.log().await);
    let topic = new_topic(&*log, 4).await;
    let group = new_name("group");
    let mut a = Member::join(&*log, &group, &topic, None).await;
    a.until_owns(4).await;
    a.reader.pause(&a.owned.clone()).await.expect("pause");
    let mut b = Member::join(&*other, &group, &topic, None).await;
    both(&mut a, &mut b, "a share of each member", |a, b| a.owned.len() == 2 && b.owned.len() == 2).await;
    let kept = a.owned.clone();
    b.reader.close().await;
    a.until_owns(4).await;
    for partition in 0..4 {
        append(&*log, records(&topic, partition, &["new"])).await;
    }
    a.until_seen(2).await;
    assert!(a.seen.iter().all(|record| !kept.contains(&record.source)), "what stayed is paused still");
    a.reader.resume(&kept).await.expect("resume");
    a.until_seen(4).await;
    a.reader.close().await;
}

/// Neither before it nor behind it.
pub async fn the_next_owner_starts_at_the_committed_position(world: &dyn LogWorld) {
    let (log, other) = (world.log().await, world.log().await);
    let topic = new_topic(&*log, 1).await;
    append(&*log, records(&topic, 0, &["0", "1", "2", "3", "4"])).await;
    let group = new_name("group");
    let partition = at(&topic, 0);
    let mut a = Member::join(&*log, &group, &topic, None).await;
    a.until_seen(5).await;
    let position = a.seen[2].offset.next();
    a.reader.commit(&[(partition.clone(), position)]).await.expect("commit");
    assert_eq!(log.committed(&group, std::slice::from_ref(&partition)).await.expect("ask"), [Some(position)]);
    a.reader.close().await;
    let mut b = Member::join(&*other, &group, &topic, None).await;
    b.until_seen(2).await;
    assert_eq!(values(&b.seen), ["3", "4"]);
    b.reader.close().await;
}

/// Each has its own members and positions.
pub async fn groups_do_not_see_each_other(world: &dyn LogWorld) {
    let log = world.log().await;
    let topic = new_topic(&*log, 1).await;
    append(&*log, records(&topic, 0, &["0", "1"])).await;
    let partition = at(&topic, 0);
    let (one, two) = (new_name("group"), new_name("group"));
    let mut a = Member::join(&*log, &one, &topic, None).await;
    a.until_seen(2).await;
    a.reader.commit(&[(partition.clone(), a.seen[1].offset.next())]).await.expect("commit");
    let mut b = Member::join(&*log, &two, &topic, None).await;
    b.until_seen(2).await;
    assert_eq!(values(&b.seen), ["0", "1"]);
    assert_eq!(log.committed(&two, std::slice::from_ref(&partition)).await.expect("ask"), [None]);
    a.reader.close().await;
    b.reader.close().await;
}

/// A restart of a named member moves nothing.
pub async fn a_static_member_gets_its_partitions_back(world: &dyn LogWorld) {
    let (log, other) = (world.log().await, world.log().await);
    let topic = new_topic(&*log, 4).await;
    let group = new_name("group");
    let mut a = Member::join(&*log, &group, &topic, Some("a")).await;
    a.until_owns(4).await;
    let mut b = Member::join(&*other, &group, &topic, Some("b")).await;
    both(&mut a, &mut b, "a share of each member", |a, b| a.owned.len() == 2 && b.owned.len() == 2).await;
    let (share, rest) = (a.owned.clone(), b.owned.clone());
    a.reader.close().await;
    let again = world.log().await;
    let mut a = Member::join(&*again, &group, &topic, Some("a")).await;
    both(&mut a, &mut b, "the share of the restarted member", |a, _| a.owned.len() == 2).await;
    assert_eq!((&a.owned, &b.owned), (&share, &rest));
    a.reader.close().await;
    b.reader.close().await;
}

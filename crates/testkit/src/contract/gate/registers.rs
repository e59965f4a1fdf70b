//! Registers: ids that are given out once over all partitions.

use std::time::Duration;

use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_ports::gate::{Register, Reservation};
use uuid::Uuid;

use super::GateWorld;

const PARTITIONS: u32 = 2;

/// A register nobody else uses. Names are few and live as long as the process.
fn register() -> Register {
    Register { name: format!("contract-{}", Uuid::now_v7().simple()).leak(), teller: "one", partitions: PARTITIONS }
}

fn id(name: &str, digest: u64) -> Reservation {
    // Far enough: gates have clocks of their own.
    let until = Timestamp(4_000_000_000_000) + Duration::from_secs(1);
    Reservation { id: Bytes::from(name.to_owned()), digest, until }
}

/// And whoever asks again hears the same, whether it was they or not.
pub async fn a_reserved_id_stands_for_what_the_first_asked_for(world: &dyn GateWorld) {
    let (gate, other, register) = (world.gate().await, world.gate().await, register());
    for partition in 0..PARTITIONS {
        gate.tell(&register, partition, &[], true).await.expect("tell");
    }
    let reserved = gate.reserve(&register, &[id("a", 1), id("b", 2), id("a", 3)]).await.expect("reserve");
    assert_eq!(reserved, Some(vec![1, 2, 1]));
    assert_eq!(
        other.reserve(&register, &[id("b", 9), id("c", u64::MAX)]).await.expect("reserve"),
        Some(vec![2, u64::MAX])
    );
    assert_eq!(gate.reserve(&register, &[]).await.expect("reserve"), Some(vec![]));
    let elsewhere = self::register();
    gate.tell(&elsewhere, 0, &[], true).await.expect("tell");
    gate.tell(&elsewhere, 1, &[], true).await.expect("tell");
    assert_eq!(gate.reserve(&elsewhere, &[id("a", 7)]).await.expect("reserve"), Some(vec![7]), "registers are apart");
}

/// Nothing is given out that may stand in a partition nobody has told of.
pub async fn a_register_answers_when_every_partition_was_told(world: &dyn GateWorld) {
    let (gate, register) = (world.gate().await, register());
    assert!(gate.told(&register).await.expect("told").is_empty());
    assert_eq!(gate.reserve(&register, &[id("a", 1)]).await.expect("reserve"), None);
    gate.tell(&register, 1, &[id("known", 4)], true).await.expect("tell");
    assert_eq!(
        gate.reserve(&register, &[id("known", 1), id("too", 1)]).await.expect("reserve"),
        None,
        "one is not told"
    );
    // Whoever asked too early has nothing: the log stands.
    gate.tell(&register, 0, &[id("a", 5), id("too", 6)], false).await.expect("tell");
    assert_eq!(gate.reserve(&register, &[id("known", 1)]).await.expect("reserve"), None, "one is not told completely");
    assert_eq!(gate.told(&register).await.expect("told"), [1].into());
    gate.tell(&register, 0, &[], true).await.expect("tell");
    let asked = [id("known", 1), id("too", 1), id("a", 1), id("new", 1)];
    assert_eq!(gate.reserve(&register, &asked).await.expect("reserve"), Some(vec![4, 6, 5, 1]));
    // Another teller of the same ids has told nothing yet, and knows them when it has.
    let other = Register { teller: "another", ..register };
    assert_eq!(gate.reserve(&other, &[id("too", 1)]).await.expect("reserve"), None);
    gate.tell(&other, 0, &[], true).await.expect("tell");
    gate.tell(&other, 1, &[], true).await.expect("tell");
    assert_eq!(gate.reserve(&other, &[id("too", 1)]).await.expect("reserve"), Some(vec![6]));
}

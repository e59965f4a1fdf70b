//! What callers learn when a write fails.

use std::sync::Arc;

use bytes::Bytes;
use connector_ports::Log;
use connector_ports::clock::SystemClock;
use connector_ports::log::{Append, Isolation, LogError, Offset, TopicPartition, TopicSpec};

use crate::store::Store;

fn record(size: usize) -> Append {
    let value = Some(Bytes::from(vec![b'x'; size]));
    Append { topic: "t".into(), partition: Some(0), key: None, value, headers: vec![] }
}

#[tokio::test]
async fn a_full_disk_fails_the_write_and_what_was_open_with_it_and_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = crate::open(&folder.path().join("log.sqlite"), Arc::new(SystemClock)).expect("open");
    let spec = TopicSpec { name: "t".into(), partitions: 1, replication: 1, settings: vec![] };
    log.create_topic(&spec).await.expect("create");
    let partition = TopicPartition::new("t", 0);
    let mut transactor = log.transactor("tx").await.expect("a transactor");
    transactor.append(vec![record(10)]).await.expect("append");
    log.store().submit(1, |writer| writer.set_room(None)).await.expect("fill the disk");
    let appender = log.appender().await.expect("an appender");
    let error = appender.append(vec![record(500_000)]).await.expect_err("there is no room");
    assert!(matches!(error, LogError::Unavailable { .. }), "{error:?}");
    // Its records went down with the failed commit: to say "committed" would be a lie.
    let error = transactor.commit(None).await.expect_err("it was lost");
    assert!(matches!(error, LogError::Aborted { .. }), "{error:?}");
    transactor.abort().await.expect("abort");
    log.store().submit(1, |writer| writer.set_room(Some(1_000_000))).await.expect("make room");
    transactor.append(vec![record(10)]).await.expect("append");
    transactor.commit(None).await.expect("commit");
    appender.append(vec![record(500_000)]).await.expect("append");
    let end = log.end_offset(&partition, Isolation::Committed).await.expect("ask");
    assert_eq!(end, Offset(3), "the aborted one, the committed one, the plain one");
    let found = log.store().fetch(&partition, Offset(0), 10, Isolation::Committed).await.expect("fetch");
    assert_eq!(found.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [Offset(1), Offset(2)]);
}

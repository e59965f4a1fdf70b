//! One Kafka transaction as every worker makes it: the positions of its group, a hundred records, the commit.

use std::time::{Duration, Instant};

use connector_contracts::{Topic, Topics};
use connector_ports::Log;
use connector_ports::log::{Consumed, Offset, Polled, Reader, Start, Subscription, TopicPartition};

use crate::embedded::{BATCH, batch};
use crate::report::{Outcome, Report, millis, percentile};

const GROUP: &str = "bench";

/// Topics must exist. Writes into those given, which nobody else should read.
pub(crate) async fn measure(report: &mut Report, log: &dyn Log, topics: &Topics) -> Outcome<()> {
    eprintln!("measuring Kafka transactions");
    let subscription = Subscription {
        group: GROUP.to_owned(),
        topics: vec![topics.name(Topic::Webhooks).into()],
        member: None,
        start: Start::End,
    };
    let mut reader = log.subscribe(subscription).await?;
    let outcome = transactions(report, log, topics, reader.as_mut()).await;
    reader.close().await;
    outcome
}

async fn transactions(report: &mut Report, log: &dyn Log, topics: &Topics, reader: &mut dyn Reader) -> Outcome<()> {
    let partition = assigned(reader).await?;
    let batch = batch(&topics.name(Topic::ConversationEvents).into())?;
    let mut transactor = log.transactor("bench.0").await?;
    let period = report.period(Duration::from_secs(5));
    let (warm, start) = (period / 5, Instant::now());
    let (mut times, mut holds, mut commits, mut position) = (Vec::new(), Vec::new(), Vec::new(), 0);
    while start.elapsed() < warm + period {
        position += 1;
        let consumed = Consumed {
            group: GROUP.to_owned(),
            membership: reader.membership().await?,
            positions: vec![(partition.clone(), Offset(position))],
        };
        let records = batch.clone();
        let begin = Instant::now();
        transactor.hold(consumed).await?;
        let held = Instant::now();
        transactor.append(records).await?;
        let appended = Instant::now();
        transactor.commit(None).await?;
        if start.elapsed() > warm {
            times.push(millis(begin.elapsed()));
            holds.push(millis(held - begin));
            commits.push(millis(appended.elapsed()));
        }
        // Keeps the membership; there is nothing to read.
        reader.poll(Duration::ZERO, 1).await?;
    }
    let p99 = percentile(&times, 0.99);
    let (hold, commit) = (percentile(&holds, 0.5), percentile(&commits, 0.5));
    let note = format!(
        "offsets, {BATCH} records and their acks, commit, one after the other, {} times; offsets alone {hold:.1}, the commit alone {commit:.1}; p99 {p99:.1}; broker's data in memory",
        times.len()
    );
    report.add("kafka_txn_ms_p50", percentile(&times, 0.5), "ms", note);
    Ok(())
}

async fn assigned(reader: &mut dyn Reader) -> Outcome<TopicPartition> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if let Polled::Assigned(partitions) = reader.poll(Duration::from_millis(100), 1).await? {
            return partitions.into_iter().next().ok_or_else(|| "the group gave no partition".into());
        }
    }
    Err("the group gave no partition in time".into())
}

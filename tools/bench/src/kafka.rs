//! One Kafka transaction as every worker makes it: the positions of its group, a hundred records, the commit.

use std::time::{Duration, Instant};

use connector_contracts::{Topic, Topics};
use connector_ports::Log;
use connector_ports::log::{Append, Consumed, Offset, Polled, Reader, Start, Subscription, TopicPartition, Transactor};

use crate::embedded::{BATCH, batch};
use crate::report::{Outcome, Report, millis, percentile};

/// Topics must exist. Writes into those given, which nobody else should read.
pub(crate) async fn measure(report: &mut Report, log: &dyn Log, topics: &Topics) -> Outcome<()> {
    eprintln!("measuring Kafka transactions");
    let mut turns = Turns::open(log, topics, "bench").await?;
    let period = report.period(Duration::from_secs(5));
    let (warm, start) = (period / 5, Instant::now());
    let (mut times, mut holds, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    while start.elapsed() < warm + period {
        let turn = turns.turn().await?;
        if start.elapsed() > warm {
            times.push(millis(turn.hold + turn.append + turn.commit));
            holds.push(millis(turn.hold));
            commits.push(millis(turn.commit));
        }
    }
    turns.close().await;
    let p99 = percentile(&times, 0.99);
    let (hold, commit) = (percentile(&holds, 0.5), percentile(&commits, 0.5));
    let note = format!(
        "offsets, {BATCH} records over 6 partitions and their acks, commit, one after the other, {} times; offsets alone {hold:.1}, the commit alone {commit:.1}; p99 {p99:.1}; broker warm, its data in memory",
        times.len()
    );
    report.add("kafka_txn_ms_p50", percentile(&times, 0.5), "ms", note);
    Ok(())
}

/// A hundred records of the conversation log of these topics.
pub(crate) fn batch_of(topics: &Topics) -> Outcome<Vec<Append>> {
    batch(&topics.name(Topic::ConversationEvents).into())
}

/// Transactions of one member of a group.
pub(crate) struct Turns {
    group: String,
    reader: Box<dyn Reader>,
    transactor: Box<dyn Transactor>,
    partition: TopicPartition,
    records: Vec<Append>,
    position: i64,
}

/// How long the parts of a transaction took.
pub(crate) struct Turn {
    hold: Duration,
    append: Duration,
    commit: Duration,
}

impl Turns {
    pub(crate) async fn open(log: &dyn Log, topics: &Topics, group: &str) -> Outcome<Self> {
        let subscription = Subscription {
            group: group.to_owned(),
            topics: vec![topics.name(Topic::Webhooks).into()],
            member: None,
            start: Start::End,
        };
        let mut reader = log.subscribe(subscription).await?;
        let partition = assigned(reader.as_mut()).await?;
        let transactor = log.transactor(&format!("{group}.0")).await?;
        Ok(Self { group: group.to_owned(), reader, transactor, partition, records: batch_of(topics)?, position: 0 })
    }

    pub(crate) async fn turn(&mut self) -> Outcome<Turn> {
        self.position += 1;
        let consumed = Consumed {
            group: self.group.clone(),
            membership: self.reader.membership().await?,
            positions: vec![(self.partition.clone(), Offset(self.position).into())],
        };
        let records = self.records.clone();
        let begin = Instant::now();
        self.transactor.hold(consumed).await?;
        let held = Instant::now();
        self.transactor.append(records).await?;
        let appended = Instant::now();
        self.transactor.commit(None).await?;
        let committed = Instant::now();
        // Keeps the membership; what there is to read is nobody's business here.
        self.reader.poll(Duration::ZERO, 1).await?;
        Ok(Turn { hold: held - begin, append: appended - held, commit: committed - appended })
    }

    pub(crate) async fn close(self) {
        self.reader.close().await;
    }
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

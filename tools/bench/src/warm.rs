//! A broker that was just started compiles its hot code for a minute, on the cores that everything else here needs too. Real ones have
//! been up for weeks: what is measured begins after this.

use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_contracts::{Topic, Topics};
use connector_kafka::KafkaLog;
use connector_ports::Log;
use connector_ports::log::{Append, Isolation, Start, TopicPartition};
use connector_runtime::provision;
use tokio::task::JoinSet;

use crate::fleet::PARTITIONS;
use crate::kafka::{Turns, batch_of};
use crate::report::{Outcome, Report};

/// Enough for what every load has in common. What only one load makes hot is warmed up with that load, by who measures it.
const WARM: Duration = Duration::from_secs(20);

/// Does what workers and receivers do, as fast as it goes, in topics of its own.
pub(crate) async fn broker(report: &Report, kafka: &str) -> Outcome<()> {
    let until = Instant::now() + report.period(WARM);
    eprintln!("warming the broker up");
    let log = Arc::new(KafkaLog::new(connector_kafka::KafkaConfig::plaintext(kafka)));
    let topics = Topics::new("warm");
    provision(log.as_ref(), &topics).await?;
    let mut tasks: JoinSet<Result<(), String>> = JoinSet::new();
    let of_worker = Arc::clone(&log);
    let worker_topics = topics.clone();
    tasks.spawn(async move {
        let work = async {
            let mut turns = Turns::open(of_worker.as_ref(), &worker_topics, "warm").await?;
            while Instant::now() < until {
                turns.turn().await?;
            }
            turns.close().await;
            Outcome::Ok(())
        };
        work.await.map_err(|error| error.to_string())
    });
    for _ in 0..4 {
        let (log, records) = (Arc::clone(&log), batch_of(&topics)?);
        tasks.spawn(async move { append(log.as_ref(), records, until).await.map_err(|error| error.to_string()) });
    }
    for topic in [Topic::Webhooks, Topic::ConversationEvents] {
        let (log, name) = (Arc::clone(&log), topics.name(topic));
        tasks.spawn(async move { read(log.as_ref(), &name, until).await.map_err(|error| error.to_string()) });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// The two topics that are written and read here.
pub(crate) async fn provision(log: &dyn Log, topics: &Topics) -> Outcome<()> {
    let used = [Topic::Webhooks, Topic::ConversationEvents].map(|topic| topics.name(topic));
    let mut specs = provision::specs(topics, PARTITIONS, 1);
    specs.retain(|spec| used.iter().any(|name| name == spec.name.as_str()));
    provision::apply(log, &specs).await?;
    Ok(())
}

/// One record at a time, as a webhook is answered.
async fn append(log: &dyn Log, records: Vec<Append>, until: Instant) -> Outcome<()> {
    let appender = log.appender().await?;
    for record in records.into_iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        appender.append(vec![record]).await?;
    }
    Ok(())
}

async fn read(log: &dyn Log, topic: &str, until: Instant) -> Outcome<()> {
    let all = (0..PARTITIONS).map(|number| (TopicPartition::new(topic, number), Start::Beginning)).collect();
    let mut reader = log.assign(all, Isolation::Committed).await?;
    while Instant::now() < until {
        reader.poll(Duration::from_millis(50), 1_000).await?;
    }
    reader.close().await;
    Ok(())
}

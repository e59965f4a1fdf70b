//! `connectorctl journal`: records of the journal of attempts that cannot be read, and the operator's word on them.

use std::collections::BTreeSet;
use std::io::Write;

use clap::{Args, Subcommand};
use connector_contracts::headers::{DISPATCH_OFFSET, JOURNAL_ACCEPTS, rfc3339};
use connector_contracts::{ContractError, Topic, decode};
use connector_domain::command::JournalEntry;
use connector_ports::Log;
use connector_ports::log::{Append, Isolation, Offset, Record, Start, TopicName, TopicPartition};
use connector_runtime::replay::replay;

use crate::{Failed, open};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Print the records that cannot be read, and whether they are accepted. Exit code 1: some are not, and nothing is sent from their
    /// partitions once these get another owner. Content is not printed.
    List {
        /// Only this partition.
        #[arg(long)]
        partition: Option<u32>,
    },
    /// Accept a record that cannot be read as an attempt without a conclusion. The message it was about becomes unconfirmed; when the record
    /// does not say which, the first message of each conversation it may be about. Dispatch goes on within seconds.
    Accept(Place),
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The partition of the journal.
    #[arg(long)]
    partition: u32,
    /// The offset of the record.
    #[arg(long)]
    offset: i64,
}

/// A record that cannot be read.
struct Unreadable {
    source: TopicPartition,
    offset: Offset,
    line: String,
}

pub(crate) async fn run(action: &Action, out: &mut (dyn Write + Send)) -> Result<bool, Failed> {
    let name: TopicName = open::topics()?.name(Topic::DispatchJournal).into();
    let log = open::log()?;
    act(log.as_ref(), &name, action, out).await
}

async fn act(log: &dyn Log, name: &TopicName, action: &Action, out: &mut (dyn Write + Send)) -> Result<bool, Failed> {
    let Some(facts) = log.topic(name).await? else { return Err(Failed::Usage(format!("there is no topic {name}"))) };
    let asked = match action {
        Action::List { partition } => *partition,
        Action::Accept(place) => Some(place.partition),
    };
    if asked.is_some_and(|partition| partition >= facts.partitions) {
        return Err(Failed::Usage(format!("{name} has {} partitions, from 0", facts.partitions)));
    }
    let partitions = asked.map_or(0..facts.partitions, |partition| partition..partition + 1);
    let (mut found, mut accepted) = (Vec::new(), BTreeSet::new());
    for partition in partitions {
        look(log, TopicPartition::new(name.clone(), partition), &mut found, &mut accepted).await?;
    }
    let is_accepted = |one: &Unreadable| accepted.contains(&(one.source.partition, one.offset));
    match action {
        Action::List { .. } => {
            for one in &found {
                let word = if is_accepted(one) { "accepted" } else { "not accepted" };
                writeln!(out, "{}  {word}", one.line)?;
            }
            let open = found.iter().filter(|one| !is_accepted(one)).count();
            writeln!(out, "{} records cannot be read, {open} of them are not accepted", found.len())?;
            Ok(open == 0)
        }
        Action::Accept(Place { partition, offset }) => {
            let Some(one) = found.iter().find(|one| one.offset.0 == *offset) else {
                writeln!(out, "{name}[{partition}] has no record at offset {offset} that cannot be read")?;
                return Ok(false);
            };
            if !is_accepted(one) {
                log.appender().await?.append(vec![word(&one.source, one.offset)]).await?;
            }
            writeln!(out, "{}  accepted as an attempt without a conclusion", one.line)?;
            Ok(true)
        }
    }
}

/// The operator's word, as dispatch reads it.
fn word(source: &TopicPartition, offset: Offset) -> Append {
    Append {
        topic: source.topic.clone(),
        partition: Some(source.partition),
        key: None,
        value: None,
        headers: vec![(JOURNAL_ACCEPTS.into(), Some(offset.0.to_string().into()))],
    }
}

async fn look(
    log: &dyn Log,
    source: TopicPartition,
    found: &mut Vec<Unreadable>,
    accepted: &mut BTreeSet<(u32, Offset)>,
) -> Result<(), Failed> {
    // As dispatch reads it: what stands in aborted transactions counts.
    replay(log, &source, Start::Beginning, Isolation::Uncommitted, |record| {
        let Some(value) = record.value.as_deref() else {
            let word = record.header(JOURNAL_ACCEPTS).and_then(|offset| std::str::from_utf8(offset).ok());
            accepted.extend(word.and_then(|offset| offset.parse().ok()).map(|at| (source.partition, Offset(at))));
            return Ok(());
        };
        if let Err(error) = decode::<JournalEntry>(value) {
            found.push(Unreadable { source: source.clone(), offset: record.offset, line: line(&record, &error) });
        }
        Ok(())
    })
    .await?;
    Ok(())
}

fn line(record: &Record, error: &ContractError) -> String {
    let message = record.header(DISPATCH_OFFSET).map_or("?".into(), |offset| String::from_utf8_lossy(offset));
    let Record { source, offset, timestamp, .. } = record;
    format!("{}  {source} offset {}  dispatch offset {message}  {error}", rfc3339(*timestamp), offset.0)
}

#[cfg(test)]
mod tests {
    use connector_ports::log::TopicSpec;
    use connector_simulated::SimWorld;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_record_that_cannot_be_read_is_listed_until_it_is_accepted() {
        let world = SimWorld::new(1);
        let (log, name) = (world.calm_log(), TopicName::from("journal"));
        let spec = TopicSpec { name: name.clone(), partitions: 2, replication: 1, settings: Vec::new() };
        log.create_topic(&spec).await.expect("a topic");
        let nonsense =
            Append { value: Some("nonsense".into()), ..word(&TopicPartition::new(name.clone(), 1), Offset(0)) };
        log.appender().await.expect("an appender").append(vec![nonsense]).await.expect("written");
        let run = async |action| {
            let mut out = Vec::new();
            let done = act(log.as_ref(), &name, &action, &mut out).await;
            (done.ok(), String::from_utf8(out).expect("text"))
        };
        let (done, text) = run(Action::List { partition: None }).await;
        assert!(done == Some(false) && text.contains("journal[1] offset 0") && text.contains("not accepted"), "{text}");
        assert_eq!(run(Action::Accept(Place { partition: 1, offset: 7 })).await.0, Some(false));
        assert_eq!(run(Action::Accept(Place { partition: 2, offset: 0 })).await.0, None);
        assert_eq!(run(Action::Accept(Place { partition: 1, offset: 0 })).await.0, Some(true));
        let (done, text) = run(Action::List { partition: Some(1) }).await;
        assert!(done == Some(true) && !text.contains("nonsense"), "{text}");
    }
}

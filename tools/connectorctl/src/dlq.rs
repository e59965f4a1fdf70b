//! `connectorctl dlq`: what could not be handled, as facts. Content stays where it is.

use std::io::Write;

use clap::Subcommand;
use connector_contracts::Topic;
use connector_contracts::headers::{dlq, rfc3339};
use connector_ports::log::Record;

use crate::{Failed, open};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Print where each dead letter of a topic came from and why it is one.
    List {
        /// The topic, with or without prefix and `.dlq`.
        topic: String,
    },
}

pub(crate) async fn run(Action::List { topic }: &Action, out: &mut (dyn Write + Send)) -> Result<(), Failed> {
    let topics = open::topics()?;
    let named = Topic::parse(topic, &topics.prefix).or_else(|| Topic::parse(topic, ""));
    let Some(named) = named else {
        let known: Vec<_> = Topic::ALL.into_iter().map(Topic::base_name).collect();
        return Err(Failed::Usage(format!("no such topic; expected one of {}", known.join(", "))));
    };
    let log = open::log()?;
    let name = topics.dlq(named).into();
    let mut count = 0_u64;
    open::each_record(log.as_ref(), &name, |record| {
        count += 1;
        Ok(writeln!(out, "{}", line(record))?)
    })
    .await?;
    writeln!(out, "{count} dead letters in {name}")?;
    Ok(())
}

fn line(record: &Record) -> String {
    let header = |name| record.header(name).map_or("?".into(), |value| String::from_utf8_lossy(value));
    let bytes = record.value.as_ref().map_or(0, |value| value.len());
    let size = match record.header(dlq::OMITTED) {
        Some(omitted) => format!("left out: {} bytes", String::from_utf8_lossy(omitted)),
        None => format!("{bytes} bytes"),
    };
    format!(
        "{}  {}[{}] offset {}  {}: {}  ({}, {size})",
        rfc3339(record.timestamp),
        header(dlq::ORIGINAL_TOPIC),
        header(dlq::ORIGINAL_PARTITION),
        header(dlq::ORIGINAL_OFFSET),
        header(dlq::REASON),
        header(dlq::DETAIL),
        header(dlq::SERVICE),
    )
}

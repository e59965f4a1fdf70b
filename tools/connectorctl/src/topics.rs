//! `connectorctl topics`: the declaration of all topics, and what the broker has of it.

use std::io::Write;

use clap::{Args, Subcommand};
use connector_contracts::Topics;
use connector_ports::Log;
use connector_runtime::provision::{self, Checked, Deviation, Finding};

use crate::{Failed, open};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Create what is missing and check the rest.
    Apply(Sizes),
    /// Check everything and change nothing.
    Check(Sizes),
    /// Print the declaration. Needs no broker.
    List,
}

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    /// Partitions of every topic. For ever: the key decides the partition.
    #[arg(long, env = "PARTITIONS", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Copies of each partition. Production: 3.
    #[arg(long, env = "REPLICATION", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    replication: u16,
}

pub(crate) async fn run(action: &Action, out: &mut (dyn Write + Send)) -> Result<bool, Failed> {
    let topics = open::topics()?;
    match action {
        Action::List => list(&topics, out),
        Action::Apply(sizes) => verify(open::log()?.as_ref(), &topics, sizes, true, out).await,
        Action::Check(sizes) => verify(open::log()?.as_ref(), &topics, sizes, false, out).await,
    }
}

fn list(topics: &Topics, out: &mut (dyn Write + Send)) -> Result<bool, Failed> {
    for topic in topics.listing() {
        let retention = match topic.retention_ms {
            -1 => "for ever".to_owned(),
            millis => format!("{} days", millis / 86_400_000),
        };
        writeln!(out, "{:<44} {:<8} {retention:<9} key: {}", topic.name, topic.cleanup_policy, topic.key)?;
    }
    Ok(true)
}

async fn verify(
    log: &dyn Log,
    topics: &Topics,
    sizes: &Sizes,
    create: bool,
    out: &mut (dyn Write + Send),
) -> Result<bool, Failed> {
    let specs = provision::specs(topics, sizes.partitions, sizes.replication);
    let checked = if create { provision::apply(log, &specs).await? } else { provision::check(log, &specs).await? };
    for topic in &checked {
        let found = match &topic.finding {
            Finding::Right => "is right".to_owned(),
            Finding::Differs(deviations) => {
                let told = |deviation: &Deviation| match deviation.dangerous {
                    true => deviation.to_string().to_uppercase(),
                    false => deviation.to_string(),
                };
                deviations.iter().map(told).collect::<Vec<_>>().join("; ")
            }
            Finding::Missing => "IS MISSING".to_owned(),
            Finding::Created => "created".to_owned(),
            Finding::WrongPartitions { found, wanted } => format!(
                "HAS {found} PARTITIONS INSTEAD OF {wanted}: keys would move to other partitions, so this is never changed"
            ),
        };
        writeln!(out, "{:<44} {found}", topic.name)?;
    }
    let fine = checked.iter().all(Checked::usable);
    if !fine {
        writeln!(out, "the topics are not as declared; nothing was changed that exists")?;
    }
    Ok(fine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_ports::clock::SystemClock;
    use std::sync::Arc;

    async fn said(log: &dyn Log, partitions: u32, create: bool) -> (bool, String) {
        let mut out = Vec::new();
        let sizes = Sizes { partitions, replication: 1 };
        let fine = verify(log, &Topics::new("t"), &sizes, create, &mut out).await.unwrap();
        (fine, String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn missing_topics_are_created_once_and_a_wrong_partition_count_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let log = connector_embedded::open(&folder.path().join("log"), Arc::new(SystemClock)).unwrap();
        assert!(!said(&log, 3, false).await.0, "nothing is there yet");
        assert!(said(&log, 3, true).await.1.contains("created"));
        let (fine, text) = said(&log, 3, true).await;
        assert!(fine && !text.contains("created"), "{text}");

        let (fine, text) = said(&log, 4, true).await;
        assert!(!fine && text.contains("HAS 3 PARTITIONS INSTEAD OF 4"), "{text}");
        assert!(said(&log, 3, false).await.0, "what was refused is as it was");
    }
}

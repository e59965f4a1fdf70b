//! `connectorctl log`: events of the log as lines.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use connector_contracts::{Topic, Topics, decode_event};
use connector_domain::event::Recorded;
use connector_domain::ids::CommandId;
use connector_ports::Log;
use connector_ports::log::{Isolation, Polled, Start, TopicPartition};
use connector_ports::partition::partition_for;

use crate::open::Silence;
use crate::{Failed, open, show};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this conversation (or other stream): its partition alone is read.
    #[arg(long)]
    conversation: Option<String>,
    /// Only what one command led to.
    #[arg(long)]
    command: Option<String>,
    /// Only this organization.
    #[arg(long)]
    organization: Option<String>,
    /// Stay, and print what comes.
    #[arg(long)]
    follow: bool,
}

struct Filter {
    stream: Option<String>,
    command: Option<CommandId>,
    organization: Option<String>,
}

/// Whether this is the id of a stream: a phone number, or a word, is none, and would find nothing.
fn is_stream_id(id: &str) -> bool {
    id.rsplit_once('-').is_some_and(|(key, hash)| {
        !key.is_empty() && hash.len() == 32 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

impl Filter {
    fn from(options: &Options) -> Result<Self, Failed> {
        let command = options.command.as_deref().map(|id| id.parse::<CommandId>()).transpose();
        let command = command.map_err(|_| Failed::Usage("--command: expected a UUID".to_owned()))?;
        if options.conversation.as_deref().is_some_and(|id| !is_stream_id(id)) {
            let expected = "--conversation: expected an id as the log has it, a key id, a dash and 32 hex digits";
            return Err(Failed::Usage(expected.to_owned()));
        }
        Ok(Self { stream: options.conversation.clone(), command, organization: options.organization.clone() })
    }

    /// Whether something is looked for.
    const fn is_narrow(&self) -> bool {
        self.stream.is_some() || self.command.is_some() || self.organization.is_some()
    }

    fn takes(&self, recorded: &Recorded) -> bool {
        let envelope = &recorded.envelope;
        self.stream.as_deref().is_none_or(|stream| envelope.stream_id.as_str() == stream)
            && self.command.is_none_or(|command| envelope.command_id == Some(command))
            && self.organization.as_deref().is_none_or(|organization| envelope.organization_id.as_str() == organization)
    }
}

pub(crate) async fn run(options: &Options, out: &mut (dyn Write + Send)) -> Result<(), Failed> {
    let filter = Filter::from(options)?;
    print(open::log()?.as_ref(), &open::topics()?, &filter, options.follow, out).await
}

/// Prints what is there, oldest first, and then, if asked, what comes. Order within a stream is that of the log; between
/// partitions it is by the time of recording.
async fn print(
    log: &dyn Log,
    topics: &Topics,
    filter: &Filter,
    follow: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), Failed> {
    let topic = topics.name(Topic::ConversationEvents).as_str().into();
    let Some(facts) = log.topic(&topic).await? else {
        return Err(Failed::NotFound(format!("there is no topic {topic}")));
    };
    let partitions: Vec<u32> = match &filter.stream {
        Some(stream) => vec![partition_for(stream.as_bytes(), facts.partitions)],
        None => (0..facts.partitions).collect(),
    };
    let mut behind: BTreeSet<u32> = partitions.iter().copied().collect();
    let starts =
        partitions.iter().map(|partition| (TopicPartition::new(topic.clone(), *partition), Start::Beginning)).collect();
    let mut reader = log.assign(starts, Isolation::Committed).await?;
    let (mut found, mut printed) = (Vec::<Recorded>::new(), 0_u64);
    let mut silence = Silence::default();
    while follow || !behind.is_empty() {
        let polled = reader.poll(Duration::from_millis(500), 1000).await?;
        match if behind.is_empty() { polled } else { silence.heard(polled)? } {
            Polled::Records(records) => {
                for record in records {
                    match record.value.as_deref().map(decode_event) {
                        Some(Ok(recorded)) if filter.takes(&recorded) => found.push(recorded),
                        Some(Err(error)) => writeln!(out, "{} offset {}: {error}", record.source, record.offset.0)?,
                        _ => {}
                    }
                }
            }
            Polled::CaughtUp(source, _) => {
                behind.remove(&source.partition);
            }
            _ => {}
        }
        if behind.is_empty() {
            // Stable: events of one stream that were recorded in the same millisecond keep their order.
            found.sort_by_key(|recorded| recorded.envelope.recorded_at);
            for recorded in found.drain(..) {
                printed += 1;
                writeln!(out, "{}", show::line(&recorded))?;
            }
            out.flush()?;
        }
    }
    reader.close().await;
    if printed == 0 && filter.is_narrow() {
        return Err(Failed::NotFound("the log has no such event".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use connector_contracts::{encode_event, event_headers};
    use connector_domain::event::{Envelope, TimeSource, WhatsAppDisabled};
    use connector_domain::ids::EventId;
    use connector_domain::time::Timestamp;
    use connector_ports::clock::SystemClock;
    use connector_ports::log::Append;
    use connector_runtime::provision;
    use std::sync::Arc;

    fn append(topics: &Topics, organization: &str, stream: &str, at: i64) -> Append {
        let envelope = Envelope {
            event_id: EventId::derived(stream),
            event_type: "WhatsAppDisabled".to_owned(),
            schema_version: 1,
            organization_id: organization.into(),
            stream_id: stream.into(),
            cause_id: "c".to_owned(),
            command_id: None,
            occurred_at: Timestamp(at),
            time_source: TimeSource::Connector,
            recorded_at: Timestamp(at),
            producer: "p".to_owned(),
            traceparent: None,
        };
        let recorded = Recorded { envelope, event: WhatsAppDisabled { user_id: "ann".into() }.into() };
        Append {
            topic: topics.name(Topic::ConversationEvents).into(),
            partition: None,
            key: Some(Bytes::from(stream.to_owned())),
            value: Some(encode_event(&recorded).unwrap().into()),
            headers: event_headers(&recorded),
        }
    }

    #[tokio::test]
    async fn a_conversation_is_printed_alone_and_everything_in_the_order_of_time() {
        let folder = tempfile::tempdir().unwrap();
        let log = connector_embedded::open(&folder.path().join("log"), Arc::new(SystemClock)).unwrap();
        let topics = Topics::new("");
        provision::apply(&log, &provision::specs(&topics, 3, 1)).await.unwrap();
        let records = [("a", "s-1", 3), ("b", "s-2", 1), ("a", "s-3", 2)];
        let records = records.iter().map(|(o, s, at)| append(&topics, o, s, *at)).collect();
        log.appender().await.unwrap().append(records).await.unwrap();

        let lines = async |stream: Option<&str>, organization: Option<&str>| {
            let filter = Filter {
                stream: stream.map(str::to_owned),
                command: None,
                organization: organization.map(str::to_owned),
            };
            let mut out = Vec::new();
            print(&log, &topics, &filter, false, &mut out).await.unwrap();
            let text = String::from_utf8(out).unwrap();
            text.lines().map(|line| line.split("  ").nth(1).unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(lines(None, None).await, ["s-2", "s-3", "s-1"]);
        assert_eq!(lines(Some("s-2"), None).await, ["s-2"]);
        assert_eq!(lines(None, Some("a")).await, ["s-3", "s-1"]);
        let nobody = Filter { stream: None, command: Some(CommandId::derived("never")), organization: None };
        let none = print(&log, &topics, &nobody, false, &mut Vec::new()).await;
        assert!(matches!(none, Err(Failed::NotFound(_))), "{none:?}");
        for (id, is) in
            [("k1-0123456789abcdef0123456789abcdef", true), ("491701234567", false), ("k1-c", false), ("", false)]
        {
            assert_eq!(is_stream_id(id), is, "{id}");
        }
    }
}

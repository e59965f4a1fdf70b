//! Reads the log along, and compares what Redis says of conversations with the fold of the log up to the position at which Redis says it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_contracts::{Topic, Topics, decode_event};
use connector_domain::conversation::Conversation;
use connector_domain::event::Recorded;
use connector_domain::ids::StreamId;
use connector_domain::time::Timestamp;
use connector_kafka::{KafkaConfig, KafkaLog};
use connector_ports::gate::{Claim, GateError, Snapshot, View};
use connector_ports::log::{Isolation, Offset, Polled, Reader, Start, TopicPartition};
use connector_ports::{Gate, Log as _, Retry};
use connector_redis::{RedisConfig, RedisGate};
use connector_runtime::platform::views;
use connector_runtime::situation::{conversation_key, load};

use super::fold::{Counts, Entry, Windows};
use crate::Outcome;
use crate::fleet::PARTITIONS;

/// How long the log may take to show what is known to stand in it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at Redis.
const LOOK: Duration = Duration::from_millis(10);
/// Records of one poll.
const BATCH: usize = 5_000;
/// The timer of a conversation stands under its stream id, behind the number of its organization. Here is only one.
const ORGANIZATION: &str = "0.";

/// What a view says, compared with the log.
enum Said {
    /// It is away, or does not stand where it has to.
    Behind,
    /// Of these conversations it does not say what the log says.
    Otherwise(Vec<StreamId>),
}

/// The log up to some position, once.
struct Fold<T> {
    state: T,
    /// Everything below is folded.
    at: Offset,
    /// Read, and not folded yet.
    waiting: VecDeque<(Offset, Arc<Entry>)>,
}

impl<T> Fold<T> {
    const fn new(state: T) -> Self {
        Self { state, at: Offset(0), waiting: VecDeque::new() }
    }

    fn up_to(&mut self, position: Offset, evolve: impl Fn(&mut T, &Entry)) {
        while let Some((_, entry)) = self.waiting.pop_front_if(|(offset, _)| *offset < position) {
            evolve(&mut self.state, &entry);
        }
        self.at = self.at.max(position);
    }
}

/// One partition of the log.
struct Tape {
    /// Everything below was read.
    read: Offset,
    windows: Fold<Windows>,
    conversations: Fold<HashMap<StreamId, Conversation>>,
}

impl Tape {
    fn windows_up_to(&mut self, position: Offset) {
        self.windows.up_to(position, Windows::evolve);
    }

    fn conversations_up_to(&mut self, position: Offset) {
        self.conversations.up_to(position, |conversations, entry| {
            let Recorded { envelope, event } = &entry.recorded;
            let conversation = conversations.entry(envelope.stream_id.clone()).or_default();
            if Conversation::is_moved_by(event) && conversation.is_entered_by(&envelope.organization_id, event) {
                conversation.evolve(event, envelope.event_id, envelope.occurred_at);
            }
        });
    }
}

/// Both projections.
const NAMES: [&str; 2] = [views::WINDOWS, views::CONVERSATIONS];

/// Compares Redis with the log.
pub(super) struct Witness {
    gate: RedisGate,
    log: KafkaLog,
    reader: Box<dyn Reader>,
    tapes: Vec<Tape>,
    /// How long before the end of a window it is warned.
    lead: Duration,
}

impl Witness {
    /// Of these servers. `slack` and `lead`: see [`Windows`] and the setting of the fleet.
    pub(super) async fn new(
        (kafka, redis): &(String, String),
        cluster: bool,
        slack: Duration,
        lead: Duration,
    ) -> Outcome<Self> {
        let log = KafkaLog::new(KafkaConfig::plaintext(kafka));
        let config = RedisConfig { cluster, timeout: Duration::from_secs(1), ..RedisConfig::at(redis) };
        let all = (0..PARTITIONS).map(|partition| (source(partition), Start::Beginning)).collect();
        let reader = log.assign(all, Isolation::Committed).await?;
        let tape = |_| Tape {
            read: Offset(0),
            windows: Fold::new(Windows::new(slack)),
            conversations: Fold::new(HashMap::new()),
        };
        let tapes = (0..PARTITIONS).map(tape).collect();
        Ok(Self { gate: RedisGate::new(&config)?, log, reader, tapes, lead })
    }

    /// Reads what is there, without waiting for more.
    async fn read_on(&mut self, wait: Duration) -> Outcome<()> {
        match self.reader.poll(wait, BATCH).await? {
            Polled::Records(records) => {
                for record in records {
                    let recorded = decode_event(record.value.as_deref().unwrap_or_default())?;
                    let entry = Arc::new(Entry { recorded, written: record.timestamp });
                    let tape = &mut self.tapes[record.source.partition as usize];
                    tape.read = record.offset.next();
                    tape.windows.waiting.push_back((record.offset, Arc::clone(&entry)));
                    tape.conversations.waiting.push_back((record.offset, entry));
                }
            }
            Polled::CaughtUp(source, position) => {
                let tape = &mut self.tapes[source.partition as usize];
                tape.read = tape.read.max(position);
            }
            _ => {}
        }
        Ok(())
    }

    async fn read_up_to(&mut self, partition: u32, position: Offset) -> Outcome<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.tapes[partition as usize].read < position {
            if Instant::now() > deadline {
                return Err(format!("partition {partition} of the log cannot be read up to {position:?}").into());
            }
            self.read_on(LOOK).await?;
        }
        Ok(())
    }

    /// Folds the log as it is now.
    pub(super) async fn catch_up(&mut self) -> Outcome<()> {
        for (partition, end) in (0..).zip(self.ends().await?) {
            self.read_up_to(partition, end).await?;
            self.tapes[partition as usize].windows_up_to(end);
            self.tapes[partition as usize].conversations_up_to(end);
        }
        Ok(())
    }

    /// The end of the log as it is now, by partition.
    async fn ends(&self) -> Outcome<Vec<Offset>> {
        let mut ends = Vec::new();
        for partition in 0..PARTITIONS {
            ends.push(self.log.end_offset(&source(partition), Isolation::Committed).await?);
        }
        Ok(ends)
    }

    /// How many windows are open, by what was folded so far.
    pub(super) fn still_open(&self) -> usize {
        self.tapes.iter().map(|tape| tape.windows.state.still_open()).sum()
    }

    /// What the log shows; everything should be over and folded.
    pub(super) fn judge(&self, acknowledged: &HashMap<connector_domain::ids::EventId, Timestamp>) -> Counts {
        let mut counts = Counts::default();
        self.tapes.iter().for_each(|tape| tape.windows.state.judge(acknowledged, &mut counts));
        counts
    }

    /// How long each view takes from `since` on until it has applied the log as it is now, and is its fold for these conversations
    /// (by partition).
    pub(super) async fn healed(
        &mut self,
        since: Instant,
        conversations: &[Vec<StreamId>],
        patience: Duration,
    ) -> Outcome<Vec<(&'static str, Duration)>> {
        let ends = self.ends().await?;
        let mut open: Vec<_> = (0..PARTITIONS).flat_map(|partition| NAMES.map(|name| (name, partition))).collect();
        let (mut times, mut last) = (Vec::new(), String::new());
        while !open.is_empty() {
            let mut rest = Vec::new();
            for (name, partition) in open {
                let index = partition as usize;
                // Whoever has to wait for the log has looked at Redis before.
                let mut looked = Instant::now();
                match self.said(name, partition, ends[index], &conversations[index], &mut looked).await? {
                    Said::Otherwise(streams) if streams.is_empty() => times.push((name, looked - since)),
                    said => {
                        last = match said {
                            Said::Behind => format!("{name}/{partition} does not stand at the end of the log"),
                            Said::Otherwise(streams) => {
                                format!("{name}/{partition} is not the fold of the log for {streams:?}")
                            }
                        };
                        rest.push((name, partition));
                    }
                }
            }
            open = rest;
            if !open.is_empty() && since.elapsed() > patience {
                return Err(format!("not healed within {patience:?}: {last}").into());
            }
            self.read_on(LOOK).await?;
        }
        Ok(times)
    }

    /// The conversations for which a view is not the fold of the log. Waits until the views have applied the log as it is now.
    pub(super) async fn drift(&mut self, conversations: &[Vec<StreamId>]) -> Outcome<Vec<(&'static str, StreamId)>> {
        let (ends, mut drifted) = (self.ends().await?, Vec::new());
        let deadline = Instant::now() + PATIENCE;
        for (partition, name) in (0..PARTITIONS).flat_map(|partition| NAMES.map(|name| (partition, name))) {
            let index = partition as usize;
            loop {
                let mut looked = Instant::now();
                match self.said(name, partition, ends[index], &conversations[index], &mut looked).await? {
                    Said::Otherwise(streams) => {
                        drifted.extend(streams.into_iter().map(|stream| (name, stream)));
                        break;
                    }
                    Said::Behind if Instant::now() > deadline => {
                        return Err(format!("{name}/{partition} does not come to the end of the log").into());
                    }
                    Said::Behind => self.read_on(LOOK).await?,
                }
            }
        }
        Ok(drifted)
    }

    /// The keys of all timers of windows. The timers' owners have ended.
    pub(super) async fn timers_left(&self) -> Outcome<Vec<String>> {
        let mut left = Vec::new();
        for partition in 0..PARTITIONS {
            let view = View::new(views::WINDOWS, partition);
            let epoch = self.gate.acquire(&view).await?.epoch;
            let now = Timestamp::from_secs(4_000_000_000);
            let all = Claim { since: Timestamp::EPOCH, now, lease: Duration::from_secs(1), limit: 100_000 };
            left.extend(self.gate.claim_due(&view, epoch, all).await?.into_iter().map(|due| due.key));
        }
        Ok(left)
    }

    /// What a view says of conversations of its partition, once it stands at `from` or later. Notes when it was asked.
    async fn said(
        &mut self,
        name: &'static str,
        partition: u32,
        from: Offset,
        streams: &[StreamId],
        looked: &mut Instant,
    ) -> Outcome<Said> {
        let view = View::new(name, partition);
        let differ = if name == views::WINDOWS {
            let keys: Vec<_> = streams.iter().map(|stream| format!("{ORGANIZATION}{stream}")).collect();
            let Some((at, timers)) = standing(self.gate.timers(&view, &keys).await, from)? else {
                return Ok(Said::Behind);
            };
            *looked = Instant::now();
            self.read_up_to(partition, at).await?;
            let (tape, lead) = (&mut self.tapes[partition as usize], self.lead);
            if tape.windows.at > at {
                return Ok(Said::Behind);
            }
            tape.windows_up_to(at);
            let ends = timers.into_iter().map(|timer| {
                // The tag says whether it is the warning or the end that comes next.
                timer.map(|timer| timer.at + if timer.tag == 0 { Duration::ZERO } else { lead })
            });
            let differs = |(stream, end)| (end != tape.windows.state.open(stream)).then(|| stream.clone());
            streams.iter().zip(ends).filter_map(differs).collect()
        } else {
            let keys: Vec<_> = streams.iter().map(conversation_key).collect();
            let Some((at, stored)) = standing(self.gate.read(&view, &keys).await, from)? else {
                return Ok(Said::Behind);
            };
            *looked = Instant::now();
            self.read_up_to(partition, at).await?;
            let tape = &mut self.tapes[partition as usize];
            if tape.conversations.at > at {
                return Ok(Said::Behind);
            }
            tape.conversations_up_to(at);
            let differs = |(stream, stored): (&StreamId, Option<_>)| {
                let stored: Option<Conversation> = load(stored.as_ref()).ok();
                let folded = tape.conversations.state.get(stream).cloned().unwrap_or_default();
                (stored != Some(folded)).then(|| stream.clone())
            };
            streams.iter().zip(stored).filter_map(differs).collect()
        };
        Ok(Said::Otherwise(differ))
    }
}

fn source(partition: u32) -> TopicPartition {
    TopicPartition::new(Topics::default().name(Topic::ConversationEvents), partition)
}

/// What was answered, and the position of the view, if that is `from` or a later one.
fn standing<T>(answer: Result<Snapshot<T>, GateError>, from: Offset) -> Outcome<Option<(Offset, Vec<Option<T>>)>> {
    match answer {
        Ok(Snapshot { applied: Some(at), answers, .. }) if at >= from => Ok(Some((at, answers))),
        Ok(_) => Ok(None),
        Err(error) if error.retry() == Retry::Never => Err(error.into()),
        Err(_) => Ok(None),
    }
}

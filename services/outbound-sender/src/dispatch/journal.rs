//! What the journal of a partition says about each command: facts about attempts, true whether or not their transaction was
//! committed (R4).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use connector_contracts::{Topic, decode, headers};
use connector_domain::command::{Dispatch, JournalEntry, JournalKind};
use connector_domain::ids::{AttemptId, CommandId, StreamId, Wamid};
use connector_domain::time::Timestamp;
use connector_ports::log::{Append, Header, Isolation, Offset, Record, Start, TopicPartition};
use connector_runtime::emit::Emitter;
use connector_runtime::failure::Failure;
use connector_runtime::platform::Platform;
use connector_runtime::replay::replay;

/// A command, in its conversation: ids of commands are chosen outside, and belong to their organization.
pub(super) type Name = (CommandId, u64);

/// The name of a command in a conversation.
pub(super) fn name(command: CommandId, conversation: &StreamId) -> Name {
    let mut hasher = DefaultHasher::new();
    conversation.as_str().hash(&mut hasher);
    (command, hasher.finish())
}

/// How far clocks of brokers and workers may be apart: the journal is read from this long before the first unfinished message.
const SLACK: Duration = Duration::from_secs(600);

/// Headers of a conclusion, for what the schema has no field for: enough to write its event again.
mod header {
    pub(super) const REASON: &str = "reason";
    pub(super) const ERROR_CODE: &str = "error-code";
}

/// The reason of a repetition that may be a second message.
const AMBIGUOUS: &str = "ambiguous";

/// One POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) id: AttemptId,
    /// Counts the attempts of a command, from 1.
    pub(super) no: i32,
    pub(super) at: Timestamp,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// WhatsApp took the message.
    Sent(Wamid),
    /// The message is not sent any more.
    Failed { reason: String, code: Option<i64> },
    /// Nobody knows; the text says what was observed.
    Unconfirmed(String),
    /// Not this time: tried again. `ambiguous`: WhatsApp's refusal may hide a success, and the command takes that risk.
    Retry { ambiguous: bool },
}

impl Ending {
    const fn word(&self) -> &'static str {
        match self {
            Self::Sent(_) => "sent",
            Self::Failed { .. } => "failed",
            Self::Unconfirmed(_) => "unconfirmed",
            Self::Retry { .. } => "retry",
        }
    }

    fn headers(&self) -> Vec<Header> {
        let text = |name: &'static str, value: String| (name.into(), Some(Bytes::from(value)));
        match self {
            Self::Sent(_) | Self::Retry { ambiguous: false } => Vec::new(),
            Self::Retry { ambiguous: true } => vec![text(header::REASON, AMBIGUOUS.to_owned())],
            Self::Unconfirmed(observed) => vec![text(header::REASON, observed.clone())],
            Self::Failed { reason, code } => {
                let code = code.map(|code| text(header::ERROR_CODE, code.to_string()));
                [text(header::REASON, reason.clone())].into_iter().chain(code).collect()
            }
        }
    }

    fn read(record: &Record, entry: &JournalEntry) -> Option<Self> {
        let text = |name| record.header(name).and_then(|value| String::from_utf8(value.to_vec()).ok());
        Some(match entry.conclusion.as_deref()? {
            "sent" => Self::Sent(entry.wamid.clone()?),
            "failed" => Self::Failed {
                reason: text(header::REASON).unwrap_or_else(|| "permanent".to_owned()),
                code: text(header::ERROR_CODE).and_then(|code| code.parse().ok()),
            },
            "unconfirmed" => Self::Unconfirmed(text(header::REASON).unwrap_or_else(|| "crash".to_owned())),
            "retry" => Self::Retry { ambiguous: text(header::REASON).is_some_and(|reason| reason == AMBIGUOUS) },
            _ => return None,
        })
    }
}

/// What is known about a command that has no committed end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// The newest attempt.
    pub(super) last: Option<Attempt>,
    /// That attempt may have reached WhatsApp and is not concluded, or is unconfirmed.
    pub(super) pending: bool,
    /// How that attempt ended, and whether the event about it stands in the log.
    pub(super) ending: Option<(Ending, bool)>,
    /// How many attempts may have reached WhatsApp without its saying so.
    pub(super) ambiguous: u32,
    /// The log says that the command is unconfirmed.
    pub(super) told: bool,
    /// It is counted among the unconfirmed messages that are waited for.
    pub(super) counted: bool,
    /// It was read from the journal and not made by this owner.
    pub(super) loaded: bool,
    /// How often it had to wait after an attempt.
    pub(super) tries: u32,
    /// Since when nothing but ourselves keeps it from leaving.
    pub(super) free_at: Option<Timestamp>,
}

impl Fate {
    /// The newest attempt, if its answer is still missing.
    pub(super) fn pending(&self) -> Option<Attempt> {
        self.last.filter(|_| self.pending)
    }

    pub(super) fn attempted(&mut self, attempt: Attempt) {
        self.last = Some(attempt);
        self.pending = true;
        self.ending = None;
    }

    /// The newest attempt is over and leaves the command as if it had not been made.
    pub(super) fn withdrawn(&mut self, id: AttemptId) {
        if self.last.is_some_and(|last| last.id == id) {
            self.pending = false;
            self.ending = None;
        }
    }

    pub(super) fn concluded(&mut self, id: AttemptId, ending: Ending, stands: bool) {
        if self.last.is_none_or(|last| last.id != id) {
            return;
        }
        match ending {
            Ending::Retry { ambiguous } => {
                if ambiguous && self.pending {
                    self.ambiguous += 1;
                }
                self.withdrawn(id);
            }
            ending => {
                if matches!(ending, Ending::Unconfirmed(_)) {
                    let again = matches!(self.ending, Some((Ending::Unconfirmed(_), _)));
                    self.ambiguous += u32::from(!again);
                    self.told |= stands;
                }
                self.ending = Some((ending, stands));
            }
        }
    }
}

/// A record of the journal that this build cannot read. Somebody else wrote it, or it is an attempt that might be made twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) offset: Offset,
    /// Why, without any content.
    pub(super) reason: String,
    /// The message it is about, as far as its headers say: the offset of the dispatch record.
    message: Option<Offset>,
    /// The conversation it is about, as far as its key says.
    key: Option<Bytes>,
    at: Timestamp,
}

impl Unreadable {
    fn new(record: &Record, reason: String) -> Self {
        Self {
            offset: record.offset,
            reason,
            message: number(record, headers::DISPATCH_OFFSET),
            key: record.key.clone().filter(|key| is_conversation(key)),
            at: record.timestamp,
        }
    }

    /// Whether it may be an attempt to send this message.
    fn may_be(&self, dispatch: &Dispatch, at: Offset, queued_at: Timestamp) -> bool {
        match (&self.message, &self.key) {
            (Some(message), _) => *message == at,
            (None, Some(key)) => **key == *dispatch.conversation_id.as_str().as_bytes() && queued_at <= self.at + SLACK,
            // Written in the same millisecond, it cannot have been accepted and read by then.
            (None, None) => queued_at < self.at,
        }
    }
}

fn number(record: &Record, header: &str) -> Option<Offset> {
    std::str::from_utf8(record.header(header)?).ok()?.parse().ok().map(Offset)
}

/// Whether a key has the form of a stream id.
fn is_conversation(key: &[u8]) -> bool {
    let tag = std::str::from_utf8(key).ok().and_then(|key| key.split_once('-')).map(|(_, tag)| tag);
    tag.is_some_and(|tag| tag.len() == 32 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// What reading the journal of a partition came to.
#[derive(Debug)]
pub(super) enum Loaded {
    /// Everything in it is known.
    Whole(Journal),
    /// It has records that cannot be read and that no operator has accepted.
    Blocked(Blocked),
}

/// A journal that cannot be read to its end.
#[derive(Debug)]
pub(super) struct Blocked {
    pub(super) journal: TopicPartition,
    pub(super) unreadable: BTreeMap<Offset, Unreadable>,
    /// Everything below was looked through for an operator's word.
    looked: Offset,
}

impl Blocked {
    /// Looks for an operator's word that came since. True: everything is accepted, and the journal can be read.
    pub(super) async fn look(&mut self, platform: &Platform) -> Result<bool, Failure> {
        let (log, from) = (platform.log.as_ref(), Start::At(self.looked));
        self.looked = replay(log, &self.journal, from, Isolation::Uncommitted, |record| {
            if let Some(accepted) = accepted(&record) {
                self.unreadable.remove(&accepted);
            }
            Ok(())
        })
        .await?;
        Ok(self.unreadable.is_empty())
    }
}

/// The record that an operator accepts as an attempt without a conclusion.
fn accepted(record: &Record) -> Option<Offset> {
    record.value.is_none().then(|| number(record, headers::JOURNAL_ACCEPTS)).flatten()
}

/// The journal of one partition in memory: what is needed for the messages that are not finished.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Commands whose end stands in the log.
    done: HashSet<Name>,
    fates: HashMap<Name, Fate>,
    /// Records that could not be read, and that count as attempts without a conclusion.
    doubts: Vec<Unreadable>,
    /// Which of them were taken for an attempt in which conversation: lanes go one message after the other, so it was one at most.
    taken: HashSet<(Offset, StreamId)>,
    /// What was read from the journal concerns messages below this position of the dispatch partition.
    loaded_below: Offset,
}

impl Journal {
    /// Reads the journal of `source`'s partition for messages from `oldest` on, the moment of the first unfinished one. To be called when earlier owners are fenced.
    pub(super) async fn load(
        platform: &Platform,
        source: &TopicPartition,
        oldest: Timestamp,
    ) -> Result<Loaded, Failure> {
        let log = platform.log.as_ref();
        let loaded_below = log.end_offset(source, Isolation::Committed).await?;
        let journal = TopicPartition { topic: platform.topic(Topic::DispatchJournal), partition: source.partition };
        let from = Start::Since(oldest - SLACK);
        // An aborted transaction took the event about an attempt away, but not the attempt: what stands in committed
        // transactions is read first, then everything.
        let mut stands = HashSet::new();
        replay(log, &journal, from, Isolation::Committed, |record| {
            stands.insert(record.offset);
            Ok(())
        })
        .await?;
        let mut loaded = Self { loaded_below, ..Self::default() };
        let (mut unreadable, mut words) = (BTreeMap::new(), Vec::new());
        let looked = replay(log, &journal, from, Isolation::Uncommitted, |record| {
            words.extend(accepted(&record));
            match record.value.as_deref().map(decode::<JournalEntry>) {
                // It may say that something was sent.
                Some(Ok(entry)) if entry.kind == JournalKind::Unknown => {
                    let why = "an entry of a kind that a later version writes".to_owned();
                    unreadable.insert(record.offset, Unreadable::new(&record, why));
                }
                Some(Ok(entry)) => loaded.fold(&record, &entry, stands.contains(&record.offset)),
                Some(Err(error)) => drop(unreadable.insert(record.offset, Unreadable::new(&record, error.to_string()))),
                None => {}
            }
            Ok(())
        })
        .await?;
        loaded.doubts = words.iter().filter_map(|offset| unreadable.remove(offset)).collect();
        if unreadable.is_empty() {
            Ok(Loaded::Whole(loaded))
        } else {
            Ok(Loaded::Blocked(Blocked { journal, unreadable, looked }))
        }
    }

    fn fold(&mut self, record: &Record, entry: &JournalEntry, stands: bool) {
        let name = name(entry.command_id, &entry.conversation_id);
        if self.done.contains(&name) {
            return;
        }
        let fate = self.fates.entry(name).or_default();
        fate.loaded = true;
        match entry.kind {
            JournalKind::Attempted => {
                fate.attempted(Attempt { id: entry.attempt_id, no: entry.attempt_no, at: entry.at });
            }
            JournalKind::Withdrawn => fate.withdrawn(entry.attempt_id),
            JournalKind::Concluded => {
                if let Some(ending) = Ending::read(record, entry) {
                    let ends = matches!(ending, Ending::Sent(_) | Ending::Failed { .. });
                    fate.concluded(entry.attempt_id, ending, stands);
                    if ends && stands {
                        self.fates.remove(&name);
                        self.done.insert(name);
                    }
                }
            }
            // Such a record counts as unreadable and does not come here.
            JournalKind::Unknown => {}
        }
    }

    /// A record that could not be read and may be an attempt to send this message, the first of its conversation that it may be about.
    pub(super) fn doubt(&mut self, dispatch: &Dispatch, at: Offset, queued_at: Timestamp) -> Option<Attempt> {
        let known = self.fates.get(&name(dispatch.command_id, &dispatch.conversation_id));
        if self.doubts.is_empty() || known.is_some_and(|fate| fate.pending) {
            return None;
        }
        let no = known.and_then(|fate| fate.last).map_or(0, |last| last.no) + 1;
        let stream = &dispatch.conversation_id;
        let fits = |doubt: &&Unreadable| {
            doubt.may_be(dispatch, at, queued_at) && !self.taken.contains(&(doubt.offset, stream.clone()))
        };
        let doubt = self.doubts.iter().find(fits)?;
        self.taken.insert((doubt.offset, stream.clone()));
        let id = AttemptId::derived(&format!("{}:{stream}:{no}:journal:{}", dispatch.command_id, doubt.offset.0));
        Some(Attempt { id, no, at: doubt.at })
    }

    pub(super) fn is_done(&self, command: Name) -> bool {
        self.done.contains(&command)
    }

    pub(super) fn get(&self, command: Name) -> Option<&Fate> {
        self.fates.get(&command)
    }

    pub(super) fn fate(&mut self, command: Name) -> &mut Fate {
        self.fates.entry(command).or_default()
    }

    /// The message is finished: once that is committed it never comes again.
    pub(super) fn finish(&mut self, command: Name) -> Option<Fate> {
        self.fates.remove(&command)
    }

    /// Everything below `frontier` of the dispatch partition is finished and committed. True when what was read from the journal is
    /// of no use any more and was dropped.
    pub(super) fn passed(&mut self, frontier: Offset) -> bool {
        if frontier < self.loaded_below || self.loaded_below == Offset(0) {
            return false;
        }
        self.loaded_below = Offset(0);
        self.done = HashSet::new();
        self.doubts = Vec::new();
        self.taken = HashSet::new();
        self.fates.retain(|_, fate| !fate.loaded);
        true
    }

    /// Commands that are not finished.
    pub(super) fn open(&self) -> impl Iterator<Item = &Fate> {
        self.fates.values()
    }
}

/// A record of the journal, in the partition of the message it is about.
pub(super) fn entry(
    emitter: &Emitter,
    (partition, message): (u32, Offset),
    dispatch: &Dispatch,
    attempt: &Attempt,
    kind: JournalKind,
    ending: Option<&Ending>,
    at: Timestamp,
) -> Result<Append, Failure> {
    let entry = JournalEntry {
        kind,
        attempt_id: attempt.id,
        attempt_no: attempt.no,
        command_id: dispatch.command_id,
        conversation_id: dispatch.conversation_id.clone(),
        phone_number_id: dispatch.phone_number_id.clone(),
        at,
        conclusion: ending.map(|ending| ending.word().to_owned()),
        wamid: match ending {
            Some(Ending::Sent(wamid)) => Some(wamid.clone()),
            _ => None,
        },
    };
    let mut append = emitter.record(Topic::DispatchJournal, dispatch.conversation_id.as_str(), &entry, None)?;
    append.partition = Some(partition);
    append.headers.push((headers::DISPATCH_OFFSET.into(), Some(Bytes::from(message.0.to_string()))));
    append.headers.extend(ending.map(Ending::headers).unwrap_or_default());
    Ok(append)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(no: i32) -> Attempt {
        Attempt { id: AttemptId::derived(&no.to_string()), no, at: Timestamp(no.into()) }
    }

    fn unconfirmed() -> Ending {
        Ending::Unconfirmed("timeout".to_owned())
    }

    #[test]
    fn an_attempt_without_conclusion_stays_pending_and_a_withdrawn_one_counts_for_its_number_only() {
        let mut fate = Fate::default();
        fate.attempted(attempt(1));
        assert_eq!(fate.pending(), Some(attempt(1)));
        fate.withdrawn(attempt(1).id);
        assert_eq!((fate.pending(), fate.last), (None, Some(attempt(1))));
        fate.attempted(attempt(2));
        fate.concluded(attempt(2).id, Ending::Retry { ambiguous: false }, false);
        assert_eq!((fate.pending(), fate.ambiguous), (None, 0));
        fate.attempted(attempt(3));
        fate.concluded(attempt(3).id, Ending::Retry { ambiguous: true }, false);
        assert_eq!((fate.pending(), fate.ambiguous), (None, 1));
    }

    #[test]
    fn an_ambiguous_attempt_counts_once_however_often_its_end_is_written() {
        let mut fate = Fate::default();
        fate.attempted(attempt(1));
        fate.concluded(attempt(1).id, unconfirmed(), false);
        fate.concluded(attempt(1).id, unconfirmed(), true);
        assert_eq!((fate.pending(), fate.ambiguous), (Some(attempt(1)), 1));
        assert_eq!(fate.ending, Some((unconfirmed(), true)));
        fate.attempted(attempt(2));
        fate.concluded(attempt(1).id, Ending::Sent("wamid.late".into()), true);
        assert_eq!(fate.ending, None, "the end of an older attempt says nothing about the newest");
        fate.concluded(attempt(2).id, unconfirmed(), true);
        assert_eq!(fate.ambiguous, 2);
    }

    #[test]
    fn what_was_read_is_dropped_when_the_messages_it_concerns_are_finished() {
        let mut journal = Journal { loaded_below: Offset(10), ..Journal::default() };
        journal.done.insert((CommandId::derived("old"), 0));
        journal.fates.insert((CommandId::derived("older"), 0), Fate { loaded: true, ..Fate::default() });
        journal.fate((CommandId::derived("new"), 0));
        assert!(!journal.passed(Offset(9)));
        assert!(journal.is_done((CommandId::derived("old"), 0)));
        assert!(journal.passed(Offset(10)));
        assert!(!journal.is_done((CommandId::derived("old"), 0)));
        assert_eq!(journal.open().count(), 1);
    }
}

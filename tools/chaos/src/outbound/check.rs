//! What the log and WhatsApp's ledger say about every command.

use std::collections::{HashMap, HashSet};

use connector_domain::command::{JournalEntry, JournalKind, SendMessage};
use connector_domain::event::{Event, Recorded};
use connector_domain::ids::CommandId;
use connector_domain::time::Timestamp;

use crate::fleet::SESSION;
use crate::whatsapp::Post;

/// What became of the commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Without a first answer or an end, refused or failed for no reason, or told to be sent when WhatsApp does not have it.
    pub(super) lost: usize,
    /// Twice with WhatsApp or in the log, or an attempt that was made twice.
    pub(super) duplicated: usize,
    /// Made, or ended, after a later one of the same conversation, or by a worker that had lost the conversation.
    pub(super) misordered: usize,
    /// Ended as unconfirmed.
    pub(super) unconfirmed: usize,
    /// One sentence for each that is lost, duplicated or misordered.
    pub(super) findings: Vec<String>,
}

#[derive(Default)]
struct Story {
    accepted: usize,
    rejected: usize,
    sent: usize,
    failed: usize,
    unconfirmed: usize,
}

impl Story {
    fn ends(&self) -> usize {
        self.sent + self.failed + self.unconfirmed
    }

    fn is_over(&self) -> bool {
        self.rejected + self.ends() > 0
    }
}

fn stories(events: &[Recorded]) -> HashMap<CommandId, Story> {
    let mut stories: HashMap<CommandId, Story> = HashMap::new();
    for recorded in events {
        let Some(command) = recorded.envelope.command_id else { continue };
        let story = stories.entry(command).or_default();
        match &recorded.event {
            Event::MessageAccepted(_) => story.accepted += 1,
            Event::MessageRejected(_) => story.rejected += 1,
            Event::MessageSent(_) => story.sent += 1,
            Event::MessageFailed(_) => story.failed += 1,
            Event::MessageUnconfirmed(_) => story.unconfirmed += 1,
            _ => {}
        }
    }
    stories
}

/// How many of the commands have not come to their end.
pub(crate) fn open(events: &[Recorded], commands: &[CommandId]) -> usize {
    let stories = stories(events);
    commands.iter().filter(|command| !stories.get(command).is_some_and(Story::is_over)).count()
}

/// Where a command stands among those of its conversation: `<contact> <place>`.
fn place(text: &str) -> Option<(&str, usize)> {
    let (contact, place) = text.split_once(' ')?;
    Some((contact, place.parse().ok()?))
}

fn text(command: &SendMessage) -> &str {
    command.content.text.as_ref().map(|text| text.expose()).unwrap_or_default()
}

/// Compares what was asked for with what the log and WhatsApp say. A worker was frozen from each of the moments in `frozen` on,
/// for longer than it could keep its partitions.
pub(super) fn count(
    commands: &[(String, SendMessage)],
    events: &[Recorded],
    posts: &[Post],
    journal: &[JournalEntry],
    frozen: &[Timestamp],
) -> Counts {
    let mut counts = Counts::default();
    each_command(commands, events, posts, &mut counts);
    each_attempt(posts, journal, frozen, &mut counts);
    let ordered = posts.iter().map(|post| post.text.as_str());
    in_order("was posted after a later one", ordered, &mut counts);
    let texts: HashMap<_, _> = commands.iter().map(|(_, command)| (command.command_id, text(command))).collect();
    let of = |wanted: fn(&Event) -> bool| {
        let wanted = events.iter().filter(move |recorded| wanted(&recorded.event));
        wanted.filter_map(|recorded| texts.get(&recorded.envelope.command_id?).copied())
    };
    let ended = of(|event| matches!(event, Event::MessageSent(_) | Event::MessageUnconfirmed(_)));
    in_order("ended after a later one", ended, &mut counts);
    in_order("was accepted after a later one", of(|event| matches!(event, Event::MessageAccepted(_))), &mut counts);
    counts
}

fn each_command(commands: &[(String, SendMessage)], events: &[Recorded], posts: &[Post], counts: &mut Counts) {
    let stories = stories(events);
    let mut taken: HashMap<&str, usize> = HashMap::new();
    for post in posts.iter().filter(|post| post.accepted) {
        *taken.entry(&post.text).or_default() += 1;
    }
    let none = Story::default();
    for (_, command) in commands {
        let text = text(command);
        let (story, taken) = (stories.get(&command.command_id).unwrap_or(&none), taken.get(text).copied().unwrap_or(0));
        let Story { accepted, rejected, sent, failed, unconfirmed } = story;
        let told = format!(
            "message {text}: accepted {accepted}, rejected {rejected}, sent {sent}, failed {failed}, unconfirmed {unconfirmed}; WhatsApp took {taken}"
        );
        counts.unconfirmed += usize::from(*unconfirmed > 0);
        if taken > 1 || *accepted > 1 || story.ends() > 1 {
            counts.duplicated += 1;
            counts.findings.push(told);
        } else if *accepted == 0 || story.ends() == 0 || *failed > 0 || (*sent > 0 && taken == 0) {
            counts.lost += 1;
            counts.findings.push(told);
        }
    }
    let mut seen = HashSet::new();
    for recorded in events.iter().filter(|recorded| !seen.insert(recorded.envelope.event_id)) {
        counts.duplicated += 1;
        counts.findings.push(format!("{} stands in the log twice", recorded.envelope.event_type));
    }
}

fn each_attempt(posts: &[Post], journal: &[JournalEntry], frozen: &[Timestamp], counts: &mut Counts) {
    let attempted = journal.iter().filter(|entry| entry.kind == JournalKind::Attempted);
    let attempted: HashMap<_, _> = attempted.map(|entry| (entry.attempt_id.to_string(), entry.at)).collect();
    let mut made = HashSet::new();
    for post in posts {
        if !made.insert(&post.attempt) {
            counts.duplicated += 1;
            counts.findings.push(format!("attempt {} of message {} was made twice", post.attempt, post.text));
        }
        let Some(decided) = attempted.get(&post.attempt).copied() else {
            counts.duplicated += 1;
            counts.findings.push(format!("attempt {} of message {} is not in the journal", post.attempt, post.text));
            continue;
        };
        // Decided on before the worker stood still, made when somebody else had its partitions.
        if frozen.iter().any(|frozen| decided <= *frozen && Timestamp(post.at_ms) >= *frozen + SESSION * 2) {
            counts.misordered += 1;
            counts.findings.push(format!("message {} was sent by a worker that had lost it", post.text));
        }
    }
}

/// Whether texts of the same conversation come in their order. A text may come again.
fn in_order<'a>(what: &str, texts: impl Iterator<Item = &'a str>, counts: &mut Counts) {
    let mut latest: HashMap<&str, usize> = HashMap::new();
    for (contact, place) in texts.filter_map(place) {
        let latest = latest.entry(contact).or_default();
        if place < *latest {
            counts.misordered += 1;
            counts.findings.push(format!("message {contact} {place} {what}"));
        }
        *latest = place.max(*latest);
    }
}

//! The fold of the log once more, as plainly as it can be written, and what the log must not show.

use std::collections::BTreeMap;
use std::time::Duration;

use connector_domain::conversation::Conversation;
use connector_domain::event::{CallReceived, Envelope, Event, MessageReceived, Recorded};
use connector_domain::ids::StreamId;
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;

use crate::harmed::Mutation;

/// One conversation, as the log tells.
#[derive(Default)]
pub(crate) struct Fold {
    pub(crate) conversation: Conversation,
    /// The end of the open window.
    pub(crate) open: Option<Timestamp>,
    /// Ends that were moved before they came, and when that stood in the log.
    renewed: BTreeMap<Timestamp, Timestamp>,
    /// How often the log says of each end that it came.
    expired: BTreeMap<Timestamp, usize>,
    opened: usize,
    announced: usize,
}

/// Folds the log. `written`: when a message stood in it at the latest, by every clock. `Err`: what the log must not show.
pub(crate) fn fold(
    events: &[Recorded],
    rules: &Rules,
    written: impl Fn(&Envelope) -> Timestamp,
    mutation: Mutation,
) -> Result<BTreeMap<StreamId, Fold>, String> {
    let slack: Duration = rules.margin.min(rules.window / 10);
    let mut folds: BTreeMap<StreamId, Fold> = BTreeMap::new();
    for Recorded { envelope, event } in events {
        let fold = folds.entry(envelope.stream_id.clone()).or_default();
        let moved = Conversation::is_moved_by(event);
        if moved && fold.conversation.is_entered_by(&envelope.organization_id, event) {
            fold.conversation.evolve(event, envelope.event_id, envelope.occurred_at);
        }
        match event {
            Event::MessageReceived(MessageReceived { window_deadline: Some(deadline), .. })
            | Event::CallReceived(CallReceived { window_deadline: deadline, .. }) => match fold.open {
                Some(end) if *deadline > end => {
                    fold.renewed.insert(end, written(envelope));
                    fold.open = Some(*deadline);
                    // Written after the end that nobody had told of yet: it is announced again.
                    fold.opened += usize::from(envelope.occurred_at >= end);
                }
                None if envelope.recorded_at + slack < *deadline => {
                    fold.open = Some(*deadline);
                    fold.opened += 1;
                }
                _ => {}
            },
            Event::WindowOpened(_) => fold.announced += 1,
            Event::WindowExpired(expired) => {
                let end = expired.deadline;
                let times = fold.expired.entry(end).or_default();
                *times += 1;
                if *times > 1 {
                    return Err(format!("{} expired twice at {end:?}", envelope.stream_id));
                }
                if mutation == Mutation::FoldBelievesEveryExpiry || fold.open == Some(end) {
                    fold.open = None;
                } else {
                    // A message may still come between decision and event, not one that stood in the log when the end came.
                    match fold.renewed.get(&end) {
                        None => return Err(format!("{} has no window that ends at {end:?}", envelope.stream_id)),
                        Some(renewed) if *renewed <= end => {
                            return Err(format!("{} expired at {end:?}, renewed at {renewed:?}", envelope.stream_id));
                        }
                        Some(_) => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(folds)
}

/// What the log must show when everything is over.
pub(crate) fn at_rest(folds: &BTreeMap<StreamId, Fold>) -> Result<(), String> {
    for (stream, fold) in folds {
        if let Some(end) = fold.open {
            return Err(format!("{stream} never expired at {end:?}"));
        }
        if fold.opened != fold.announced {
            return Err(format!("{stream} opened {} times and was announced {} times", fold.opened, fold.announced));
        }
    }
    Ok(())
}

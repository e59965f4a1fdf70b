//! What needs no server: folding events and their bytes, on one core.

use std::hint::black_box;
use std::time::{Duration, Instant};

use connector_contracts::{ContractError, decode_event, encode_event};
use connector_domain::conversation::Conversation;
use connector_domain::event::Recorded;

use crate::report::{Outcome, Report, percentile};
use crate::samples::mixed;

const CONVERSATIONS: usize = 1_000;
/// A figure is the median of this many slices, so that a neighbour on the machine spoils one slice and not the figure.
const SLICES: u32 = 9;

pub(crate) fn measure(report: &mut Report) {
    if !["fold_events_per_s", "avro_encode_per_s", "avro_decode_per_s"].iter().any(|name| report.wants(name)) {
        return;
    }
    eprintln!("measuring folds and codecs");
    let stream = mixed(CONVERSATIONS);
    let slice = report.period(Duration::from_millis(200));
    if report.wants("fold_events_per_s") {
        let rate = rate(slice, stream.len(), || fold(&stream));
        let note = format!("one core; {CONVERSATIONS} conversations, ten interleaved events each");
        report.add("fold_events_per_s", rate, "1/s", note);
    }
    let codecs = codecs(report, &stream, slice);
    report.attempt("avro", codecs);
}

fn codecs(report: &mut Report, stream: &[(usize, Recorded)], slice: Duration) -> Outcome<()> {
    let encode =
        || stream.iter().map(|(_, recorded)| encode_event(recorded)).collect::<Result<Vec<_>, ContractError>>();
    // Also proves that every sample can be written and read before anything is measured.
    let bytes = encode()?;
    bytes.iter().try_for_each(|record| decode_event(record).map(drop))?;
    let size = bytes.iter().map(Vec::len).sum::<usize>() / bytes.len().max(1);
    let note = format!("one core; the same events, {size} bytes on average");
    if report.wants("avro_encode_per_s") {
        let rate = rate(slice, stream.len(), || stream.iter().for_each(|(_, one)| drop(black_box(encode_event(one)))));
        report.add("avro_encode_per_s", rate, "1/s", note.clone());
    }
    if report.wants("avro_decode_per_s") {
        let rate = rate(slice, bytes.len(), || bytes.iter().for_each(|one| drop(black_box(decode_event(one)))));
        report.add("avro_decode_per_s", rate, "1/s", note);
    }
    Ok(())
}

fn fold(stream: &[(usize, Recorded)]) {
    let mut conversations = vec![Conversation::default(); CONVERSATIONS];
    for (conversation, Recorded { envelope, event }) in stream {
        conversations[*conversation].evolve(black_box(event), envelope.event_id, envelope.occurred_at);
    }
    black_box(conversations);
}

/// How many things a second, when each call of `pass` does `count` of them.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn rate(slice: Duration, count: usize, mut pass: impl FnMut()) -> f64 {
    pass();
    let mut rates = Vec::new();
    for _ in 0..SLICES {
        let (start, mut passes) = (Instant::now(), 0);
        while start.elapsed() < slice {
            pass();
            passes += 1;
        }
        rates.push((passes * count) as f64 / start.elapsed().as_secs_f64());
    }
    percentile(&rates, 0.5)
}

#[cfg(test)]
mod tests {
    use connector_domain::consent::ConsentStatus;

    use super::*;

    #[test]
    fn the_samples_are_conversations_that_the_rules_understand() {
        let stream = mixed(3);
        assert_eq!(stream.len(), 30);
        let mut conversations = vec![Conversation::default(); 3];
        for (conversation, Recorded { envelope, event }) in &stream {
            conversations[*conversation].evolve(event, envelope.event_id, envelope.occurred_at);
            assert_eq!(
                decode_event(&encode_event(&Recorded { envelope: envelope.clone(), event: event.clone() }).unwrap())
                    .unwrap()
                    .event,
                *event
            );
        }
        for conversation in conversations {
            assert_eq!(conversation.consent.status, ConsentStatus::Accepted);
            assert!(conversation.deadline.is_some());
        }
    }
}

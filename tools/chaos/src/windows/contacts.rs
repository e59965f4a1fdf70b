//! The contacts: who they are, and how they write all the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use connector_contracts::Topics;
use connector_demo::settings;
use connector_domain::consent::Intent;
use connector_domain::event::{MessageReceived, Recorded, TimeSource};
use connector_domain::identity::Address;
use connector_domain::ids::{EventId, StreamId};
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_domain::window::deadline;
use connector_ports::Clock;
use connector_ports::clock::SystemClock;
use connector_runtime::emit::{Cause, Emitter};
use connector_runtime::situation::partition_of;

use crate::Outcome;
use crate::fleet::PARTITIONS;
use crate::log::Publisher;
use crate::random::Random;

/// Between two lots of messages.
const BEAT: Duration = Duration::from_millis(20);
/// Lots of a second.
const BEATS: u64 = 50;

/// What contacts have written.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// When the log said of a message that it has it.
    pub(super) acknowledged: HashMap<EventId, Timestamp>,
    /// From the first to the last message.
    pub(super) took: Duration,
}

/// So many conversations.
pub(super) fn conversations(count: u64) -> Vec<StreamId> {
    // An odd factor brings each number somewhere else.
    let id = |number: u64| u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    (0..count).map(|number| StreamId(format!("k1-{:032x}", id(number)))).collect()
}

/// The conversations of each partition, at most so many.
pub(super) fn by_partition(conversations: &[StreamId], most: usize) -> Vec<Vec<StreamId>> {
    let mut divided = vec![Vec::new(); PARTITIONS as usize];
    for stream in conversations {
        let of_one = &mut divided[partition_of(stream, PARTITIONS) as usize];
        if of_one.len() < most {
            of_one.push(stream.clone());
        }
    }
    divided
}

/// The contacts of these conversations.
pub(super) struct Contacts {
    emitter: Emitter,
    conversations: Vec<StreamId>,
    chance: Random,
    rules: Rules,
    count: u64,
}

impl Contacts {
    pub(super) fn new(conversations: Vec<StreamId>, seed: u64, rules: Rules) -> Self {
        let emitter = Emitter::new(Topics::default(), "inbound-processor", Arc::new(SystemClock));
        Self { emitter, conversations, chance: Random::new(seed), rules, count: 0 }
    }

    /// They write so many messages a second until it is `over`. The log takes them in lots.
    pub(super) async fn write(mut self, mut publisher: Publisher, rate: u64, over: &AtomicBool) -> Outcome<Written> {
        let (mut written, began) = (Written::default(), Instant::now());
        let mut beat = tokio::time::interval(BEAT);
        while !over.load(Ordering::Relaxed) {
            beat.tick().await;
            let lot: Vec<_> = (0..rate / BEATS).map(|_| self.message()).collect();
            let appends = lot.iter().map(|message| self.emitter.event(message));
            let appends = appends.collect::<Result<_, _>>().map_err(|failure| format!("{failure:?}"))?;
            publisher.append(appends).await?;
            let now = SystemClock.now();
            written.acknowledged.extend(lot.into_iter().map(|message| (message.envelope.event_id, now)));
        }
        written.took = began.elapsed();
        Ok(written)
    }

    /// Somebody's next message: most are there as soon as they are written, some seconds later, a few when their window is as good as
    /// over. Now and then somebody wants no messages any more, or wants them again.
    fn message(&mut self) -> Recorded {
        self.count += 1;
        let now = SystemClock.now();
        let chosen = self.chance.below(self.conversations.len() as u64);
        let ago = match self.chance.below(100) {
            0..94 => 0,
            94..99 => self.chance.below(5_000),
            _ => u64::try_from(self.rules.window.as_millis()).unwrap_or(u64::MAX) + self.chance.below(5_000) - 2_500,
        };
        // WhatsApp counts in whole seconds.
        let written = Timestamp::from_secs((now - Duration::from_millis(ago)).as_millis() / 1_000);
        let intent = match self.chance.below(100) {
            0..2 => Intent::Stop,
            2..4 => Intent::Start,
            _ => Intent::Other,
        };
        let message = MessageReceived {
            phone_number_id: settings::PHONE_NUMBER_ID.into(),
            wamid: format!("wamid.{}", self.count).as_str().into(),
            address: Address::default(),
            profile_name: None,
            message_type: "text".to_owned(),
            text: Some("Hello".into()),
            unsupported: false,
            reply_to: None,
            intent,
            answer: Intent::Other,
            window_deadline: Some(deadline(written, now, &self.rules)),
            raw: r#"{"type":"text","text":{"body":"Hello"}}"#.into(),
        };
        let cause = Cause {
            organization_id: settings::ORGANIZATION.into(),
            stream_id: self.conversations[usize::try_from(chosen).unwrap_or(0)].clone(),
            cause_id: self.count.to_string(),
            command_id: None,
            occurred_at: written,
            time_source: TimeSource::Whatsapp,
            traceparent: None,
        };
        self.emitter.recorded(message, &cause)
    }
}

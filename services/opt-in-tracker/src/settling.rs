//! Waiting until the `conversations` views have caught up, for many decisions at once (R2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connector_contracts::Topic;
use connector_domain::conversation::Conversation;
use connector_domain::ids::StreamId;
use connector_ports::Clock;
use connector_ports::log::{Appended, Offset, TopicName};
use connector_runtime::failure::Failure;
use connector_runtime::platform::Platform;
use connector_runtime::situation::heed;
use connector_runtime::view::Reading;

/// How long a batch waits before it is given back and tried again.
const WITHIN: Duration = Duration::from_secs(2);

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Values by their keys. Keys of the `conversations` views name their stream, so they differ between partitions, too.
pub(crate) type Values = BTreeMap<String, Option<Bytes>>;

/// Waits for the views, and for this worker's own writes in them.
pub(crate) struct Settling {
    reading: Reading,
    clock: Arc<dyn Clock>,
    topic: TopicName,
    partitions: u32,
    /// Up to where this worker wrote. A broker may answer a commit a little before the end of the log moves behind it, so asking
    /// for the end alone could miss what this very worker decided just before.
    own: BTreeMap<u32, Offset>,
}

impl Settling {
    pub(crate) fn new(platform: &Platform) -> Self {
        let topic = platform.topic(Topic::ConversationEvents);
        Self {
            reading: platform.conversations(),
            clock: platform.clock.clone(),
            topic,
            partitions: platform.partitions,
            own: BTreeMap::new(),
        }
    }

    /// A transaction of this worker was committed.
    pub(crate) fn wrote(&mut self, appended: &[Appended]) {
        for Appended { target, offset } in appended.iter().filter(|a| a.target.topic == self.topic) {
            let own = self.own.entry(target.partition).or_default();
            *own = offset.next().max(*own);
        }
    }

    /// Adds to conversations what was said to streams that lead there.
    ///
    /// # Errors
    /// As [`Settling::read`].
    pub(crate) async fn heed(&self, of: Vec<(&StreamId, &mut Conversation)>) -> Result<(), Failure> {
        heed(&self.reading, self.partitions, of, Some(WITHIN)).await
    }

    /// The values of keys, by partition, each partition's read in one step with a position behind the end of the log as of this call.
    /// Looking at the position first and at the values afterwards would take a view that was wiped in between for an empty one.
    ///
    /// # Errors
    /// `Later` when a view does not catch up in time.
    pub(crate) async fn read(&mut self, keys: &BTreeMap<u32, BTreeSet<String>>) -> Result<Values, Failure> {
        let until = self.clock.now() + WITHIN;
        let mut ends = Vec::new();
        for partition in keys.keys() {
            let own = self.own.get(partition).copied().unwrap_or_default();
            ends.push(self.reading.end(*partition).await?.max(own));
        }
        let mut values = Values::new();
        for ((partition, keys), end) in keys.iter().zip(ends) {
            let keys: Vec<String> = keys.iter().cloned().collect();
            let answers = loop {
                let snapshot = self.reading.now(*partition, &keys).await?;
                if snapshot.applied.unwrap_or_default() >= end {
                    break snapshot.answers;
                }
                if self.clock.now() >= until {
                    return Err(Failure::Later(format!("view {partition} of the conversations is behind the log")));
                }
                self.clock.sleep(PAUSE).await;
            };
            self.own.remove(partition);
            values.extend(keys.into_iter().zip(answers));
        }
        Ok(values)
    }
}

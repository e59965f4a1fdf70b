//! Waiting until the `conversations` views have caught up, for many decisions at once (R2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connector_contracts::Topic;
use connector_ports::Clock;
use connector_ports::log::{Appended, Offset, TopicName};
use connector_runtime::failure::Failure;
use connector_runtime::platform::Platform;
use connector_runtime::view::Reading;

/// How long a batch waits before it is given back and tried again.
const WITHIN: Duration = Duration::from_secs(2);

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Values by their keys. Keys of the `conversations` views name their stream, so they differ between partitions, too.
pub(crate) type Values = BTreeMap<String, Option<Bytes>>;

/// Up to where a worker wrote into partitions of the log. A broker may answer a commit a little before the end of the log moves behind it,
/// so asking for the end alone could miss what this very worker decided just before.
#[derive(Default)]
pub(crate) struct Own(BTreeMap<u32, Offset>);

impl Own {
    /// A transaction of this worker was committed.
    pub(crate) fn wrote(&mut self, log: &TopicName, appended: &[Appended]) {
        for Appended { target, offset } in appended.iter().filter(|a| a.target.topic == *log) {
            let own = self.0.entry(target.partition).or_default();
            *own = offset.next().max(*own);
        }
    }

    /// The position behind its last record, by partition.
    pub(crate) const fn ends(&self) -> &BTreeMap<u32, Offset> {
        &self.0
    }
}

/// Waits for the views, and for this worker's own writes in them.
pub(crate) struct Settling {
    reading: Reading,
    clock: Arc<dyn Clock>,
    topic: TopicName,
    own: Own,
}

impl Settling {
    pub(crate) fn new(platform: &Platform) -> Self {
        let topic = platform.topic(Topic::ConversationEvents);
        Self { reading: platform.conversations(), clock: platform.clock.clone(), topic, own: Own::default() }
    }

    /// A transaction of this worker was committed.
    pub(crate) fn wrote(&mut self, appended: &[Appended]) {
        self.own.wrote(&self.topic, appended);
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
            let own = self.own.ends().get(partition).copied().unwrap_or_default();
            ends.push(self.reading.end(*partition).await?.max(own));
        }
        let mut values = Values::new();
        for ((partition, keys), end) in keys.iter().zip(ends) {
            let keys: Vec<String> = keys.iter().cloned().collect();
            let answers = loop {
                let snapshot = self.reading.glance(*partition, &keys).await?;
                if snapshot.applied.unwrap_or_default() >= end {
                    break snapshot.answers;
                }
                if self.clock.now() >= until {
                    return Err(Failure::Later(format!("view {partition} of the conversations is behind the log")));
                }
                self.clock.sleep(PAUSE).await;
            };
            self.own.0.remove(partition);
            values.extend(keys.into_iter().zip(answers));
        }
        Ok(values)
    }
}

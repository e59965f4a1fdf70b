//! Records of the templates' topic that are no templates. Every table of templates passes them over; one group brings each of them to the
//! dead letters, once.

use async_trait::async_trait;
use connector_domain::template::Template;
use connector_ports::log::{Offset, TopicPartition};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Step, TakeUp};
use connector_runtime::lanes::Work;
use connector_runtime::platform::Platform;
use connector_runtime::table::entry;

/// The handler.
pub(crate) struct Unreadable {
    platform: Platform,
    /// Partitions of the topic; its number is for ever.
    partitions: u32,
}

impl Unreadable {
    pub(crate) fn new(platform: &Platform) -> Self {
        Self { platform: platform.clone(), partitions: 0 }
    }
}

#[async_trait]
impl Handler for Unreadable {
    type Fact = ();

    async fn assigned(&mut self, partition: &TopicPartition, _: Option<Offset>) -> Result<TakeUp, Failure> {
        let missing = || Failure::Later(format!("topic {} does not exist yet", partition.topic));
        self.partitions = self.platform.log.topic(&partition.topic).await?.ok_or_else(missing)?.partitions;
        Ok(TakeUp::Committed)
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let step = |work: &Work| match entry::<Template>(&work.record, self.partitions) {
            Ok(_) => Step::Done(Vec::new()),
            Err(reason) => Step::DeadLetter(reason),
        };
        Ok(work.iter().map(step).collect())
    }
}

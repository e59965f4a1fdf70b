//! What WhatsApp says about templates by webhook: a reason to ask now and not at the end of the interval.
//!
//! Only a hint. What is missed, because nobody listened, is found at the next question.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use connector_contracts::{Topic, decode};
use connector_domain::command::{DirectoryRecord, WebhookItem};
use connector_domain::ids::WabaId;
use connector_ports::log::{Isolation, Polled, Reader, Record, Start, TopicName, TopicPartition};
use connector_ports::partition::partition_for;
use connector_ports::{Clock, Log};
use connector_runtime::backoff::Backoff;
use connector_runtime::failure::Failure;
use connector_runtime::platform::Platform;
use connector_runtime::table::Table;
use tokio_util::sync::CancellationToken;

/// How often the directory is looked at for accounts.
const LOOK: Duration = Duration::from_secs(1);

/// How the receiver keys what concerns an account and none of its numbers.
const PREFIX: &str = "waba/";

/// Listens to the webhooks of the directory's accounts.
pub(crate) struct News {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    webhooks: TopicName,
    numbers: Table<DirectoryRecord>,
    heard: Mutex<BTreeSet<WabaId>>,
}

impl News {
    pub(crate) fn new(platform: &Platform, numbers: Table<DirectoryRecord>) -> Self {
        let (log, clock) = (platform.log.clone(), platform.clock.clone());
        Self { log, clock, webhooks: platform.topic(Topic::Webhooks), numbers, heard: Mutex::default() }
    }

    /// The accounts whose templates have changed since the last call.
    pub(crate) fn take(&self) -> BTreeSet<WabaId> {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Listens until `shutdown` is cancelled.
    pub(crate) async fn follow(&self, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(LOOK, 30 * LOOK);
        loop {
            let wait = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                listened = self.listen() => match listened {
                    Ok(()) => {
                        backoff.reset();
                        LOOK
                    }
                    Err(failure) => {
                        tracing::debug!(%failure, "webhooks about templates are not heard");
                        backoff.grow()
                    }
                },
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    fn accounts(&self) -> BTreeSet<WabaId> {
        self.numbers.all().iter().filter_map(|record| record.waba_id.clone()).collect()
    }

    /// Listens as long as the accounts are the same.
    async fn listen(&self) -> Result<(), Failure> {
        let accounts = self.accounts();
        let Some(facts) = self.log.topic(&self.webhooks).await?.filter(|_| !accounts.is_empty()) else { return Ok(()) };
        // Account webhooks of one account stand in one partition; the others are not even fetched.
        let home = |account: &WabaId| partition_for(format!("{PREFIX}{account}").as_bytes(), facts.partitions);
        let homes: BTreeSet<u32> = accounts.iter().map(home).collect();
        let source = |partition| (TopicPartition { topic: self.webhooks.clone(), partition }, Start::End);
        let mut reader = self.log.assign(homes.into_iter().map(source).collect(), Isolation::Committed).await?;
        let heard = self.hear(reader.as_mut(), &accounts).await;
        reader.close().await;
        heard
    }

    async fn hear(&self, reader: &mut dyn Reader, accounts: &BTreeSet<WabaId>) -> Result<(), Failure> {
        while self.accounts() == *accounts {
            if let Polled::Records(records) = reader.poll(LOOK, 500).await? {
                let news = records.iter().filter_map(account_with_news);
                self.heard.lock().unwrap_or_else(PoisonError::into_inner).extend(news);
            }
        }
        Ok(())
    }
}

/// The account, when the item is about its templates, or about the limits and states of its numbers.
fn account_with_news(record: &Record) -> Option<WabaId> {
    // Nearly all records are messages and statuses: their keys say so, nothing is decoded.
    record.key.as_deref().filter(|key| key.starts_with(PREFIX.as_bytes()))?;
    let item: WebhookItem = decode(record.value.as_deref()?).ok()?;
    let tells = item.field.starts_with("message_template_")
        || matches!(
            item.field.as_str(),
            "template_category_update"
                | "template_correct_category_detection"
                | "phone_number_quality_update"
                | "business_capability_update"
                | "account_update"
        );
    tells.then_some(item.waba_id)
}

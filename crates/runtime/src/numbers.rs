//! The business numbers of the directory, what is set for them and their organizations, and what WhatsApp reports about them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::command::{DirectoryRecord, NumberSettings, NumberState};
use connector_domain::ids::{OrganizationId, PhoneNumberId};

use crate::failure::Failure;
use crate::platform::Platform;
use crate::service::Service;
use crate::status::Status;
use crate::table::Table;

/// Followed in memory. Clones are the same.
#[derive(Clone)]
pub struct Numbers {
    table: Table<DirectoryRecord>,
}

/// Whether a key of the directory is about numbers.
#[must_use]
pub fn is_kept(key: &str) -> bool {
    ["number/", "number-state/", "organization/"].iter().any(|prefix| key.starts_with(prefix))
}

fn number_key(id: &PhoneNumberId) -> String {
    format!("number/{id}")
}

fn state_key(id: &PhoneNumberId) -> String {
    format!("number-state/{id}")
}

fn organization_key(organization: &OrganizationId) -> String {
    format!("organization/{organization}")
}

impl Numbers {
    /// Empty until they are followed.
    #[must_use]
    pub fn new(platform: &Platform) -> Self {
        let topic = platform.topic(Topic::Directory);
        Self { table: Table::new(platform.log.clone(), platform.clock.clone(), topic, is_kept) }
    }

    /// Those of a table that is followed elsewhere.
    #[must_use]
    pub const fn of(table: Table<DirectoryRecord>) -> Self {
        Self { table }
    }

    /// Adds the task that keeps them up to date.
    pub fn follow(&self, name: &'static str, service: &mut Service) {
        let (table, shutdown, status) = (self.table.clone(), service.shutdown(), Status::default());
        // Ready from the start: whoever asks for what is missing waits for the end of the topic anyway.
        status.set_ready();
        service.task(name, status, async move {
            table.follow(shutdown).await;
            Ok(())
        });
    }

    /// A business number, as far as it is known.
    #[must_use]
    pub fn get(&self, id: &PhoneNumberId) -> Option<Arc<DirectoryRecord>> {
        self.table.get(&number_key(id))
    }

    /// Waits until what is known of these numbers is what the directory says as of this call.
    ///
    /// # Errors
    /// `Later` when the topic cannot be read to its end in time.
    pub async fn at_end(&self, ids: impl Iterator<Item = &PhoneNumberId>, within: Duration) -> Result<(), Failure> {
        let keys: BTreeSet<String> = ids.map(number_key).collect();
        self.table.at_end(&keys.into_iter().collect::<Vec<_>>(), within).await
    }

    async fn find(&self, key: &str, patience: Option<Duration>) -> Result<Option<Arc<DirectoryRecord>>, Failure> {
        match patience {
            None => Ok(self.table.get(key)),
            Some(within) => self.table.newest(key, within).await,
        }
    }

    /// A business number. With a patience it is the newest there is, and absence is final.
    ///
    /// # Errors
    /// `Later` when the topic cannot be read to its end in time.
    pub async fn number(
        &self,
        id: &PhoneNumberId,
        patience: Option<Duration>,
    ) -> Result<Option<Arc<DirectoryRecord>>, Failure> {
        self.find(&number_key(id), patience).await
    }

    /// The numbers there are, as far as they are known.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<DirectoryRecord>> {
        self.table.all_of("number/")
    }

    /// What is set for a number of an organization, as far as it is known. What cannot be set counts as not set.
    #[must_use]
    pub fn settings(&self, id: &PhoneNumberId, organization: &OrganizationId) -> NumberSettings {
        let of = |key: &str| self.set(key, organization, NumberSettings::clone).unwrap_or_default();
        of(&number_key(id)).over(&of(&organization_key(organization)))
    }

    /// What is set for a number of an organization, as of this call.
    ///
    /// # Errors
    /// `Later` when the topic cannot be read to its end in time.
    pub async fn newest_settings(
        &self,
        id: &PhoneNumberId,
        organization: &OrganizationId,
        within: Duration,
    ) -> Result<NumberSettings, Failure> {
        self.table.newest(&number_key(id), within).await?;
        self.table.newest(&organization_key(organization), within).await?;
        Ok(self.settings(id, organization))
    }

    /// Messages per second that may leave from a number: as set for it, its organization or, by `default`, the installation, and no more
    /// than WhatsApp reports that it takes.
    #[must_use]
    pub fn rate(&self, id: &PhoneNumberId, default: u32) -> u32 {
        let rate = |settings: &NumberSettings| settings.number_rate.and_then(|rate| u32::try_from(rate).ok());
        let owner = self.table.get(&number_key(id)).map(|record| record.organization_id.clone());
        let set = owner.and_then(|owner| {
            let of_number = self.set(&number_key(id), &owner, rate).flatten();
            of_number.or_else(|| self.set(&organization_key(&owner), &owner, rate).flatten())
        });
        let fastest = self.table.get(&state_key(id)).and_then(|record| record.state.as_ref()?.fastest());
        set.unwrap_or(default).min(fastest.unwrap_or(u32::MAX)).max(1)
    }

    fn set<T>(&self, key: &str, organization: &OrganizationId, read: impl FnOnce(&NumberSettings) -> T) -> Option<T> {
        let record = self.table.get(key).filter(|record| record.organization_id == *organization)?;
        record.settings.as_ref().filter(|settings| settings.check().is_ok()).map(read)
    }

    /// What WhatsApp reports about a number, as far as it is known.
    #[must_use]
    pub fn state(&self, id: &PhoneNumberId) -> NumberState {
        self.table.get(&state_key(id)).and_then(|record| record.state.clone()).unwrap_or_default()
    }
}

//! Who is in the directory already: numbers with their organizations, users with their numbers.

use std::collections::BTreeMap;

use bytes::Bytes;
use connector_contracts::{Topic, Topics, decode};
use connector_domain::command::{DirectoryKind, DirectoryRecord, NumberSettings};
use connector_ports::Log;
use connector_ports::log::Record;

use crate::{Failed, open};

/// Numbers and users, of the directory and of the file so far.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The organization of each number.
    pub(crate) numbers: BTreeMap<String, String>,
    /// What is set for numbers.
    pub(crate) settings: BTreeMap<String, NumberSettings>,
    /// The number of each user, by organization and user. `None`: not enabled.
    pub(crate) users: BTreeMap<(String, String), Option<String>>,
}

impl Known {
    /// Reads the directory up to its end.
    pub(crate) async fn read(log: &dyn Log, topics: &Topics) -> Result<Self, Failed> {
        let mut newest: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
        let wanted = |key: &Bytes| key.starts_with(b"number/") || key.starts_with(b"user/");
        open::each_record(log, &topics.name(Topic::Directory).as_str().into(), |record: &Record| {
            if let Some(key) = record.key.as_ref().filter(|key| wanted(key)) {
                newest.insert(key.clone(), record.value.clone());
            }
            Ok(())
        })
        .await?;
        let mut known = Self::default();
        // What cannot be read is a dead letter already, and nobody's.
        let records = newest.into_values().flatten().filter_map(|value| decode::<DirectoryRecord>(&value).ok());
        records.for_each(|record| known.add(&record));
        Ok(known)
    }

    /// Counts a record in.
    pub(crate) fn add(&mut self, record: &DirectoryRecord) {
        let organization = record.organization_id.to_string();
        match (record.kind, &record.phone_number_id, &record.user_id) {
            (DirectoryKind::Number, Some(number), _) => {
                self.numbers.insert(number.to_string(), organization);
                if let Some(settings) = &record.settings {
                    self.settings.insert(number.to_string(), settings.clone());
                }
            }
            (DirectoryKind::User, number, Some(user)) => {
                let number = number.as_ref().filter(|_| record.enabled).map(ToString::to_string);
                self.users.insert((organization, user.to_string()), number);
            }
            _ => {}
        }
    }

    /// Counts a tombstone in.
    pub(crate) fn remove(&mut self, record: &DirectoryRecord) {
        match (record.kind, &record.phone_number_id, &record.user_id) {
            (DirectoryKind::Number, Some(number), _) => {
                self.numbers.remove(number.as_str());
                self.settings.remove(number.as_str());
            }
            (DirectoryKind::User, _, Some(user)) => {
                self.users.remove(&(record.organization_id.to_string(), user.to_string()));
            }
            _ => {}
        }
    }

    /// Whether a number is this organization's.
    pub(crate) fn is_number_of(&self, number: &str, organization: &str) -> bool {
        self.numbers.get(number).is_some_and(|owner| owner == organization)
    }
}

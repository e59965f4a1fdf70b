//! The organizations of a partition by small numbers, so that a timer's key can name one without taking much space.

use std::collections::HashMap;

use bytes::Bytes;
use connector_domain::ids::OrganizationId;
use connector_ports::Gate;
use connector_ports::gate::{Change, View};
use connector_ports::log::Offset;
use connector_runtime::failure::Failure;
use connector_runtime::projection::Projection;

/// How many organizations there are.
const COUNT: &str = "o";

/// The leads under which the timers were set.
const LEADS: &str = "leads";

/// The organizations of one partition's view, in the order in which they first had a window.
#[derive(Debug, Default)]
pub(crate) struct Names {
    organizations: Vec<OrganizationId>,
    numbers: HashMap<String, usize>,
    /// So many of them stand in the view; the others are on their way there.
    stored: usize,
    /// So many were given out by [`Names::changes`].
    offered: usize,
    /// Whether the view names its leads.
    leads: bool,
}

/// The values of a view: as its owner reads them, and as everybody else does, who has to know from which position on they count.
pub(crate) enum Values<'a> {
    Owned(&'a mut Projection, u32),
    Seen(&'a dyn Gate, &'a View, Offset),
}

impl Values<'_> {
    async fn of(&mut self, keys: &[String]) -> Result<Vec<Option<Bytes>>, Failure> {
        match self {
            Self::Owned(projection, partition) => projection.read(*partition, keys).await,
            Self::Seen(gate, view, position) => {
                let found = gate.read(view, keys).await?;
                if found.applied < Some(*position) {
                    return Err(Failure::Later(format!("{view} is being built again")));
                }
                Ok(found.answers)
            }
        }
    }

    /// The leads that the view names.
    pub(crate) async fn leads(&mut self) -> Result<Option<Bytes>, Failure> {
        Ok(self.of(&[LEADS.to_owned()]).await?.pop().flatten())
    }
}

impl Names {
    /// Reads what the view has.
    pub(crate) async fn read(mut values: Values<'_>) -> Result<Self, Failure> {
        let mut names = Self { leads: values.leads().await?.is_some(), ..Self::default() };
        let broken = || Failure::Reinitialise("the organizations of a view cannot be read".to_owned());
        let text = |value: Option<Bytes>| String::from_utf8(value?.to_vec()).ok();
        let Some(count) = values.of(&[COUNT.to_owned()]).await?.pop().flatten() else {
            return Ok(names);
        };
        let count: usize = text(Some(count)).and_then(|count| count.parse().ok()).ok_or_else(broken)?;
        let keys: Vec<String> = (0..count).map(key_of).collect();
        for value in values.of(&keys).await? {
            names.number(&text(value).ok_or_else(broken)?);
        }
        (names.stored, names.offered) = (count, count);
        Ok(names)
    }

    /// The number of an organization, a new one if need be.
    fn number(&mut self, organization: &str) -> usize {
        if let Some(number) = self.numbers.get(organization) {
            return *number;
        }
        let number = self.organizations.len();
        self.organizations.push(organization.into());
        self.numbers.insert(organization.to_owned(), number);
        number
    }

    /// The key of a conversation's timer.
    pub(crate) fn key(&mut self, organization: &str, stream: &str) -> String {
        format!("{}.{stream}", self.number(organization))
    }

    /// The key of a conversation's timer, if the organization has a number.
    pub(crate) fn known_key(&self, organization: &str, stream: &str) -> Option<String> {
        self.numbers.get(organization).map(|number| format!("{number}.{stream}"))
    }

    /// Whose timer it is.
    pub(crate) fn owner<'a>(&self, key: &'a str) -> Option<(&OrganizationId, &'a str)> {
        let (number, stream) = key.split_once('.')?;
        Some((self.organizations.get(number.parse::<usize>().ok()?)?, stream))
    }

    /// What the view does not have yet.
    pub(crate) fn changes(&mut self, leads: &str) -> Vec<Change> {
        let put = |key: String, value: String| Change::Put { key, value: value.into() };
        let fresh = self.organizations.iter().enumerate().skip(self.stored);
        let mut changes: Vec<_> = fresh.map(|(number, name)| put(key_of(number), name.to_string())).collect();
        if !changes.is_empty() {
            changes.push(put(COUNT.to_owned(), self.organizations.len().to_string()));
        }
        if !self.leads {
            changes.push(put(LEADS.to_owned(), leads.to_owned()));
        }
        self.offered = self.organizations.len();
        changes
    }

    /// What [`Names::changes`] gave stands in the view.
    pub(crate) fn stored(&mut self) {
        self.leads |= self.offered > 0;
        self.stored = self.offered;
    }
}

fn key_of(number: usize) -> String {
    format!("o:{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organization_keeps_its_number_and_is_written_once() {
        let mut names = Names::default();
        let keys = ["acme", "zoo", "acme"].map(|name| names.key(name, "k1-a.b"));
        assert_eq!(keys, ["0.k1-a.b", "1.k1-a.b", "0.k1-a.b"]);
        assert_eq!(names.owner(&keys[1]), Some((&"zoo".into(), "k1-a.b")));
        assert_eq!([names.owner("2.x"), names.owner("x"), names.owner(".x")], [None; 3]);
        assert_eq!(names.changes("").len(), 4);
        assert_eq!(names.changes("").len(), 4, "until it is stored");
        names.stored();
        assert!(names.changes("").is_empty());
    }
}

//! Positions that open transactions hold: whoever owns such a partition next finds out whose transaction that is.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use connector_ports::log::TopicPartition;

use crate::group::{Groups, Ticket};
use crate::store::{Positions, Session};

#[derive(Clone)]
struct Holder {
    session: Session,
    ticket: Ticket,
}

/// All holds of a log.
#[derive(Default)]
pub(crate) struct Holds {
    by_partition: Mutex<HashMap<(String, TopicPartition), Holder>>,
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, TopicPartition), Holder>> {
        self.by_partition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open transaction of this session holds positions.
    pub(crate) fn begin(&self, session: &Session, ticket: &Ticket, held: &Positions) {
        let mut holds = self.lock();
        for (partition, _) in &held.positions {
            let holder = Holder { session: session.clone(), ticket: ticket.clone() };
            holds.insert((held.group.clone(), partition.clone()), holder);
        }
    }

    /// That transaction ended.
    pub(crate) fn end(&self, session: &Session, held: &Positions) {
        let mut holds = self.lock();
        for (partition, _) in &held.positions {
            let key = (held.group.clone(), partition.clone());
            if holds.get(&key).is_some_and(|holder| holder.session == *session) {
                holds.remove(&key);
            }
        }
    }

    /// Transactional ids of those who hold one of these partitions and do not own it any more.
    pub(crate) fn stale(&self, groups: &Groups, group: &str, partitions: &[TopicPartition]) -> BTreeSet<String> {
        let holder = |partition: &TopicPartition| {
            self.lock().get(&(group.to_owned(), partition.clone())).cloned().map(|holder| (partition.clone(), holder))
        };
        // The lock of the groups is never taken inside that of the holds.
        let holders: Vec<_> = partitions.iter().filter_map(holder).collect();
        let stale = holders.into_iter().filter(|(partition, holder)| {
            groups.fenced_call(&holder.ticket, std::iter::once(partition), || ()).is_err()
        });
        stale.map(|(_, holder)| holder.session.id).collect()
    }
}

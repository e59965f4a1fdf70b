//! Consumer groups inside one process: who owns which partition, and the handshake with which a partition changes hands.
//!
//! A partition goes to member number (partition modulo members). It leaves its owner only after [`Groups::release`], or when the owner
//! left. Every change of an owner has a number; a [`Ticket`] is good for what its member has owned without interruption
//! since before the ticket was made.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connector_ports::log::{LogError, TopicName, TopicPartition};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long the place of a static member is kept after it closed.
const STATIC_MEMBER_KEPT: Duration = Duration::from_secs(10);

/// All groups of a log.
pub struct Groups {
    groups: Mutex<HashMap<String, Group>>,
    changed: watch::Sender<u64>,
}

/// A place in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    group: String,
    member: u64,
    incarnation: u64,
}

/// Proof of what a member knew about its ownership.
#[derive(Clone, Debug)]
pub struct Ticket {
    place: Place,
    revision: u64,
}

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Owned from now on.
    Assigned(Vec<TopicPartition>),
    /// Asked back.
    Revoked(Vec<TopicPartition>),
    /// Owned no more.
    Lost(Vec<TopicPartition>),
}

#[derive(Default)]
struct Group {
    members: BTreeMap<u64, Member>,
    owners: BTreeMap<TopicPartition, Owner>,
    revision: u64,
    joined: u64,
    /// Moves the assignment on, so that a lost partition finds another owner.
    evictions: usize,
}

struct Member {
    name: Option<String>,
    topics: Vec<TopicName>,
    incarnation: u64,
    notices: VecDeque<(u64, Notice)>,
    /// Told everything up to this revision.
    told: u64,
    away_since: Option<Instant>,
}

struct Owner {
    member: u64,
    since: u64,
    asked_back: bool,
}

impl Group {
    /// Moves towards the wanted assignment as far as owners allow. `count` tells the partitions of a topic.
    fn balance(&mut self, count: &dyn Fn(&TopicName) -> u32) {
        self.revision += 1;
        let mut subscribers: BTreeMap<&TopicName, Vec<u64>> = BTreeMap::new();
        for (id, member) in &self.members {
            for topic in &member.topics {
                subscribers.entry(topic).or_default().push(*id);
            }
        }
        let mut given: BTreeMap<u64, Vec<TopicPartition>> = BTreeMap::new();
        let mut asked: BTreeMap<u64, Vec<TopicPartition>> = BTreeMap::new();
        for (topic, members) in subscribers {
            for number in 0..count(topic) {
                let partition = TopicPartition::new(topic.clone(), number);
                let wanted = members[(number as usize + self.evictions) % members.len()];
                match self.owners.get_mut(&partition) {
                    None => {
                        let owner = Owner { member: wanted, since: self.revision, asked_back: false };
                        self.owners.insert(partition.clone(), owner);
                        given.entry(wanted).or_default().push(partition);
                    }
                    Some(owner) if owner.member != wanted && !owner.asked_back => {
                        owner.asked_back = true;
                        asked.entry(owner.member).or_default().push(partition);
                    }
                    Some(_) => {}
                }
            }
        }
        for (member, partitions) in asked {
            self.tell(member, Notice::Revoked(partitions));
        }
        for (member, partitions) in given {
            self.tell(member, Notice::Assigned(partitions));
        }
    }

    fn tell(&mut self, member: u64, notice: Notice) {
        let revision = self.revision;
        if let Some(member) = self.members.get_mut(&member) {
            member.notices.push_back((revision, notice));
        }
    }

    fn remove(&mut self, member: u64) {
        self.members.remove(&member);
        self.owners.retain(|_, owner| owner.member != member);
    }

    fn member(&mut self, place: &Place) -> Result<&mut Member, LogError> {
        let member = self.members.get_mut(&place.member).filter(|member| member.incarnation == place.incarnation);
        member.ok_or_else(|| LogError::Fenced { reason: format!("no longer a member of group {}", place.group) })
    }

    /// Members whose place is not kept any longer.
    fn expired(&self) -> Vec<u64> {
        let over = |member: &Member| member.away_since.is_some_and(|since| since.elapsed() >= STATIC_MEMBER_KEPT);
        self.members.iter().filter(|(_, member)| over(member)).map(|(id, _)| *id).collect()
    }
}

impl Default for Groups {
    fn default() -> Self {
        Self { groups: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Groups {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever some member has a new notice.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn notify(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// A new member; or, with the name of one that is known, its next incarnation: the earlier one is fenced and moves nothing.
    pub fn join(
        &self,
        group: &str,
        name: Option<String>,
        topics: Vec<TopicName>,
        count: &dyn Fn(&TopicName) -> u32,
    ) -> Place {
        let mut groups = self.lock();
        let state = groups.entry(group.to_owned()).or_default();
        let known = state.members.iter().find(|(_, member)| name.is_some() && member.name == name).map(|(id, _)| *id);
        state.revision += 1;
        let revision = state.revision;
        let id = known.unwrap_or(state.joined);
        let fresh = || Member {
            name,
            topics: vec![],
            incarnation: 0,
            notices: VecDeque::new(),
            told: revision,
            away_since: None,
        };
        let member = state.members.entry(id).or_insert_with(fresh);
        member.topics = topics;
        member.incarnation += 1;
        member.notices.clear();
        member.away_since = None;
        let place = Place { group: group.to_owned(), member: id, incarnation: member.incarnation };
        if known.is_some() {
            state.owners.retain(|_, owner| owner.member != id || !owner.asked_back);
            let mut kept = Vec::new();
            for (partition, owner) in state.owners.iter_mut().filter(|(_, owner)| owner.member == id) {
                owner.since = revision;
                kept.push(partition.clone());
            }
            if !kept.is_empty() {
                state.tell(id, Notice::Assigned(kept));
            }
        } else {
            state.joined += 1;
        }
        state.balance(count);
        drop(groups);
        self.notify();
        place
    }

    /// The next notice of a member.
    ///
    /// # Errors
    /// [`LogError::Fenced`] when it is no member any more.
    pub fn notice(&self, place: &Place, count: &dyn Fn(&TopicName) -> u32) -> Result<Option<Notice>, LogError> {
        let mut groups = self.lock();
        let Some(group) = groups.get_mut(&place.group) else { return Ok(None) };
        let expired = group.expired();
        if !expired.is_empty() {
            expired.into_iter().for_each(|member| group.remove(member));
            group.balance(count);
            self.notify();
        }
        let revision = group.revision;
        let member = group.member(place)?;
        let Some((told, notice)) = member.notices.pop_front() else {
            member.told = revision;
            return Ok(None);
        };
        member.told = told;
        Ok(Some(notice))
    }

    /// What the member knows by now. Notices it did not take yet are not part of it.
    ///
    /// # Errors
    /// [`LogError::Fenced`] when it is no member any more.
    pub fn ticket(&self, place: &Place) -> Result<Ticket, LogError> {
        let mut groups = self.lock();
        let group = groups.entry(place.group.clone()).or_default();
        let revision = group.member(place)?.told;
        Ok(Ticket { place: place.clone(), revision })
    }

    /// Makes the call while no partition can change its owner, if the ticket is good for all of these partitions.
    ///
    /// # Errors
    /// [`LogError::Fenced`] when it is not.
    pub fn fenced_call<'a, T>(
        &self,
        ticket: &Ticket,
        partitions: impl Iterator<Item = &'a TopicPartition>,
        call: impl FnOnce() -> T,
    ) -> Result<T, LogError> {
        let mut groups = self.lock();
        let group = groups.entry(ticket.place.group.clone()).or_default();
        group.member(&ticket.place)?;
        for partition in partitions {
            let owns = |owner: &Owner| owner.member == ticket.place.member && owner.since <= ticket.revision;
            if !group.owners.get(partition).is_some_and(owns) {
                return Err(LogError::Fenced { reason: format!("{partition} is not owned by this member any more") });
            }
        }
        Ok(call())
    }

    /// Hands back partitions that were asked back; others are left alone.
    pub fn release(&self, place: &Place, partitions: &[TopicPartition], count: &dyn Fn(&TopicName) -> u32) {
        let mut groups = self.lock();
        let Some(group) = groups.get_mut(&place.group) else { return };
        if group.member(place).is_err() {
            return;
        }
        group.owners.retain(|partition, owner| {
            !(owner.member == place.member && owner.asked_back && partitions.contains(partition))
        });
        group.balance(count);
        drop(groups);
        self.notify();
    }

    /// The member is gone. A named one keeps its place for a while, when `keep_static`.
    pub fn leave(&self, place: &Place, keep_static: bool, count: &dyn Fn(&TopicName) -> u32) {
        let mut groups = self.lock();
        let Some(group) = groups.get_mut(&place.group) else { return };
        let Ok(member) = group.member(place) else { return };
        if keep_static && member.name.is_some() {
            // From now on nobody speaks for this place: what was proven with it is stale.
            member.incarnation += 1;
            member.away_since = Some(Instant::now());
        } else {
            group.remove(place.member);
            group.balance(count);
        }
        drop(groups);
        self.notify();
    }

    /// Takes every partition from its owner without asking, as when sessions end, and gives them out again, to somebody else where there
    /// is somebody else. Old owners learn of it at
    /// their next poll; until then their tickets are stale.
    pub fn evict(&self, count: &dyn Fn(&TopicName) -> u32) {
        for group in self.lock().values_mut() {
            group.revision += 1;
            group.evictions += 1;
            let mut lost: BTreeMap<u64, Vec<TopicPartition>> = BTreeMap::new();
            for (partition, owner) in std::mem::take(&mut group.owners) {
                lost.entry(owner.member).or_default().push(partition);
            }
            for (member, partitions) in lost {
                group.tell(member, Notice::Lost(partitions));
            }
            group.balance(count);
        }
        self.notify();
    }

    /// Removes every member, as when their processes died and their sessions ended.
    pub fn clear(&self) {
        for group in self.lock().values_mut() {
            group.members.clear();
            group.owners.clear();
        }
        self.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "t";

    fn partitions(numbers: &[u32]) -> Vec<TopicPartition> {
        numbers.iter().map(|number| TopicPartition::new(TOPIC, *number)).collect()
    }

    fn two(_: &TopicName) -> u32 {
        2
    }

    #[tokio::test(start_paused = true)]
    async fn the_place_of_a_static_member_is_kept_for_a_while_only() {
        let groups = Groups::default();
        let join = |name: &str| groups.join("g", Some(name.to_owned()), vec![TOPIC.into()], &two);
        let notice = |place: &Place| groups.notice(place, &two).expect("a member");
        let a = join("a");
        let b = join("b");
        assert_eq!(notice(&a), Some(Notice::Assigned(partitions(&[0, 1]))));
        assert_eq!(notice(&a), Some(Notice::Revoked(partitions(&[1]))));
        groups.release(&a, &partitions(&[1]), &two);
        assert_eq!(notice(&b), Some(Notice::Assigned(partitions(&[1]))));
        groups.leave(&a, true, &two);
        tokio::time::advance(STATIC_MEMBER_KEPT - Duration::from_millis(1)).await;
        assert_eq!(notice(&b), None, "it may still come back");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(notice(&b), Some(Notice::Assigned(partitions(&[0]))));
    }

    #[test]
    fn a_static_member_that_comes_back_fences_its_former_self() {
        let groups = Groups::default();
        let join = || groups.join("g", Some("a".to_owned()), vec![TOPIC.into()], &two);
        let former = join();
        assert!(groups.notice(&former, &two).expect("a member").is_some());
        let ticket = groups.ticket(&former).expect("a ticket");
        let present = join();
        assert_eq!(groups.notice(&present, &two).expect("a member"), Some(Notice::Assigned(partitions(&[0, 1]))));
        let call = groups.fenced_call(&ticket, partitions(&[0]).iter(), || ());
        assert!(matches!(call, Err(LogError::Fenced { .. })), "{call:?}");
        assert!(matches!(groups.notice(&former, &two), Err(LogError::Fenced { .. })));
    }

    #[test]
    fn a_ticket_from_before_a_loss_is_stale_even_when_the_partition_came_back() {
        let groups = Groups::default();
        let member = groups.join("g", None, vec![TOPIC.into()], &two);
        while groups.notice(&member, &two).expect("a member").is_some() {}
        let owned = partitions(&[0]);
        let before = groups.ticket(&member).expect("a ticket");
        assert!(groups.fenced_call(&before, owned.iter(), || ()).is_ok());
        groups.evict(&two);
        let unaware = groups.ticket(&member).expect("a ticket");
        for stale in [&before, &unaware] {
            assert!(groups.fenced_call(stale, owned.iter(), || ()).is_err(), "the loss was not noticed yet");
        }
        while groups.notice(&member, &two).expect("a member").is_some() {}
        let aware = groups.ticket(&member).expect("a ticket");
        assert!(groups.fenced_call(&aware, owned.iter(), || ()).is_ok());
    }
}

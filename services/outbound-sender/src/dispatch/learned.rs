//! What an answer of WhatsApp tells about a person (R10): the number it knows them under, which may be another than the one that was asked
//! for. Their statuses and messages carry that one.

use std::collections::HashSet;

use connector_domain::ids::StreamId;
use connector_domain::outcome::{Answer, Exchange};
use connector_ports::log::Append;
use connector_runtime::failure::Failure;
use connector_runtime::people::People;

use super::{Dispatcher, Job};

/// So many pairs are remembered, so that a person who is known under two numbers is not looked up with each message.
const REMEMBERED: usize = 10_000;

/// Conversations and further identities of them that are settled.
#[derive(Debug, Default)]
pub(super) struct Learned(HashSet<(StreamId, StreamId)>);

impl Learned {
    fn remember(&mut self, pair: (StreamId, StreamId)) {
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(pair);
    }
}

impl Dispatcher {
    /// The events by which a further identity of the recipient joins the conversation; none when it is known.
    pub(super) async fn learn(&mut self, job: &Job, exchange: &Exchange) -> Result<Vec<Append>, Failure> {
        let Answer::Http { person, .. } = &exchange.answer else { return Ok(Vec::new()) };
        let (number, own) = (&job.dispatch.phone_number_id, &job.dispatch.conversation_id);
        let keys = &self.platform.keys;
        let by_phone = person.phone.as_ref().map(|phone| keys.by_phone(number, phone));
        let by_bsuid = person.bsuid.as_ref().map(|bsuid| keys.by_bsuid(number, bsuid));
        let is_news = |alias: &StreamId| alias != own && !self.learned.0.contains(&(own.clone(), alias.clone()));
        let aliases: Vec<StreamId> = by_phone.into_iter().chain(by_bsuid).filter(is_news).collect();
        if aliases.is_empty() {
            return Ok(Vec::new());
        }
        let mut people = People::default();
        let wanted = aliases.iter().chain([own]).cloned().collect();
        match people.read(&self.conversations, self.platform.partitions, wanted).await {
            Ok(()) => {}
            // The next message to this person tells it again.
            Err(Failure::Later(reason)) => {
                tracing::debug!(reason, "an identity is learned later");
                return Ok(Vec::new());
            }
            Err(failure) => return Err(failure),
        }
        let canonical = people.root(own);
        // A number that was handed over names one person after the other: an answer links nobody because of it.
        let aliases: Vec<_> = aliases.into_iter().filter(|alias| !people.was_handed_over(alias)).collect();
        let mut appends = Vec::new();
        for link in people.learn(&canonical, &canonical, &aliases) {
            for (stream, event, cause_id) in link.events(person) {
                appends.push(self.emitter.emit(event, &self.cause(job, &stream, cause_id, None))?);
            }
            people.add(&link);
        }
        for alias in aliases {
            self.learned.remember((own.clone(), alias));
        }
        Ok(appends)
    }
}

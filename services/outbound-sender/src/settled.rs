//! Situations that are good enough to refuse with (R2), for many questions at once.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use connector_domain::composer::Situation;
use connector_domain::identity::StreamKeys;
use connector_runtime::failure::Failure;
use connector_runtime::platform::Platform;
use connector_runtime::situation::{
    Question, alias_membership_keys, conversation_key, enablement_key, heed, load, membership_key, partition_of,
};
use connector_runtime::view::Reading;

/// Asks the views of the log's partitions once they have caught up, each partition once however many questions concern it.
pub(crate) struct Settled {
    reading: Reading,
    keys: StreamKeys,
    partitions: u32,
}

impl Settled {
    pub(crate) fn new(platform: &Platform) -> Self {
        Self { reading: platform.conversations(), keys: platform.keys.clone(), partitions: platform.partitions }
    }

    /// One answer per question; `None` where a view did not catch up within `within`, and nobody may be refused yet.
    pub(crate) async fn ask(
        &self,
        questions: &[Question],
        within: Duration,
    ) -> Result<Vec<Option<Situation>>, Failure> {
        let mut keys: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        let mut cells = Vec::with_capacity(questions.len());
        for question in questions {
            let user = self.keys.user(&question.organization_id, &question.user_id);
            let (conversation, home) =
                (partition_of(&question.conversation_id, self.partitions), partition_of(&user, self.partitions));
            let asked = [
                (conversation, conversation_key(&question.conversation_id)),
                (home, enablement_key(&user)),
                (home, membership_key(&user, &question.conversation_id)),
            ];
            for (partition, key) in &asked {
                keys.entry(*partition).or_default().push(key.clone());
            }
            cells.push(asked);
        }
        let mut known: BTreeMap<(u32, String), Option<Bytes>> = BTreeMap::new();
        for (partition, keys) in keys {
            match self.reading.caught_up(partition, &keys, within).await {
                Ok(answers) => {
                    known.extend(keys.into_iter().map(|key| (partition, key)).zip(answers));
                }
                Err(Failure::Later(reason)) => tracing::debug!(reason, "not settled yet"),
                Err(failure) => return Err(failure),
            }
        }
        let situation = |[conversation, enablement, membership]: &[(u32, String); 3]| {
            let (Some(conversation), Some(enablement), Some(membership)) =
                (known.get(conversation), known.get(enablement), known.get(membership))
            else {
                return Ok(None);
            };
            Ok(Some(Situation {
                conversation: load(conversation.as_ref())?,
                enablement: load(enablement.as_ref())?,
                is_contact: load::<u32>(membership.as_ref())? > 0,
            }))
        };
        let mut situations = cells.iter().map(situation).collect::<Result<Vec<_>, Failure>>()?;
        for (question, found) in questions.iter().zip(&mut situations) {
            let Some(situation) = found.as_mut().filter(|situation| !situation.is_contact) else { continue };
            let user = self.keys.user(&question.organization_id, &question.user_id);
            let aliases = alias_membership_keys(&user, &situation.conversation);
            if aliases.is_empty() {
                continue;
            }
            match self.reading.caught_up(partition_of(&user, self.partitions), &aliases, within).await {
                Ok(answers) => {
                    for answer in answers {
                        situation.is_contact |= load::<u32>(answer.as_ref())? > 0;
                    }
                }
                Err(Failure::Later(_)) => *found = None,
                Err(failure) => return Err(failure),
            }
        }
        for (question, found) in questions.iter().zip(&mut situations) {
            let Some(situation) = found else { continue };
            let of = vec![(&question.conversation_id, &mut situation.conversation)];
            match heed(&self.reading, self.partitions, of, Some(within)).await {
                Ok(()) => {}
                Err(Failure::Later(_)) => *found = None,
                Err(failure) => return Err(failure),
            }
        }
        Ok(situations)
    }
}

//! Whether a message may leave now: consent, window, template and life time once more (P9, P11), then WhatsApp's limits.

use std::time::Duration;

use connector_domain::composer::Situation;
use connector_domain::decide::{Reason, Rejection, decide_dispatch};
use connector_domain::template::Template;
use connector_domain::time::Timestamp;
use connector_ports::gate::Grant;
use connector_runtime::failure::Failure;
use connector_runtime::situation::Question;

use super::limits::Wanted;
use super::{Dispatcher, Job};

/// When a refusal that cannot be final yet is looked at again.
const AGAIN: Duration = Duration::from_millis(20);

/// The answer.
pub(super) enum Permit {
    /// It may leave, and what it takes from the limiters is taken.
    Go,
    /// Not before this moment. `free`: only WhatsApp's limits keep it from leaving then.
    Wait { until: Timestamp, free: bool },
    /// It must not leave any more.
    Never(Rejection),
}

impl Dispatcher {
    /// One answer per message, in order. Each projection, and each kind of limiter, is asked once.
    pub(super) async fn permits(&mut self, jobs: &[(usize, Job)], now: Timestamp) -> Result<Vec<Permit>, Failure> {
        let mut permits: Vec<Permit> = Vec::with_capacity(jobs.len());
        let mut asking = Vec::new();
        for (_, job) in jobs {
            // However the projections stand, late is late.
            if now > job.dispatch.not_after {
                permits.push(Permit::Never(Reason::Expired.at("not_after")));
            } else {
                asking.push(permits.len());
                permits.push(Permit::Go);
            }
        }
        let mut questions: Vec<Question> = asking.iter().map(|at| question(&jobs[*at].1)).collect();
        let situations = self.situations.followed(&mut questions).await?;
        let (mut doubtful, mut doubts) = (Vec::new(), Vec::new());
        for ((at, question), situation) in asking.into_iter().zip(questions).zip(situations) {
            if self.refusal(&jobs[at].1, &situation, None, now).await?.is_some() {
                doubtful.push((at, situation.conversation.canonical));
                doubts.push(question);
            }
        }
        if !doubts.is_empty() {
            // A lane that has to wait for a projection waits for itself.
            let settled = self.settled.ask(&doubts, Duration::ZERO).await?;
            for ((at, canonical), situation) in doubtful.into_iter().zip(settled) {
                // Linked a moment ago: the next reading shows where the conversation continues.
                permits[at] = match situation.filter(|situation| situation.conversation.canonical == canonical) {
                    None => Permit::Wait { until: now + AGAIN, free: false },
                    Some(situation) => match self.refusal(&jobs[at].1, &situation, Some(Duration::ZERO), now).await {
                        Ok(Some(rejection)) => Permit::Never(rejection),
                        Ok(None) => Permit::Go,
                        Err(Failure::Later(_)) => Permit::Wait { until: now + AGAIN, free: false },
                        Err(failure) => return Err(failure),
                    },
                };
            }
        }
        self.limit(jobs, &mut permits, now).await?;
        Ok(permits)
    }

    /// Why a message may not leave in this situation. With a patience, numbers and templates that are not there are not there.
    async fn refusal(
        &self,
        job: &Job,
        situation: &Situation,
        patience: Option<Duration>,
        now: Timestamp,
    ) -> Result<Option<Rejection>, Failure> {
        let dispatch = &job.dispatch;
        let number = self.tables.number(&dispatch.phone_number_id, patience).await?;
        let Some(number) = number.filter(|number| number.organization_id == dispatch.organization_id) else {
            return Ok(Some(Reason::NotEnabled.at("phone_number_id")));
        };
        let template = match (&dispatch.content.template, &number.waba_id) {
            (Some(call), Some(waba)) => {
                self.tables.template(&Template::key(waba, &call.name, &call.language), patience).await?
            }
            _ => None,
        };
        let rules = &self.platform.rules;
        Ok(decide_dispatch(situation, dispatch, template.as_deref(), rules, now).err())
    }

    async fn limit(&mut self, jobs: &[(usize, Job)], permits: &mut [Permit], now: Timestamp) -> Result<(), Failure> {
        let free: Vec<_> = (0..jobs.len()).filter(|at| matches!(permits[*at], Permit::Go)).collect();
        let wanted: Vec<_> = (free.iter())
            .map(|at| {
                let job = &jobs[*at].1;
                let conversation = (!job.is_receipt()).then_some(&job.dispatch.conversation_id);
                Wanted { command: job.id(), number: &job.dispatch.phone_number_id, conversation }
            })
            .collect();
        for (at, grant) in free.iter().zip(self.limits.take(&wanted, now).await?) {
            if let Grant::NotBefore(until) = grant {
                permits[*at] = Permit::Wait { until, free: true };
            }
        }
        self.platform.metrics.outbound.limited_here(self.limits.counted_here());
        Ok(())
    }
}

fn question(job: &Job) -> Question {
    Question {
        organization_id: job.dispatch.organization_id.clone(),
        user_id: job.dispatch.user_id.clone(),
        conversation_id: job.dispatch.conversation_id.clone(),
    }
}

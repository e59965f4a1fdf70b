//! Whether a message may leave now: consent, window, template and life time once more (P9, P11), then WhatsApp's limits.

use std::time::Duration;

use connector_domain::command::{ContentKind, TemplateCall};
use connector_domain::composer::Situation;
use connector_domain::decide::{Reason, Rejection, decide_dispatch};
use connector_domain::identity::Address;
use connector_domain::ids::PhoneNumberId;
use connector_domain::template::Template;
use connector_domain::time::Timestamp;
use connector_ports::gate::Grant;
use connector_runtime::failure::Failure;
use connector_runtime::holding::Holding;
use connector_runtime::situation::Question;
use connector_runtime::tail::again;

use super::limits::Wanted;
use super::places::Found;
use super::{Dispatcher, Job};

/// The answer.
pub(super) enum Permit {
    /// It may leave, and what it takes from the limiters is taken. `to`: where its recipient is now.
    Go { to: Option<Address> },
    /// Not before this moment. `free`: only WhatsApp's limits keep it from leaving then.
    Wait { until: Timestamp, free: bool },
    /// It must not leave any more.
    Never(Rejection),
}

impl Dispatcher {
    /// One answer per message, in order, and for those that may leave what their POSTs have to wait for. Each projection, and each kind of limiter, is asked
    /// once: both at the same time when all messages are `new`, which is what everybody waits for at a usual load. Otherwise some wait for
    /// their turn at a limiter or for a projection to catch up; then limiters are asked for what may leave, so that nothing is taken and given
    /// back, or written and withdrawn, again and again.
    pub(super) async fn permits(
        &mut self,
        jobs: &[(usize, Job)],
        new: bool,
        now: Timestamp,
    ) -> Result<Vec<(Permit, Option<(Holding, usize)>)>, Failure> {
        // However the projections stand, late is late.
        let (late, asking): (Vec<_>, Vec<_>) = (0..jobs.len()).partition(|at| now > jobs[*at].1.dispatch.not_after);
        let mut permits: Vec<Permit> = jobs.iter().map(|_| Permit::Go { to: None }).collect();
        for at in late {
            permits[at] = Permit::Never(Reason::Expired.at("not_after"));
        }
        let holding = if new && !asking.is_empty() {
            self.both_at_once(jobs, &asking, &mut permits, now).await?
        } else {
            self.one_after_the_other(jobs, &asking, &mut permits, now).await?;
            None
        };
        self.platform.metrics.outbound.limited_here(self.limits.counted_here());
        self.platform.metrics.outbound.views_away(self.places.count());
        let mut open: Vec<Option<(Holding, usize)>> = permits.iter().map(|_| None).collect();
        for (nth, &at) in asking.iter().enumerate() {
            open[at] = holding.clone().map(|holding| (holding, nth));
        }
        Ok(permits.into_iter().zip(open).collect())
    }

    async fn one_after_the_other(
        &mut self,
        jobs: &[(usize, Job)],
        asking: &[usize],
        permits: &mut [Permit],
        now: Timestamp,
    ) -> Result<(), Failure> {
        let mut questions = questions(jobs, asking);
        let tables = self.tables.holding(asking.iter().map(|at| named(&jobs[*at].1)));
        let situations = self.places.settled(&self.situations, &mut questions, now).await?;
        let first = self.judge(jobs, asking, situations, permits, now).await?;
        for (nth, &at) in asking.iter().enumerate() {
            if !matches!(permits[at], Permit::Wait { .. }) && !tables.clone().holds(nth).await {
                permits[at] = Permit::Wait { until: again(jobs[at].1.queued_at, now), free: false };
            }
        }
        let free: Vec<_> = asking.iter().copied().filter(|at| permits[*at].is_go()).collect();
        let grants = self.limits.take(&wanted_by(jobs, &free), false, now).await?;
        limited(&free, grants, permits);
        self.first_contacts(jobs, first, permits, now).await
    }

    async fn both_at_once(
        &mut self,
        jobs: &[(usize, Job)],
        asking: &[usize],
        permits: &mut [Permit],
        now: Timestamp,
    ) -> Result<Option<Holding>, Failure> {
        let (taking, mut questions) = (wanted_by(jobs, asking), questions(jobs, asking));
        let found = async {
            let found = self.places.found(&self.situations, &mut questions, now).await?;
            // What the tables have now, or something newer, is decided on; whether it is the newest is asked meanwhile.
            let tables = self.tables.holding(asking.iter().map(|at| named(&jobs[*at].1)));
            Ok::<_, Failure>(match found {
                Found::Settled(situations) => (situations, tables),
                Found::ToHold(situations, basis) => {
                    let holding = self.situations.holding(basis).and(tables);
                    (situations.into_iter().map(Ok).collect(), holding)
                }
            })
        };
        let (found, grants) = futures::join!(found, self.limits.take(&taking, true, now));
        let grants = grants?;
        let (judged, holding) = match found {
            Ok((situations, holding)) => {
                let judged = self.judge(jobs, asking, situations, permits, now).await;
                if judged.is_ok() {
                    refused_as_found(jobs, asking, &holding, permits, now).await;
                }
                (judged, Some(holding))
            }
            Err(failure) => (Err(failure), None),
        };
        let stays = |at: usize| judged.is_err() || !permits[at].is_go();
        let unused: Vec<_> = (taking.iter().zip(&grants).zip(asking))
            .filter(|((_, grant), at)| **grant == Grant::Granted && stays(**at))
            .map(|((wanted, _), _)| wanted)
            .collect();
        self.limits.unused(&unused, now).await;
        let first = judged?;
        limited(asking, grants, permits);
        self.first_contacts(jobs, first, permits, now).await?;
        Ok(holding)
    }

    /// Those that may leave and are a first word to somebody: not beyond the messaging limit that WhatsApp reports.
    async fn first_contacts(
        &mut self,
        jobs: &[(usize, Job)],
        mut first: Vec<usize>,
        permits: &mut [Permit],
        now: Timestamp,
    ) -> Result<(), Failure> {
        first.retain(|at| permits[*at].is_go());
        let taking = wanted_by(jobs, &first);
        for (at, wanted) in first.into_iter().zip(&taking) {
            if let Grant::NotBefore(until) = self.limits.first_contact(wanted, now).await? {
                self.limits.unused(&[wanted], now).await;
                permits[at] = Permit::Wait { until, free: true };
            }
        }
        Ok(())
    }

    /// Whether these may leave, by their situations. The answer: which of them are a first word to somebody, outside a window.
    async fn judge(
        &self,
        jobs: &[(usize, Job)],
        asking: &[usize],
        situations: Vec<Result<Option<Situation>, Timestamp>>,
        permits: &mut [Permit],
        now: Timestamp,
    ) -> Result<Vec<usize>, Failure> {
        let mut first = Vec::new();
        for (&at, situation) in asking.iter().zip(situations) {
            let job = &jobs[at].1;
            // A lane that has to wait for a projection waits for itself.
            let waits = || Permit::Wait { until: again(job.queued_at, now), free: false };
            if situation.as_ref().is_ok_and(|found| found.as_ref().is_some_and(|found| is_first(job, found, now))) {
                first.push(at);
            }
            permits[at] = match situation {
                Err(until) => Permit::Wait { until, free: false },
                Ok(None) => waits(),
                Ok(Some(situation)) if self.refusal(job, &situation, None, now).await?.is_none() => {
                    Permit::Go { to: situation.conversation.reached_at(&job.dispatch.address) }
                }
                // Numbers and templates may be news.
                Ok(Some(situation)) => match self.refusal(job, &situation, Some(Duration::ZERO), now).await {
                    Ok(Some(rejection)) => Permit::Never(rejection),
                    Ok(None) => Permit::Go { to: situation.conversation.reached_at(&job.dispatch.address) },
                    Err(Failure::Later(_)) => waits(),
                    Err(failure) => return Err(failure),
                },
            };
        }
        Ok(first)
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
}

/// The number and the template that a message names.
fn named(job: &Job) -> (PhoneNumberId, Option<&TemplateCall>) {
    (job.dispatch.phone_number_id.clone(), job.dispatch.content.template.as_ref())
}

/// Whether a message is the business's first word: a template while no window is open. These WhatsApp counts by people and day.
fn is_first(job: &Job, situation: &Situation, now: Timestamp) -> bool {
    let open = situation.conversation.deadline.is_some_and(|deadline| now < deadline);
    job.dispatch.content.kind == ContentKind::Template && !open
}

/// A refusal is final, and nothing is written before it: it waits for the answer right here.
async fn refused_as_found(
    jobs: &[(usize, Job)],
    asking: &[usize],
    holding: &Holding,
    permits: &mut [Permit],
    now: Timestamp,
) {
    for (nth, &at) in asking.iter().enumerate() {
        if matches!(permits[at], Permit::Never(_)) && !holding.clone().holds(nth).await {
            permits[at] = Permit::Wait { until: again(jobs[at].1.queued_at, now), free: false };
        }
    }
}

impl Permit {
    const fn is_go(&self) -> bool {
        matches!(self, Self::Go { .. })
    }
}

/// What the limiters answered, for what may leave as far as its situation goes.
fn limited(asked: &[usize], grants: Vec<Grant>, permits: &mut [Permit]) {
    for (at, grant) in asked.iter().zip(grants) {
        if let (Grant::NotBefore(until), Permit::Go { .. }) = (grant, &permits[*at]) {
            permits[*at] = Permit::Wait { until, free: true };
        }
    }
}

/// What these messages take from the limiters.
fn wanted_by<'a>(jobs: &'a [(usize, Job)], asking: &[usize]) -> Vec<Wanted<'a>> {
    asking.iter().map(|at| wanted(&jobs[*at].1)).collect()
}

/// What a message takes from the limiters.
pub(super) fn wanted(job: &Job) -> Wanted<'_> {
    let conversation = (!job.is_receipt()).then_some(&job.dispatch.conversation_id);
    Wanted { command: job.id(), number: &job.dispatch.phone_number_id, conversation }
}

fn questions(jobs: &[(usize, Job)], asking: &[usize]) -> Vec<Question> {
    asking.iter().map(|at| question(&jobs[*at].1)).collect()
}

fn question(job: &Job) -> Question {
    Question {
        organization_id: job.dispatch.organization_id.clone(),
        user_id: job.dispatch.user_id.clone(),
        conversation_id: job.dispatch.conversation_id.clone(),
        addressed_at: None,
    }
}

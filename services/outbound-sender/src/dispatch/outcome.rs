//! What the end of an attempt leads to: events, journal, limits (R3, R4, R6).

use std::time::Duration;

use connector_domain::command::JournalKind;
use connector_domain::decide::Rejection;
use connector_domain::event::{
    Event, MessageFailed, MessageSent, MessageUnconfirmed, NumberPaused, NumberResumed, TimeSource,
};
use connector_domain::ids::{CommandId, PhoneNumberId, StreamId, Wamid};
use connector_domain::outcome::{Answer, Class, Exchange, Scope, Verdict, class, judge, judge_receipt, meaning};
use connector_domain::time::Timestamp;
use connector_ports::log::Append;
use connector_runtime::emit::Cause;
use connector_runtime::failure::Failure;
use connector_runtime::handler::Step;
use connector_runtime::tail::again;
use connector_telemetry::metrics::VerdictClass;

use super::journal::{self, Attempt, Ending};
use super::permit::wanted;
use super::{Dispatcher, Fact, Job, MOST_AMBIGUOUS, POLL};

type Ended = Result<Step<Fact>, Failure>;

/// First wait of a lane after an attempt that has to be repeated, doubled up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(60);
/// First pause of a number that is too fast.
const THROTTLED: Duration = Duration::from_secs(1);
/// The same when the whole account, or the app, is: their limits are counted in hours.
const ACCOUNT_THROTTLED: Duration = Duration::from_secs(30);

/// The subcode of a refusal.
const fn subcode(exchange: &Exchange) -> Option<i64> {
    match &exchange.answer {
        Answer::Http { error: Some(error), .. } => error.subcode,
        Answer::Http { error: None, .. } | Answer::Transport(_) => None,
    }
}

const fn metric(verdict: &Verdict) -> VerdictClass {
    match verdict {
        Verdict::Sent { .. } => VerdictClass::Sent,
        Verdict::NotSent => VerdictClass::NotSent,
        Verdict::Retry { .. } => VerdictClass::Retry,
        Verdict::ThrottleNumber { .. } => VerdictClass::ThrottleNumber,
        Verdict::ThrottlePair => VerdictClass::ThrottlePair,
        Verdict::Wait { .. } => VerdictClass::Wait,
        Verdict::Permanent { .. } => VerdictClass::Permanent,
        Verdict::Configuration { .. } => VerdictClass::Configuration,
        Verdict::StopNumber { .. } => VerdictClass::StopNumber,
        Verdict::Unconfirmed { .. } => VerdictClass::Unconfirmed,
    }
}

impl Dispatcher {
    pub(super) fn entry(
        &self,
        job: &Job,
        attempt: &Attempt,
        kind: JournalKind,
        ending: Option<&Ending>,
        at: Timestamp,
    ) -> Result<Append, Failure> {
        journal::entry(&self.emitter, (job.partition, job.offset), &job.dispatch, attempt, kind, ending, at)
    }

    pub(super) fn cause(&self, job: &Job, stream: &StreamId, cause_id: String, command: Option<CommandId>) -> Cause {
        Cause {
            organization_id: job.dispatch.organization_id.clone(),
            stream_id: stream.clone(),
            cause_id,
            command_id: command,
            occurred_at: self.platform.clock.now(),
            time_source: TimeSource::Connector,
            traceparent: job.traceparent.clone(),
        }
    }

    /// An outcome of the command. The end of a command names the command as its cause, so that there is one of each type at most.
    fn event(&self, job: &Job, cause_id: String, event: impl Into<Event>) -> Result<Append, Failure> {
        let cause = self.cause(job, &job.dispatch.conversation_id, cause_id, Some(job.id()));
        self.emitter.emit(event, &cause)
    }

    /// Something about the number of the message, in the number's own stream.
    fn about_number(&self, job: &Job, attempt: &Attempt, event: impl Into<Event>) -> Result<Append, Failure> {
        let stream = self.platform.keys.number(&job.dispatch.phone_number_id);
        self.emitter.emit(event, &self.cause(job, &stream, format!("attempt:{}", attempt.id), None))
    }

    /// The message is finished.
    pub(super) fn finish(&mut self, job: &Job) {
        let fate = self.journal(job.partition).finish(job.name());
        self.platform.metrics.outbound.unconfirmed(-i64::from(fate.is_some_and(|fate| fate.counted)));
    }

    /// The message is waited for, for people who look at the metrics.
    pub(super) fn count(&mut self, job: &Job) {
        if !std::mem::replace(&mut self.fate(job).counted, true) {
            self.platform.metrics.outbound.unconfirmed(1);
        }
    }

    /// An ending with its event, and the journal's word on it.
    fn written(&self, job: &Job, attempt: &Attempt, ending: &Ending, now: Timestamp) -> Result<Vec<Append>, Failure> {
        let dispatched = format!("dispatch:{}", job.id());
        let event: (String, Event) = match ending {
            Ending::Sent(wamid) => {
                let phone_number_id = job.dispatch.phone_number_id.clone();
                let (wamid, attempt_id, purpose) = (wamid.clone(), attempt.id, job.dispatch.purpose);
                let sent = MessageSent { phone_number_id, wamid, attempt_id, purpose };
                (dispatched, sent.into())
            }
            Ending::Failed { reason, code } => {
                let failed = MessageFailed { reason: reason.clone(), error_code: *code, attempt_id: Some(attempt.id) };
                (dispatched, failed.into())
            }
            Ending::Unconfirmed(observed) => {
                let unconfirmed = MessageUnconfirmed { attempt_id: attempt.id, observed: observed.clone() };
                (format!("attempt:{}", attempt.id), unconfirmed.into())
            }
            Ending::Retry { .. } => {
                return Ok(vec![self.entry(job, attempt, JournalKind::Concluded, Some(ending), now)?]);
            }
        };
        let entry = self.entry(job, attempt, JournalKind::Concluded, Some(ending), now)?;
        Ok(vec![self.event(job, event.0, event.1)?, entry])
    }

    fn end(&mut self, job: &Job, attempt: &Attempt, ending: &Ending, now: Timestamp) -> Result<Step<Fact>, Failure> {
        let written = self.written(job, attempt, ending, now)?;
        self.finish(job);
        Ok(Step::Done(written))
    }

    /// An ending that a transaction took away again is written once more.
    pub(super) fn again(
        &mut self,
        job: &Job,
        attempt: &Attempt,
        ending: Ending,
        now: Timestamp,
    ) -> Result<Step<Fact>, Failure> {
        match ending {
            Ending::Unconfirmed(observed) => self.unconfirmed(job, attempt, &observed, now),
            ending => self.end(job, attempt, &ending, now),
        }
    }

    /// Nobody knows whether the message left. It stands in the log as unconfirmed; a status may settle it at any time, and the
    /// policy of the command says whether it is sent once more. What follows waits until it cannot arrive any more.
    pub(super) fn unconfirmed(
        &mut self,
        job: &Job,
        attempt: &Attempt,
        observed: &str,
        now: Timestamp,
    ) -> Result<Step<Fact>, Failure> {
        let ending = Ending::Unconfirmed(observed.to_owned());
        if !job.repeats() && !self.may_arrive(job, *attempt, now) {
            return self.end(job, attempt, &ending, now);
        }
        let appends = self.written(job, attempt, &ending, now)?;
        self.fate(job).concluded(attempt.id, ending, true);
        self.count(job);
        Ok(Step::Wait { until: now + POLL, appends })
    }

    /// The end of a message that is not sent any more, when an earlier attempt may have arrived: then it did not fail, and the log
    /// says, or has said, that it is unconfirmed.
    fn stays_unconfirmed(&mut self, job: &Job, now: Timestamp) -> Result<Option<Step<Fact>>, Failure> {
        let fate = self.fate(job);
        let (told, Some(last)) = (fate.told, fate.last.filter(|_| fate.ambiguous > 0)) else { return Ok(None) };
        if told {
            self.finish(job);
            return Ok(Some(Step::Done(Vec::new())));
        }
        self.end(job, &last, &Ending::Unconfirmed("server_error".to_owned()), now).map(Some)
    }

    /// WhatsApp refuses the message for good.
    fn fail(&mut self, job: &Job, attempt: &Attempt, reason: &str, code: i64, now: Timestamp) -> Ended {
        match self.stays_unconfirmed(job, now)? {
            Some(step) => Ok(step),
            None => self.end(job, attempt, &Ending::Failed { reason: reason.to_owned(), code: Some(code) }, now),
        }
    }

    /// The message is not sent any more, because of a rule.
    pub(super) fn withdraw(&mut self, job: &Job, rejection: &Rejection, now: Timestamp) -> Result<Step<Fact>, Failure> {
        // As the probe of a paused number it finds out nothing any more.
        self.limits.learnt_nothing(&job.dispatch.phone_number_id, job.id());
        let last = self.fate(job).last;
        if let Some(step) = self.stays_unconfirmed(job, now)? {
            return Ok(step);
        }
        self.finish(job);
        tracing::debug!(command = %job.id(), reason = rejection.reason.as_str(), at = now.as_millis(), "withdrawn");
        let failed = MessageFailed {
            reason: rejection.reason.as_str().to_owned(),
            error_code: None,
            attempt_id: last.map(|last| last.id),
        };
        Ok(Step::Done(vec![self.event(job, format!("dispatch:{}", job.id()), failed)?]))
    }

    /// A message waits for a projection or for the limits. `free`: it is free to leave at that moment.
    pub(super) fn wait_for_leave(&mut self, job: &Job, until: Timestamp, free: bool) -> Step<Fact> {
        let until = until.min(job.dispatch.not_after + Duration::from_millis(1));
        if free {
            self.fate(job).free_at = Some(until);
        }
        Step::Wait { until, appends: Vec::new() }
    }

    /// A wait after the attempts so far: `least`, or longer the more there were, and up to half of that on top, so that lanes which
    /// failed together do not come back together.
    fn backoff(&self, least: Duration, tries: u32) -> Duration {
        let wait = least.max((FIRST * 2_u32.pow(tries.min(16))).min(LONGEST));
        let (_, random) = self.platform.ids.fresh().as_u64_pair();
        wait + wait.mul_f64(f64::from(u16::try_from(random & 0xffff).unwrap_or(0)) / 131_072.0)
    }

    /// The attempt is over and the message goes on waiting.
    fn repeat(&mut self, job: &Job, until: Timestamp, appends: Vec<Append>) -> Step<Fact> {
        let until = until.min(job.dispatch.not_after + Duration::from_millis(1));
        let fate = self.fate(job);
        if let Some(last) = fate.last {
            fate.withdrawn(last.id);
        }
        fate.tries += 1;
        fate.free_at = Some(until);
        Step::Wait { until, appends }
    }

    /// There was no POST: what the attempt was decided on lacked something (R2). The message waits for the projection, and what was taken from
    /// the limiters is given back.
    async fn held_back(&mut self, job: &Job, attempt: &Attempt, now: Timestamp) -> Ended {
        if let Some(issued) = self.issued.get_mut(&job.name()).filter(|issued| issued.attempt == attempt.id) {
            issued.concluded = true;
        }
        self.limits.unused(&[&wanted(job)], now).await;
        let withdrawn = self.entry(job, attempt, JournalKind::Withdrawn, None, now)?;
        self.fate(job).withdrawn(attempt.id);
        let until = again(job.queued_at, now).min(job.dispatch.not_after + Duration::from_millis(1));
        Ok(Step::Wait { until, appends: vec![withdrawn] })
    }

    /// The other numbers that a limit of this reach holds, too: those of the account, or all of the app's.
    async fn beside(&self, number: &PhoneNumberId, scope: Scope) -> Result<Vec<PhoneNumberId>, Failure> {
        let account = match scope {
            Scope::Message | Scope::Number => return Ok(Vec::new()),
            Scope::Account => match self.tables.number(number, None).await?.and_then(|known| known.waba_id.clone()) {
                Some(account) => Some(account),
                None => return Ok(Vec::new()),
            },
            Scope::App => None,
        };
        Ok(self.tables.numbers(account.as_ref()).into_iter().filter(|other| other != number).collect())
    }

    /// What one POST leads to.
    pub(super) async fn outcome(&mut self, fact: Fact) -> Result<Step<Fact>, Failure> {
        let Fact { job, attempt, exchange, took, held_back } = fact;
        let now = self.platform.clock.now();
        if held_back {
            return self.held_back(&job, &attempt, now).await;
        }
        let number = job.dispatch.phone_number_id.clone();
        let verdict = if job.is_receipt() { judge_receipt(&exchange) } else { judge(&exchange, job.dispatch.policy) };
        self.platform.metrics.outbound.judged(metric(&verdict), took);
        if let Some(issued) = self.issued.get_mut(&job.name()).filter(|issued| issued.attempt == attempt.id) {
            issued.concluded = true;
        }
        let tries = self.fate(&job).tries;
        let ambiguous = self.fate(&job).ambiguous;

        let mut about = Vec::new();
        match &verdict {
            Verdict::Configuration { .. } | Verdict::StopNumber { .. } => {}
            Verdict::NotSent | Verdict::Unconfirmed { .. } | Verdict::Retry { .. } | Verdict::ThrottleNumber { .. } => {
                self.limits.learnt_nothing(&number, job.id());
            }
            Verdict::Sent { .. } | Verdict::ThrottlePair | Verdict::Wait { .. } | Verdict::Permanent { .. } => {
                if self.limits.works(&number) {
                    let resumed = NumberResumed { phone_number_id: number.clone() };
                    about.push(self.about_number(&job, &attempt, resumed)?);
                }
            }
        }
        let definite = Ending::Retry { ambiguous: false };
        let retry = |this: &Self| this.written(&job, &attempt, &definite, now);
        let mut step = match verdict {
            Verdict::Sent { wamid, .. } => {
                // A receipt yields no id; what stands for it says whose it is.
                let wamid = wamid.unwrap_or_else(|| Wamid(format!("receipt:{}", attempt.id)));
                about.extend(self.learn(&job, &exchange).await?);
                self.end(&job, &attempt, &Ending::Sent(wamid), now)?
            }
            Verdict::Wait { code, .. } => self.fail(&job, &attempt, "wait", code, now)?,
            Verdict::Permanent { code } => self.fail(&job, &attempt, "permanent", code, now)?,
            Verdict::NotSent => {
                let withdrawn = self.entry(&job, &attempt, JournalKind::Withdrawn, None, now)?;
                let until = now + self.backoff(Duration::ZERO, tries);
                self.repeat(&job, until, vec![withdrawn])
            }
            Verdict::Retry { code, .. }
                if class(code, None) == Some(Class::Ambiguous) && ambiguous + 1 >= MOST_AMBIGUOUS =>
            {
                self.unconfirmed(&job, &attempt, "server_error", now)?
            }
            Verdict::Retry { after, scope, code } => {
                let ending = Ending::Retry { ambiguous: class(code, None) == Some(Class::Ambiguous) };
                let appends = self.written(&job, &attempt, &ending, now)?;
                self.fate(&job).concluded(attempt.id, ending, false);
                let until = now + self.backoff(after, tries);
                if scope != Scope::Message {
                    self.limits.rest(&number, now + after, now).await;
                }
                self.repeat(&job, until, appends)
            }
            Verdict::ThrottleNumber { scope, .. } => {
                let least = match scope {
                    Scope::Account | Scope::App => ACCOUNT_THROTTLED,
                    Scope::Number | Scope::Message => THROTTLED,
                };
                let until = self.limits.slow_down(&number, least, now).await;
                let others = self.beside(&number, scope).await?;
                self.limits.hold_numbers(&others, until, now).await;
                let appends = retry(self)?;
                self.repeat(&job, until, appends)
            }
            Verdict::ThrottlePair => {
                let until = self.limits.slow_pair(&job.dispatch.conversation_id, tries, now).await;
                let appends = retry(self)?;
                self.repeat(&job, until, appends)
            }
            Verdict::Configuration { code } | Verdict::StopNumber { code } => {
                let stopped = matches!(verdict, Verdict::StopNumber { .. });
                let (until, news) = self.limits.pause(&number, stopped, now).await;
                if news {
                    let subcode = subcode(&exchange);
                    let meaning = meaning(code, subcode).unwrap_or("unknown");
                    tracing::error!(%number, code, subcode, meaning, "WhatsApp refuses this number; it is paused");
                    let paused = NumberPaused { phone_number_id: number.clone(), error_code: code };
                    about.push(self.about_number(&job, &attempt, paused)?);
                }
                let appends = retry(self)?;
                self.repeat(&job, until, appends)
            }
            Verdict::Unconfirmed { observed } => self.unconfirmed(&job, &attempt, observed, now)?,
        };
        self.platform.metrics.outbound.paused_numbers(self.limits.paused_numbers());
        if let Step::Wait { appends, .. } | Step::Done(appends) = &mut step {
            appends.extend(about);
        }
        Ok(step)
    }
}

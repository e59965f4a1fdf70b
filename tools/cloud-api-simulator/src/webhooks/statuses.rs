//! What happens to an accepted message afterwards: which statuses come, in which order and when.

use std::{sync::Arc, time::Duration};

use super::build::{self, Line, Person, Reported};
use crate::{App, clock::now_ms, faults::StatusFaults, graph::errors::GraphError};

/// One status of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    after: Duration,
    status: &'static str,
}

/// The fate of a message.
#[derive(Debug)]
pub(crate) struct Fate {
    pub(crate) faults: StatusFaults,
    /// Ends as `failed` with this code.
    pub(crate) fail: Option<u32>,
    /// Held this long before anything happens.
    pub(crate) hold_ms: u64,
    /// Reactions get nothing after `sent`.
    pub(crate) only_sent: bool,
    pub(crate) delivery_delay: Duration,
    /// `None`: the contact does not read by itself.
    pub(crate) read_delay: Option<Duration>,
}

impl Fate {
    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step { after: Duration::ZERO, status: "sent" }];
        if self.fail.is_some() {
            steps[0].status = "failed";
        } else if !self.only_sent {
            steps.push(Step { after: self.delivery_delay, status: "delivered" });
            if let Some(after) = self.read_delay {
                steps.push(Step { after, status: "read" });
            }
        }
        if self.faults.reorder {
            // The pauses stay where they are; only the statuses change places.
            let reversed: Vec<&'static str> = steps.iter().rev().map(|step| step.status).collect();
            steps.iter_mut().zip(reversed).for_each(|(step, status)| step.status = status);
        }
        steps[0].after += Duration::from_millis(self.faults.delay_ms + self.hold_ms);
        steps
    }

    /// How often a status is sent.
    fn copies(&self, status: &str) -> usize {
        match (self.faults.drop_all || self.faults.drop.iter().any(|dropped| dropped == status), self.faults.duplicate)
        {
            (true, _) => 0,
            (false, duplicate) => 1 + usize::from(duplicate),
        }
    }
}

/// Lets the fate of a message take its course.
pub(crate) fn schedule(app: &Arc<App>, line: Line, person: Person, message: Reported, fate: Fate) {
    let app = Arc::clone(app);
    let epoch = app.epoch();
    tokio::spawn(async move {
        let error = fate.fail.map(GraphError::new);
        for step in fate.steps() {
            if !step.after.is_zero() {
                tokio::time::sleep(step.after).await;
            }
            if app.epoch() != epoch {
                return;
            }
            if let Some(contact) = app.contacts().get_mut(&person.wa_id) {
                contact.set_status(&line.phone_number_id, &message.wamid, step.status);
            }
            for _ in 0..fate.copies(step.status) {
                let error = if step.status == "failed" { error.as_ref() } else { None };
                app.outbox.push(build::status(&line, &person, &message, step.status, now_ms() / 1000, error));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate() -> Fate {
        Fate {
            faults: StatusFaults::default(),
            fail: None,
            hold_ms: 0,
            only_sent: false,
            delivery_delay: Duration::from_millis(5),
            read_delay: None,
        }
    }

    fn names(fate: &Fate) -> Vec<&'static str> {
        fate.steps().into_iter().map(|step| step.status).collect()
    }

    #[test]
    fn a_message_is_sent_and_delivered_and_read_only_by_readers() {
        assert_eq!(names(&fate()), ["sent", "delivered"]);
        assert_eq!(names(&Fate { read_delay: Some(Duration::ZERO), ..fate() }), ["sent", "delivered", "read"]);
        assert_eq!(names(&Fate { fail: Some(131_047), ..fate() }), ["failed"]);
        assert_eq!(names(&Fate { only_sent: true, ..fate() }), ["sent"]);
    }

    #[test]
    fn status_faults_change_the_plan() {
        let faults = StatusFaults { reorder: true, delay_ms: 7, ..StatusFaults::default() };
        let reordered = Fate { faults, ..fate() };
        assert_eq!(names(&reordered), ["delivered", "sent"]);
        assert_eq!(reordered.steps()[0].after, Duration::from_millis(7));
        let faults = StatusFaults { duplicate: true, drop: vec!["sent".to_owned()], ..StatusFaults::default() };
        let dropped = Fate { faults, ..fate() };
        assert_eq!((dropped.copies("sent"), dropped.copies("delivered")), (0, 2));
    }
}

//! Questions to the views while a part of the gate does not answer, or one view is built again: who asks another part is not kept waiting.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use connector_domain::composer::Situation;
use connector_domain::time::Timestamp;
use connector_runtime::failure::Failure;
use connector_runtime::holding::Basis;
use connector_runtime::situation::{Place, Question, Situations};
use connector_runtime::view::Reading;
use futures::future::join_all;

/// When a place that did not answer is asked again, at first; twice as long each time. A question that is not answered takes its time,
/// and everything else of its batch waits for it.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);

/// Places that do not answer.
#[derive(Default)]
pub(super) struct Places(HashMap<Place, Away>);

struct Away {
    until: Timestamp,
    wait: Duration,
}

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remembered {
    /// It is there.
    Yes,
    /// It is not in the log either.
    No,
    /// It may be in the log: the view has not applied it up to its end (R2).
    NotYet,
    /// Who would know does not answer.
    Away,
}

async fn remembered(reading: &Reading, partition: u32, ids: &[Bytes]) -> Result<Vec<Remembered>, Failure> {
    let end = reading.end(partition).await?;
    let snapshot = reading.recall(partition, ids).await?;
    let no = if snapshot.applied.unwrap_or_default() >= end { Remembered::No } else { Remembered::NotYet };
    Ok(snapshot.answers.iter().map(|found| if found.is_some() { Remembered::Yes } else { no }).collect())
}

/// Situations, as far as they are known.
pub(super) enum Found {
    /// As [`Situations::found`].
    ToHold(Vec<Option<Situation>>, Basis),
    /// As [`Places::settled`].
    Settled(Vec<Result<Option<Situation>, Timestamp>>),
}

impl Places {
    /// As [`Situations::found`] as long as every part of the gate answers, and else as [`Places::settled`].
    pub(super) async fn found(
        &mut self,
        situations: &Situations,
        questions: &mut [Question],
        now: Timestamp,
    ) -> Result<Found, Failure> {
        if self.0.is_empty() {
            match situations.found(questions).await {
                Err(Failure::Later(reason)) => tracing::debug!(reason, "a part of the gate does not answer"),
                found => return found.map(|(found, basis)| Found::ToHold(found, basis)),
            }
        }
        self.settled(situations, questions, now).await.map(Found::Settled)
    }

    /// As [`Situations::settled`]. An answer may be the moment from which on its place is asked again.
    pub(super) async fn settled(
        &mut self,
        situations: &Situations,
        questions: &mut [Question],
        now: Timestamp,
    ) -> Result<Vec<Result<Option<Situation>, Timestamp>>, Failure> {
        // Nobody may have asked for these again.
        self.0.retain(|_, away| now < away.until + LONGEST);
        if self.0.is_empty() {
            // As long as all answer it does not matter who was asked. A question that fails may be further along its links: it leads to the
            // same end from there.
            match situations.settled(questions).await {
                Err(Failure::Later(reason)) => tracing::debug!(reason, "a part of the gate does not answer"),
                answered => return answered.map(|found| found.into_iter().map(Ok).collect()),
            }
        }
        let places: Vec<Place> = questions.iter().map(|question| situations.place(question)).collect();
        let mut answers: Vec<Result<Option<Situation>, Timestamp>> =
            places.iter().map(|place| Err(self.away(place, now).unwrap_or(now))).collect();
        let mut by_place: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
        for (at, place) in places.iter().enumerate().filter(|(_, place)| self.away(place, now).is_none()) {
            by_place.entry(*place).or_default().push(at);
        }
        let asked = by_place.into_iter().map(|(place, positions)| {
            let mut own: Vec<Question> = positions.iter().map(|at| questions[*at].clone()).collect();
            async move {
                let found = situations.settled(&mut own).await;
                (place, positions, found.map(|found| (own, found)))
            }
        });
        for (place, positions, found) in join_all(asked).await {
            match found {
                Ok((own, found)) => {
                    self.answers(&place);
                    for ((at, question), situation) in positions.into_iter().zip(own).zip(found) {
                        questions[at] = question;
                        answers[at] = Ok(situation);
                    }
                }
                Err(Failure::Later(_)) => {
                    let until = self.does_not_answer(place, now);
                    for at in positions {
                        answers[at] = Err(until);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(answers)
    }

    /// What the views of these partitions remember of ids, as [`Reading::recall`].
    pub(super) async fn remembered(
        &mut self,
        reading: &Reading,
        ids: BTreeMap<u32, Vec<Bytes>>,
        now: Timestamp,
    ) -> Result<BTreeMap<u32, Vec<Remembered>>, Failure> {
        let asked = ids.into_iter().map(async |(partition, ids)| {
            let away = self.away(&[partition, partition], now).is_some();
            let found = if away { None } else { Some(remembered(reading, partition, &ids).await) };
            (partition, ids.len(), found)
        });
        let asked = join_all(asked).await;
        let mut answers = BTreeMap::new();
        for (partition, count, answer) in asked {
            let known = match answer {
                Some(Ok(known)) => {
                    self.answers(&[partition, partition]);
                    known
                }
                Some(Err(Failure::Later(_))) => {
                    self.does_not_answer([partition, partition], now);
                    vec![Remembered::Away; count]
                }
                Some(Err(failure)) => return Err(failure),
                None => vec![Remembered::Away; count],
            };
            answers.insert(partition, known);
        }
        Ok(answers)
    }

    /// How many do not answer.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Until when a place that did not answer is not asked.
    fn away(&self, place: &Place, now: Timestamp) -> Option<Timestamp> {
        self.0.get(place).map(|away| away.until).filter(|until| now < *until)
    }

    fn answers(&mut self, place: &Place) {
        if self.0.remove(place).is_some() && self.0.is_empty() {
            tracing::info!("every part of the gate that was asked answers again");
        }
    }

    fn does_not_answer(&mut self, place: Place, now: Timestamp) -> Timestamp {
        if self.0.is_empty() {
            tracing::warn!("a part of the gate does not answer: what needs it waits");
        }
        let wait = self.0.get(&place).map_or(FIRST, |away| (away.wait * 2).min(LONGEST));
        let until = now + wait;
        self.0.insert(place, Away { until, wait });
        until
    }
}

//! Questions to the views while a part of the gate does not answer, or one view is built again: who asks another part is not kept waiting.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use connector_domain::composer::Situation;
use connector_domain::time::Timestamp;
use connector_runtime::failure::Failure;
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

impl Places {
    /// As [`Situations::followed`]. An answer may be the moment from which on its place is asked again.
    pub(super) async fn followed(
        &mut self,
        situations: &Situations,
        questions: &mut [Question],
        now: Timestamp,
    ) -> Result<Vec<Result<Situation, Timestamp>>, Failure> {
        let places: Vec<Place> = questions.iter().map(|question| situations.place(question)).collect();
        let mut answers: Vec<Result<Situation, Timestamp>> =
            places.iter().map(|place| Err(self.away(place, now).unwrap_or(now))).collect();
        let asked: Vec<usize> = (0..places.len()).filter(|at| self.away(&places[*at], now).is_none()).collect();
        let ask = async |positions: &[usize], questions: &[Question]| {
            let mut own: Vec<Question> = positions.iter().map(|at| questions[*at].clone()).collect();
            situations.followed(&mut own).await.map(|found| (own, found))
        };
        let mut answered = vec![(asked.clone(), ask(&asked, questions).await)];
        if let [(_, Err(Failure::Later(reason)))] = answered.as_slice() {
            tracing::debug!(reason, "a part of the gate does not answer");
            let mut by_place: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
            for at in asked {
                by_place.entry(places[at]).or_default().push(at);
            }
            let questions = &*questions;
            answered = join_all(by_place.into_values().map(async |positions| {
                let found = ask(&positions, questions).await;
                (positions, found)
            }))
            .await;
        }
        for (positions, found) in answered {
            match found {
                Ok((own, found)) => {
                    for ((at, question), situation) in positions.into_iter().zip(own).zip(found) {
                        self.answers(&places[at]);
                        questions[at] = question;
                        answers[at] = Ok(situation);
                    }
                }
                Err(Failure::Later(_)) => {
                    let until = positions.first().map_or(now, |at| self.does_not_answer(places[*at], now));
                    for at in positions {
                        answers[at] = Err(until);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(answers)
    }

    /// Whether these are remembered, by the partition that would know: as [`Reading::recall`]. `None`: it does not answer.
    pub(super) async fn remembered(
        &mut self,
        reading: &Reading,
        ids: BTreeMap<u32, Vec<Bytes>>,
        now: Timestamp,
    ) -> Result<BTreeMap<u32, Option<Vec<bool>>>, Failure> {
        let asked = ids.into_iter().map(async |(partition, ids)| {
            let away = self.away(&[partition, partition], now).is_some();
            (partition, if away { None } else { Some(reading.recall(partition, &ids).await) })
        });
        let asked = join_all(asked).await;
        let mut answers = BTreeMap::new();
        for (partition, answer) in asked {
            let known = match answer {
                Some(Ok(snapshot)) => {
                    self.answers(&[partition, partition]);
                    Some(snapshot.answers.iter().map(Option::is_some).collect())
                }
                Some(Err(Failure::Later(_))) => {
                    self.does_not_answer([partition, partition], now);
                    None
                }
                Some(Err(failure)) => return Err(failure),
                None => None,
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
        // Nobody may have asked for them again.
        self.0.retain(|_, away| now < away.until + LONGEST);
        if self.0.is_empty() {
            tracing::warn!("a part of the gate does not answer: what needs it waits");
        }
        let wait = self.0.get(&place).map_or(FIRST, |away| (away.wait * 2).min(LONGEST));
        let until = now + wait;
        self.0.insert(place, Away { until, wait });
        until
    }
}

//! Records that were put aside are read again, beside the loop: by a task with a reader of its own.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::Log;
use connector_ports::log::{Isolation, LogError, Offset, Polled, Reader, Record, Start, TopicPartition};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Worker;
use crate::failure::Failure;
use crate::handler::Handler;
use crate::lanes::{QueueKey, Wanted};

/// How long one poll waits.
const WAIT: Duration = Duration::from_millis(500);
/// So many polls in a row may bring nothing.
const PATIENCE: u32 = 20;
/// Most records of one poll.
const AT_ONCE: usize = 1000;
/// A reader that nobody needs for so long is closed.
const UNUSED: Duration = Duration::from_secs(5);
/// When it is tried again after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// A record that was not found so often, each time with a new reader, is not there any more.
const MOST_MISSES: u32 = 3;

struct Question {
    partition: TopicPartition,
    offsets: Vec<Offset>,
}

type Answer = Result<Vec<Record>, LogError>;

/// What is being read.
struct Asked {
    partition: TopicPartition,
    incarnation: u64,
    queue: QueueKey,
    first: Option<Offset>,
}

/// The worker's side of it. One reading at a time.
#[derive(Default)]
pub(super) struct Rereading {
    /// Begun when it is first needed.
    task: Option<Task>,
    asked: Option<Asked>,
    not_before: Option<Timestamp>,
    misses: u32,
}

struct Task {
    questions: Sender<Question>,
    answers: Receiver<Answer>,
    /// It ends with the worker.
    _running: JoinSet<()>,
}

impl Task {
    fn begin(log: Arc<dyn Log>) -> Self {
        let (questions, asked) = channel(1);
        let (answered, answers) = channel(1);
        let mut running = JoinSet::new();
        running.spawn(serve(log, asked, answered));
        Self { questions, answers, _running: running }
    }
}

impl Rereading {
    /// The next answer. Cancel safe.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        match &mut self.task {
            Some(task) => task.answers.recv().await,
            None => pending().await,
        }
    }
}

/// Answers questions until nobody asks any more. The reader is kept while it is of use: what is aside often stands in a row.
async fn serve(log: Arc<dyn Log>, mut asked: Receiver<Question>, answered: Sender<Answer>) {
    let mut kept: Option<(TopicPartition, Box<dyn Reader>)> = None;
    loop {
        let question = match timeout(UNUSED, asked.recv()).await {
            Ok(Some(question)) => question,
            Ok(None) => return,
            Err(_) => {
                if let Some((_, reader)) = kept.take() {
                    reader.close().await;
                }
                continue;
            }
        };
        let answer = read(log.as_ref(), &mut kept, &question).await;
        let complete = answer.as_ref().is_ok_and(|records| records.len() == question.offsets.len());
        if !complete && let Some((_, reader)) = kept.take() {
            reader.close().await;
        }
        if answered.send(answer).await.is_err() {
            return;
        }
    }
}

/// The wanted records, as far as they are there.
async fn read(
    log: &dyn Log,
    kept: &mut Option<(TopicPartition, Box<dyn Reader>)>,
    Question { partition, offsets }: &Question,
) -> Answer {
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return Ok(Vec::new()) };
    let from = Start::At(*first);
    match kept.take() {
        Some((of, mut reader)) if of == *partition => {
            reader.seek(partition, from).await?;
            *kept = Some((of, reader));
        }
        other => {
            if let Some((_, reader)) = other {
                reader.close().await;
            }
            let reader = log.assign(vec![(partition.clone(), from)], Isolation::Committed).await?;
            *kept = Some((partition.clone(), reader));
        }
    }
    let mut found = Vec::with_capacity(offsets.len());
    let Some((_, reader)) = kept else { return Ok(found) };
    let mut silent = 0;
    loop {
        let polled = reader.poll(WAIT, AT_ONCE).await?;
        silent = if matches!(polled, Polled::Idle) { silent + 1 } else { 0 };
        match polled {
            Polled::Records(records) => {
                let over = records.last().is_some_and(|record| record.offset >= *last);
                found.extend(records.into_iter().filter(|record| offsets.binary_search(&record.offset).is_ok()));
                if over {
                    return Ok(found);
                }
            }
            Polled::CaughtUp(_, position) if position > *last => return Ok(found),
            Polled::Idle if silent == PATIENCE => {
                return Err(LogError::Unavailable { reason: format!("{partition} cannot be read again") });
            }
            _ => {}
        }
    }
}

impl<H: Handler> Worker<H> {
    /// Asks for records that are aside and could run.
    pub(super) fn read_again(&mut self) {
        let now = self.clock.now();
        if self.rereading.asked.is_some() || self.rereading.not_before.is_some_and(|moment| now < moment) {
            return;
        }
        let Some((partition, incarnation, Wanted { queue, offsets })) = self.partitions.wanted(now) else { return };
        tracing::debug!(worker = self.spec.name, %partition, count = offsets.len(), "reading again what was put aside");
        let first = offsets.first().copied();
        let task = self.rereading.task.get_or_insert_with(|| Task::begin(self.log.clone()));
        if task.questions.try_send(Question { partition: partition.clone(), offsets }).is_ok() {
            self.rereading.asked = Some(Asked { partition, incarnation, queue, first });
        }
    }

    /// Takes in what was read again.
    ///
    /// # Errors
    /// `Reinitialise` when the log does not have the records any more: whoever takes the partition over begins with what is there.
    pub(super) fn take_answer(&mut self, answer: Option<Answer>) -> Result<(), Failure> {
        let Some(Asked { partition, incarnation, queue, first }) = self.rereading.asked.take() else { return Ok(()) };
        let records = match answer {
            Some(Ok(records)) => records,
            Some(Err(error)) => {
                self.rereading.not_before = Some(self.clock.now() + AGAIN);
                return match Failure::from(error) {
                    Failure::Later(reason) => {
                        tracing::warn!(worker = self.spec.name, reason, "cannot read again what was put aside");
                        Ok(())
                    }
                    failure => Err(failure),
                };
            }
            None => return Err(Failure::Fatal("the task that reads again has ended".to_owned())),
        };
        if self.partitions.make_room(&partition, incarnation, queue, records.len()).is_none() {
            return Ok(());
        }
        if records.first().map(|record| record.offset) == first {
            self.rereading.misses = 0;
        } else {
            self.rereading.misses += 1;
            self.rereading.not_before = Some(self.clock.now() + AGAIN);
            if self.rereading.misses == MOST_MISSES {
                self.rereading.misses = 0;
                return Err(Failure::Reinitialise(format!("{partition} has lost records that were not finished")));
            }
        }
        for record in records {
            let (lane, _) = self.lane(&record);
            self.partitions.returned(record, lane);
        }
        Ok(())
    }
}

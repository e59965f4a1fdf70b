//! Memory for bodies. It is taken as bytes arrive, never for a length that was only declared; and when it is used up, it is taken back from
//! the body that has been arriving longest: whoever delivers in earnest is done by then.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::receiver::Refusal;

/// The unit of the budget.
const KIB: usize = 1024;

/// What is taken for the first bytes of a body.
const FIRST: usize = 4 * KIB;

/// How long memory may take to come back from whoever was told to give it back.
const HANDED_BACK: Duration = Duration::from_secs(1);

/// The budget, and the bodies that are being read.
pub(crate) struct Intake {
    budget: Semaphore,
    max_body: usize,
    reading: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    last: u64,
    by_turn: BTreeMap<u64, Arriving>,
}

struct Arriving {
    kib: usize,
    given_up: CancellationToken,
}

impl Intake {
    pub(crate) fn new(memory: usize, max_body: usize) -> Self {
        let budget = Semaphore::new((memory / KIB).min(Semaphore::MAX_PERMITS));
        Self { budget, max_body, reading: Mutex::default() }
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a body up to its end, with the memory it takes.
    pub(crate) async fn read(&self, body: Body, declared: Option<usize>) -> Result<(Bytes, Memory<'_>), Refusal> {
        let given_up = CancellationToken::new();
        let mut memory = Memory { intake: self, permit: None, turn: Some(self.begin(&given_up)) };
        let body = tokio::select! {
            biased;
            () = given_up.cancelled() => return Err(Refusal::Busy),
            body = self.fill(body, declared, &mut memory) => body?,
        };
        memory.arrived();
        Ok((body, memory))
    }

    async fn fill(&self, body: Body, declared: Option<usize>, memory: &mut Memory<'_>) -> Result<Bytes, Refusal> {
        let most = declared.unwrap_or(self.max_body).min(self.max_body);
        let (mut frames, mut taken) = (body.into_data_stream(), Vec::new());
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|_| Refusal::Broken)?;
            let needed = taken.len() + frame.len();
            if needed > self.max_body {
                return Err(Refusal::TooLarge);
            }
            if needed > taken.capacity() {
                // Twice as much each time, so that a body is not copied again and again.
                let capacity = (2 * needed).max(FIRST).min(most).max(needed);
                memory.at_least(capacity).await?;
                taken.reserve_exact(capacity - taken.len());
            }
            taken.extend_from_slice(&frame);
        }
        Ok(taken.into())
    }

    fn begin(&self, given_up: &CancellationToken) -> u64 {
        let mut reading = self.reading();
        reading.last += 1;
        let turn = reading.last;
        reading.by_turn.insert(turn, Arriving { kib: 0, given_up: given_up.clone() });
        turn
    }

    /// Gives up bodies, the longest in arriving first, until so much more is there. False when those are not enough, or when `asking` is
    /// itself the next to be given up.
    fn make_room(&self, missing: usize, asking: Option<u64>) -> bool {
        let mut reading = self.reading();
        let mut room = self.budget.available_permits();
        while room < missing {
            let Some((turn, arriving)) = reading.by_turn.pop_first() else { return false };
            if Some(turn) == asking {
                reading.by_turn.insert(turn, arriving);
                return false;
            }
            arriving.given_up.cancel();
            room += arriving.kib;
        }
        true
    }
}

/// What a delivery has of the budget.
pub(crate) struct Memory<'a> {
    intake: &'a Intake,
    permit: Option<SemaphorePermit<'a>>,
    /// Among the bodies that are being read.
    turn: Option<u64>,
}

impl<'a> Memory<'a> {
    /// Takes what is missing up to so many bytes.
    pub(crate) async fn at_least(&mut self, bytes: usize) -> Result<(), Refusal> {
        let (has, wanted) = (self.permit.as_ref().map_or(0, SemaphorePermit::num_permits), bytes.div_ceil(KIB));
        let missing = wanted.saturating_sub(has);
        if missing == 0 {
            return Ok(());
        }
        let weight = u32::try_from(missing).map_err(|_| Refusal::Busy)?;
        let more = match self.intake.budget.try_acquire_many(weight) {
            Ok(more) => more,
            Err(_) if self.intake.make_room(missing, self.turn) => {
                let acquired = timeout(HANDED_BACK, self.intake.budget.acquire_many(weight)).await;
                acquired.ok().and_then(Result::ok).ok_or(Refusal::Busy)?
            }
            Err(_) => return Err(Refusal::Busy),
        };
        self.add(more);
        if let Some(turn) = self.turn
            && let Some(arriving) = self.intake.reading().by_turn.get_mut(&turn)
        {
            arriving.kib = wanted;
        }
        Ok(())
    }

    fn add(&mut self, more: SemaphorePermit<'a>) {
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
    }

    fn arrived(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.intake.reading().by_turn.remove(&turn);
        }
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        self.arrived();
    }
}

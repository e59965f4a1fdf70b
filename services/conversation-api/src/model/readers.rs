//! The connections that read: a few, so that the questions of one organization do not hold up those of another (P4).

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use connector_domain::ids::OrganizationId;
use rusqlite::Connection;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::ModelError;

/// So many organizations can be answered at the same moment.
const READERS: usize = 4;

pub(super) struct Readers {
    connections: Connections,
    /// Whose question is being answered, or waits.
    turns: Mutex<HashMap<OrganizationId, Arc<tokio::sync::Mutex<()>>>>,
}

enum Connections {
    /// Those of a file that nobody reads with at the moment, as many as there are permits.
    Own { free: Free, permits: Arc<Semaphore> },
    /// A model in memory has one connection.
    Shared(Arc<Mutex<Connection>>),
}

type Free = Arc<Mutex<Vec<Connection>>>;

/// An organization's turn to ask.
pub(super) type Turn = OwnedMutexGuard<()>;

/// A connection that goes back when it is dropped, and then its permit.
struct Lent {
    /// `Some` until it is dropped.
    connection: Option<Connection>,
    free: Free,
    _permit: OwnedSemaphorePermit,
}

impl Lent {
    fn take(free: &Free, permit: OwnedSemaphorePermit) -> Option<Self> {
        let connection = Some(locked(free).pop()?);
        Some(Self { connection, free: free.clone(), _permit: permit })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        locked(&self.free).extend(self.connection.take());
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    /// Connections to a file; without one, the `writer` reads as well.
    pub(super) fn open(path: Option<&Path>, writer: &Arc<Mutex<Connection>>) -> Result<Self, ModelError> {
        let connections = match path {
            Some(path) => {
                let open = |_| {
                    let reader = Connection::open(path)?;
                    reader.execute_batch("PRAGMA busy_timeout = 5000; PRAGMA query_only = 1;")?;
                    reader.set_prepared_statement_cache_capacity(64);
                    Ok(reader)
                };
                let free: Vec<_> = (0..READERS).map(open).collect::<Result<_, rusqlite::Error>>()?;
                Connections::Own { free: Arc::new(Mutex::new(free)), permits: Arc::new(Semaphore::new(READERS)) }
            }
            None => Connections::Shared(writer.clone()),
        };
        Ok(Self { connections, turns: Mutex::default() })
    }

    /// Waits until no other question of this organization is being answered. Dropping the turn ends it.
    pub(super) async fn turn(&self, organization: &OrganizationId) -> Turn {
        let turn = {
            let mut turns = locked(&self.turns);
            // Those that nobody holds or waits for are over.
            if turns.len() > READERS {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            turns.entry(organization.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// Asks with the next connection that is free. A question whose asker has gone keeps connection and turn until it is answered.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        turn: Option<Turn>,
        ask: impl FnOnce(&Connection) -> Result<T, ModelError> + Send + 'static,
    ) -> Result<T, ModelError> {
        let run: Box<dyn FnOnce() -> Result<T, ModelError> + Send> = match &self.connections {
            Connections::Own { free, permits } => {
                let permit = permits.clone().acquire_owned().await.map_err(|_| ModelError::Ended)?;
                let lent = Lent::take(free, permit).ok_or(ModelError::Ended)?;
                Box::new(move || ask(lent.connection.as_ref().ok_or(ModelError::Ended)?))
            }
            Connections::Shared(connection) => {
                let connection = connection.clone();
                Box::new(move || ask(&locked(&connection)))
            }
        };
        let run = move || {
            let _turn = turn;
            run()
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| ModelError::Ended)?
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Longer than any of this takes.
    const LIMIT: Duration = Duration::from_secs(20);

    fn readers() -> (tempfile::TempDir, Arc<Readers>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let writer = Arc::new(Mutex::new(Connection::open(&path).unwrap()));
        let readers = Readers::open(Some(&path), &writer).unwrap();
        (folder, Arc::new(readers))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn long_questions_of_one_organization_hold_up_nobody_else() {
        let (_folder, readers) = readers();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let (started, mut running) = tokio::sync::mpsc::unbounded_channel();
        let mut long = Vec::new();
        for _ in 0..2 * READERS {
            let (readers, wait, started) = (readers.clone(), wait.clone(), started.clone());
            long.push(tokio::spawn(async move {
                let turn = readers.turn(&"many".into()).await;
                let ask = move |_: &Connection| {
                    let _ = started.send(());
                    let _ = locked(&wait).recv_timeout(LIMIT);
                    Ok(())
                };
                readers.ask(Some(turn), ask).await
            }));
        }
        running.recv().await.unwrap();
        // An asker who goes away leaves no place for a second question.
        long.remove(0).abort();
        for organization in ["few", "few", "other"] {
            let answer = async {
                let turn = readers.turn(&organization.into()).await;
                readers.ask(Some(turn), |_| Ok(7)).await
            };
            assert_eq!(tokio::time::timeout(LIMIT / 2, answer).await.expect("nobody is in the way").unwrap(), 7);
        }
        assert!(running.try_recv().is_err(), "one question of an organization at a time");
        drop(go_on);
        for question in long {
            let _ = question.await;
        }
        assert_eq!(readers.ask(None, |_| Ok(8)).await.unwrap(), 8, "every connection came back");
    }
}

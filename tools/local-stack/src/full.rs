//! A Redis at `maxclients`, as clients meet it.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::process::{ServerError, failed};
use crate::redis::order;

const REFUSAL: &[u8] = b"-ERR max number of clients reached\r\n";
/// How long a client may say nothing.
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(5);

/// A Redis without a place for another client, as long as this lives. It keeps its data.
#[derive(Debug)]
pub struct Full {
    port: u16,
    /// The one client that it has.
    inside: TcpStream,
    sent_away: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    at_the_door: Option<JoinHandle<()>>,
}

impl Full {
    /// Stands at the port that Redis has just left, `inside` being the way to it.
    pub(crate) fn stand_at(port: u16, inside: TcpStream) -> Result<Self, ServerError> {
        let listener = TcpListener::bind(("127.0.0.1", port)).map_err(failed("stand in the place of Redis"))?;
        listener.set_nonblocking(true).map_err(failed("stand in the place of Redis"))?;
        let (sent_away, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, ended) = (Arc::clone(&sent_away), Arc::clone(&over));
        let at_the_door = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        let counted = Arc::clone(&counted);
                        thread::spawn(move || {
                            send_away(client).ok();
                            counted.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(TICK),
                    Err(_) => {}
                }
            }
        });
        Ok(Self { port, inside, sent_away, over, at_the_door: Some(at_the_door) })
    }

    /// How many clients were sent away.
    #[must_use]
    pub fn sent_away(&self) -> usize {
        self.sent_away.load(Ordering::Relaxed)
    }

    /// Has places again.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub fn end(mut self) -> Result<(), ServerError> {
        self.leave();
        order(&mut self.inside, &format!("CONFIG SET port {}", self.port))
    }

    fn leave(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(at_the_door) = self.at_the_door.take() {
            at_the_door.join().ok();
        }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Answers everything that the client asks, until it hangs up.
fn send_away(mut client: TcpStream) -> std::io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(PATIENCE))?;
    let mut asked = [0; 4096];
    loop {
        let read = client.read(&mut asked)?;
        if read == 0 {
            return Ok(());
        }
        // Every command is an array: a line that begins with its length.
        let commands = asked[..read].split(|byte| *byte == b'\n').filter(|line| line.first() == Some(&b'*')).count();
        client.write_all(&REFUSAL.repeat(commands.max(1)))?;
    }
}

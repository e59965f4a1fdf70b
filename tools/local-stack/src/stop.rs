//! What ends this program: a signal, or the end of its standard input.

use std::io::Read;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use local_stack::ServerError;

/// Listens from the moment it is made.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    stdin: Option<oneshot::Receiver<()>>,
}

impl Stop {
    /// `with_stdin`: the end of standard input counts, too.
    pub(crate) fn listen(with_stdin: bool) -> Result<Self, ServerError> {
        let failed = |error: std::io::Error| ServerError(format!("cannot listen to signals: {error}"));
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        Ok(Self { interrupt, terminate, stdin: with_stdin.then(end_of_stdin) })
    }

    /// Ends when the program shall. Cancel safe.
    pub(crate) async fn wanted(&mut self) {
        let stdin = async {
            match &mut self.stdin {
                Some(ended) => drop(ended.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
            () = stdin => (),
        }
    }
}

/// A thread of its own: tokio's stdin would keep the runtime from ending.
fn end_of_stdin() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        std::io::stdin().lock().read_to_end(&mut Vec::new()).ok();
        ended.send(()).ok();
    });
    end
}

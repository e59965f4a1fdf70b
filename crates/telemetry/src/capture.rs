//! Catching log lines in tests, to show that something is said, or that something never is.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// The log lines written since the capture began, at every level.
#[derive(Debug, Clone, Default)]
pub struct LogCapture(Arc<Mutex<Vec<u8>>>);

impl LogCapture {
    /// Everything written so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// True when the text occurs anywhere in what was written: in a message, a field, or the fields of a span.
    pub fn contains(&self, text: &str) -> bool {
        self.text().contains(text)
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + 'static {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(self.clone())
            .finish()
    }
}

/// Captures the logs of this thread until the guard is dropped.
pub fn capture_logs() -> (LogCapture, DefaultGuard) {
    let capture = LogCapture::default();
    let guard = tracing::subscriber::set_default(capture.subscriber());
    (capture, guard)
}

/// Captures the logs of every thread of this process, from the first call on; all callers share what is captured. For
/// tests whose services run on a runtime of several threads.
///
/// # Panics
/// When the logs of the process already go elsewhere: the test would see nothing and pass for the wrong reason.
pub fn capture_all_logs() -> LogCapture {
    static ALL: OnceLock<LogCapture> = OnceLock::new();
    let installed = ALL.get_or_init(|| {
        let capture = LogCapture::default();
        let taken = tracing::subscriber::set_global_default(capture.subscriber()).is_err();
        assert!(!taken, "the logs of this process already go elsewhere");
        capture
    });
    installed.clone()
}

impl io::Write for LogCapture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogCapture {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_settings::Secret;

    #[test]
    fn a_capture_sees_messages_fields_and_span_fields_and_no_secret() {
        let (capture, guard) = capture_logs();
        let secret = Secret::new("planted-secret");
        tracing::trace_span!("outer", token = ?secret, known = "span field").in_scope(|| {
            tracing::debug!(token = ?secret, known = "event field", "the message");
        });
        drop(guard);
        tracing::info!("after the end");

        for seen in ["the message", "event field", "span field", "[redacted]"] {
            assert!(capture.contains(seen), "{seen} is not in {}", capture.text());
        }
        assert!(!capture.contains("planted-secret"));
        assert!(!capture.contains("after the end"));
    }
}

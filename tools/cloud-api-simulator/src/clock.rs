//! The one place where the simulator reads the wall clock.

use std::time::UNIX_EPOCH;

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this module is the simulator's clock")]
pub(crate) fn now_ms() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

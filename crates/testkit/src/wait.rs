//! Waiting on a condition with a deadline, instead of sleeping and hoping.

use std::time::Duration;

/// Asks `condition` again and again until it answers `Some`, and returns that answer.
///
/// # Panics
/// When `within` passes first; the message says what was waited for.
pub async fn until<T>(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(answer) = condition().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout(within, poll).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited {within:?} in vain for: {what}"),
    }
}

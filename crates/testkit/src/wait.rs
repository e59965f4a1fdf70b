//! Waiting on a condition with a deadline, instead of sleeping and hoping.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How often a condition is asked.
const AGAIN: Duration = Duration::from_millis(5);

/// Asks `condition` again and again until it answers `Some`, and returns that answer.
///
/// # Panics
/// When `within` passes first; the message says what was waited for.
pub async fn until<T>(what: &str, within: Duration, condition: impl AsyncFnMut() -> Option<T>) -> T {
    asking_every(AGAIN, what, within, condition).await
}

/// Waits until what `look` sees has not changed for `quiet`, and returns it: by then whatever would come too often has come.
///
/// # Panics
/// When `within` passes first; the message says what was watched.
pub async fn still<T: PartialEq>(what: &str, quiet: Duration, within: Duration, mut look: impl AsyncFnMut() -> T) -> T {
    let (mut since, mut seen) = (Instant::now(), look().await);
    let unchanged = async || {
        let now = look().await;
        if now != seen {
            (since, seen) = (Instant::now(), now);
        }
        (since.elapsed() >= quiet).then_some(())
    };
    asking_every(quiet / 20, what, within, unchanged).await;
    seen
}

async fn asking_every<T>(
    pause: Duration,
    what: &str,
    within: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let poll = async {
        loop {
            if let Some(answer) = condition().await {
                return answer;
            }
            sleep(pause).await;
        }
    };
    match timeout(within, poll).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited {within:?} in vain for: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_still_changes_is_not_still() {
        let began = Instant::now();
        let changing_for = |long: Duration| async move || began.elapsed().min(long).as_millis() / 100;
        let seen = still("a counter", SECOND, 10 * SECOND, changing_for(3 * SECOND)).await;
        assert_eq!(seen, 30);
        assert!((4 * SECOND..5 * SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "in vain for: a counter")]
    async fn what_never_is_still_is_told() {
        let mut count = 0;
        let counter = async || {
            count += 1;
            count
        };
        still("a counter", SECOND, 10 * SECOND, counter).await;
    }
}

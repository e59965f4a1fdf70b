//! Waiting longer after each failure, within a bound.

use std::time::Duration;

/// Doubles from `first` to `most`; a success starts over.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits between `first` and `most`.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next wait.
    pub fn grow(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.most);
        wait
    }

    /// Starts over.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }

    /// Whether anything failed since the last success.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.next != self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_a_success_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(35));
        let waits: Vec<_> = (0..4).map(|_| backoff.grow().as_millis()).collect();
        assert_eq!(waits, [10, 20, 35, 35]);
        backoff.reset();
        assert_eq!(backoff.grow().as_millis(), 10);
    }
}

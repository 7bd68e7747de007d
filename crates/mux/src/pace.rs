//! How fast a service's answers come, so that one that doesn't come can be called late.

use std::time::Duration;

/// What answers are taken to need where none has come.
const FIRST: Duration = Duration::from_millis(5);
/// A request is late after so many times what answers usually need, and after so long at least.
const PATIENCE: u32 = 8;
const LEAST: Duration = Duration::from_micros(1250);
/// Each answer moves the figure by one part in so many.
const STEP: u32 = 16;

/// The time within which half of the answers came of late.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace(Duration);

impl Pace {
    pub(crate) const FIRST: Self = Self(FIRST);

    /// Notes how long an answer took. Each counts alike, however long it was: some very slow ones don't make all others quick.
    pub(crate) fn note(&mut self, took: Duration, most: Duration) {
        let step = self.0 / STEP;
        self.0 = if took > self.0 { self.0 + step } else { self.0.saturating_sub(step) };
        self.0 = self.0.min(most / PATIENCE).max(LEAST);
    }

    /// How long a request may be without an answer until it's late: 10 ms at least.
    pub(crate) fn patience(self) -> Duration {
        self.0 * PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_most_answers_and_not_the_slowest() {
        let (mut pace, most) = (Pace::FIRST, Duration::from_secs(1));
        assert_eq!(pace.patience(), Duration::from_millis(40));
        for _ in 0..100 {
            pace.note(Duration::from_micros(200), most);
            pace.note(Duration::from_micros(200), most);
            pace.note(Duration::from_secs(3), most);
        }
        assert!(pace.patience() < Duration::from_millis(12), "{pace:?}");
        (0..200).for_each(|_| pace.note(Duration::from_millis(50), most));
        assert!((350..450).contains(&pace.patience().as_millis()), "{pace:?}");
        (0..200).for_each(|_| pace.note(Duration::from_secs(3), most));
        assert_eq!(pace.patience(), most);
    }
}

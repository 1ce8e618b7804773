//! When a request is tried again.

use std::time::Duration;

/// The pauses between tries: doubling, the same every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Tries after the first.
    pub retries: usize,
    /// The first pause.
    pub first: Duration,
    /// The longest pause of our own choice.
    pub longest: Duration,
    /// The longest pause a server may ask for.
    pub longest_asked: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            retries: 4,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(30),
            longest_asked: Duration::from_mins(1),
        }
    }
}

impl Schedule {
    /// The pause before retry `n` (from 0), `Retry-After` being `asked`; `None`: there is no such retry.
    pub fn pause(&self, n: usize, asked: Option<&str>) -> Option<Duration> {
        if n >= self.retries {
            return None;
        }
        // Seconds only; a date would have to be held against a clock that is not ours.
        if let Some(seconds) = asked.and_then(|text| text.trim().parse::<u64>().ok()) {
            return Some(Duration::from_secs(seconds).min(self.longest_asked));
        }
        let factor = 1_u32.checked_shl(u32::try_from(n).unwrap_or(u32::MAX)).unwrap_or(u32::MAX);
        Some(self.first.saturating_mul(factor).min(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        let schedule = Schedule { retries: 100, ..Schedule::default() };
        let ms = |n, asked| schedule.pause(n, asked).map(|d| d.as_millis());
        assert_eq!(
            [0, 1, 2, 5, 6, 99].map(|n| ms(n, None)),
            [500, 1000, 2000, 16_000, 30_000, 30_000].map(Some)
        );
        assert_eq!(ms(100, None), None);
        assert_eq!(ms(100, Some("1")), None);
        assert_eq!(ms(3, Some(" 7 ")), Some(7000));
        assert_eq!(ms(3, Some("0")), Some(0));
        assert_eq!(ms(3, Some("86400")), Some(60_000));
        assert_eq!(ms(0, Some("Wed, 21 Oct 2026 07:28:00 GMT")), Some(500));
    }
}

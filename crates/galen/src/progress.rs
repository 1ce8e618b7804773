//! Progress on stderr: bars with ETA on a terminal, a plain line now and then elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

static VERBOSITY: AtomicU8 = AtomicU8::new(0);

/// How often `-v` was given.
pub fn verbosity() -> u8 {
    VERBOSITY.load(Ordering::Relaxed)
}

/// Remembers how often `-v` was given.
pub fn set_verbosity(times: u8) {
    VERBOSITY.store(times, Ordering::Relaxed);
}

/// `1 row`, `2 rows`.
pub fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Time between plain lines where stderr is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(15);

/// Progress of one stage. Dropping it leaves the terminal clean; `finish` says what came of it.
pub struct Progress {
    name: String,
    total: u64,
    unit: Unit,
    bar: Option<ProgressBar>,
    plain: Mutex<Plain>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Steps, rows, questions.
    Items,
    /// Bytes.
    Bytes,
}

struct Plain {
    done: u64,
    message: String,
    began: Instant,
    said: Instant,
}

impl Progress {
    /// A stage of `total` units; 0 where the total is not known.
    pub fn new(name: impl Into<String>, total: u64, unit: Unit) -> Self {
        let name = name.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(style(total, unit));
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        let now = Instant::now();
        Self {
            name,
            total,
            unit,
            bar,
            plain: Mutex::new(Plain { done: 0, message: String::new(), began: now, said: now }),
        }
    }

    /// `n` more units are done.
    pub fn inc(&self, n: u64) {
        let count = |mut plain: std::sync::MutexGuard<Plain>| {
            plain.done = plain.done.saturating_add(n);
            plain.done
        };
        let done = self.plain.lock().map_or(0, count);
        self.set(done);
    }

    /// `done` units are done so far.
    pub fn set(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
        let Ok(mut plain) = self.plain.lock() else { return };
        // Threads may come here in another order than they counted in.
        plain.done = plain.done.max(done);
        if self.bar.is_none() && plain.said.elapsed() >= PLAIN_EVERY {
            plain.said = Instant::now();
            say(&line(&self.name, done, self.total, self.unit, plain.began.elapsed(), &plain.message));
        }
    }

    /// What to show beside the count: `loss 1.23, 340 tokens/s`.
    pub fn message(&self, text: impl Into<String>) {
        let text = text.into();
        if let Some(bar) = &self.bar {
            bar.set_message(text.clone());
        }
        if let Ok(mut plain) = self.plain.lock() {
            plain.message = text;
        }
    }

    /// Prints a line above the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Ends the stage with one line that stays.
    pub fn finish(self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let took = self.plain.lock().map_or(Duration::ZERO, |p| p.began.elapsed());
        say(&format!("{}: {text} ({})", self.name, duration(took)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line to stderr. A closed stderr is no reason to stop a run.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn style(total: u64, unit: Unit) -> ProgressStyle {
    let counted = match (total, unit) {
        (0, Unit::Items) => "{prefix} {spinner} {pos} {msg}",
        (0, Unit::Bytes) => "{prefix} {spinner} {bytes} {bytes_per_sec} {msg}",
        (_, Unit::Items) => "{prefix} {wide_bar} {pos}/{len} {msg} ETA {eta}",
        (_, Unit::Bytes) => "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg} ETA {eta}",
    };
    // The templates are constants, checked by a test; a bad one only costs its looks.
    ProgressStyle::with_template(counted).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn line(name: &str, done: u64, total: u64, unit: Unit, elapsed: Duration, message: &str) -> String {
    let count = |n: u64| match unit {
        Unit::Items => n.to_string(),
        Unit::Bytes => bytes(n),
    };
    let mut out = format!("{name}: {}", count(done));
    if total > 0 {
        let _ = write!(out, "/{}", count(total));
        if done > 0 && done < total {
            let left = elapsed.as_secs_f64() / done as f64 * (total - done) as f64;
            let _ = write!(out, ", ETA {}", duration(Duration::from_secs_f64(left.min(1e9))));
        }
    }
    if !message.is_empty() {
        let _ = write!(out, ", {message}");
    }
    out
}

/// `4.2 s`, `3 min 20 s`, `2 h 05 min`.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{:.1} s", d.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// `98.4 MB`, `1.05 GB`: powers of 1000.
pub fn bytes(n: u64) -> String {
    match n as f64 {
        b if b < 1e3 => format!("{n} B"),
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.2} GB", b / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines() {
        let s = Duration::from_secs(30);
        assert_eq!(
            line("train", 10, 40, Unit::Items, s, "loss 1.2"),
            "train: 10/40, ETA 1 min 30 s, loss 1.2"
        );
        assert_eq!(line("read", 5, 0, Unit::Items, s, ""), "read: 5");
        assert_eq!(line("get", 98_362_432, 98_362_432, Unit::Bytes, s, ""), "get: 98.4 MB/98.4 MB");
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!(duration(Duration::from_millis(4210)), "4.2 s");
        assert_eq!(duration(Duration::from_mins(125)), "2 h 05 min");
        assert_eq!((bytes(999), bytes(1_050_000_000)), ("999 B".into(), "1.05 GB".into()));
    }

    #[test]
    fn templates_are_sound() {
        for total in [0, 1] {
            for unit in [Unit::Items, Unit::Bytes] {
                let _ = style(total, unit);
                let p = Progress::new("t", total, unit);
                p.inc(1);
                assert_eq!(p.plain.lock().unwrap().done, 1);
            }
        }
    }
}

//! Where a run's time goes: spans of the thread that runs them, nested as the calls are.
//!
//! Off, a span costs one relaxed load and allocates nothing. On, it costs two clock readings and a push under a
//! lock: some 0.1 us beside operations of 50 us and more.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Spans kept: some 900 steps of a 30-layer model, 50 MB. Later ones are counted, not kept.
const MAX_SPANS: usize = 1 << 20;

/// What a span belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Outside the passes: reading, packing, the optimiser, saving.
    #[default]
    Run,
    /// Forward.
    Forward,
    /// Forward without training: validation.
    Evaluate,
    /// Forward again, for gradient checkpointing.
    Recompute,
    /// Backward.
    Backward,
}

impl Phase {
    /// `run`, `forward`, `evaluate`, `recompute`, `backward`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Forward => "forward",
            Self::Evaluate => "evaluate",
            Self::Recompute => "recompute",
            Self::Backward => "backward",
        }
    }
}

/// A stretch of one thread's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The operation or stage.
    pub name: &'static str,
    /// What it was part of.
    pub phase: Phase,
    /// Block number, inside one.
    pub layer: Option<u32>,
    /// Threads are numbered as they first record.
    pub thread: u32,
    /// Nanoseconds since [`start`].
    pub begin_ns: u64,
    /// Nanoseconds since [`start`], not before `begin_ns`.
    pub end_ns: u64,
}

/// What was recorded between [`start`] and [`finish`].
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// In the order in which they ended: inner ones before those around them.
    pub spans: Vec<Span>,
    /// Time between start and finish.
    pub wall: Duration,
    /// Spans beyond the number kept.
    pub dropped: u64,
}

struct Recorder {
    origin: Instant,
    profile: Profile,
}

static ON: AtomicBool = AtomicBool::new(false);
static RECORDER: Mutex<Option<Recorder>> = Mutex::new(None);
static THREADS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static SCOPE: Cell<(Phase, Option<u32>)> = const { Cell::new((Phase::Run, None)) };
    static THREAD: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Begins to record, from nothing.
pub fn start() {
    let recorder = Recorder { origin: Instant::now(), profile: Profile::default() };
    *RECORDER.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorder);
    ON.store(true, Ordering::Release);
}

/// Ends recording and gives what there is; `None` where nothing was started. Spans still open are not in it.
pub fn finish() -> Option<Profile> {
    ON.store(false, Ordering::Release);
    let recorder = RECORDER.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    Some(Profile { wall: recorder.origin.elapsed(), ..recorder.profile })
}

/// An open span; ends when dropped.
#[must_use = "a span lasts as long as its guard"]
pub struct Guard(Option<Open>);

struct Open {
    name: &'static str,
    begin: Instant,
    outer: (Phase, Option<u32>),
}

/// A span of the phase and block around it: an operation, or a stage of a step.
pub fn span(name: &'static str) -> Guard {
    open(name, None)
}

/// A span that tells those inside it their phase and block.
pub fn scope(name: &'static str, phase: Phase, layer: Option<usize>) -> Guard {
    open(name, Some((phase, layer.and_then(|l| u32::try_from(l).ok()))))
}

#[inline]
fn open(name: &'static str, scope: Option<(Phase, Option<u32>)>) -> Guard {
    if !ON.load(Ordering::Relaxed) {
        return Guard(None);
    }
    let outer = SCOPE.get();
    SCOPE.set(scope.unwrap_or(outer));
    Guard(Some(Open { name, begin: Instant::now(), outer }))
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(Open { name, begin, outer }) = self.0.take() else { return };
        let end = Instant::now();
        let (phase, layer) = SCOPE.replace(outer);
        let thread = THREAD.get().unwrap_or_else(|| {
            let number = THREADS.fetch_add(1, Ordering::Relaxed);
            THREAD.set(Some(number));
            number
        });
        let mut recorder = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Recorder { origin, profile }) = &mut *recorder else { return };
        if profile.spans.len() >= MAX_SPANS {
            profile.dropped += 1;
            return;
        }
        let since = |at: Instant| at.saturating_duration_since(*origin).as_nanos() as u64;
        profile.spans.push(Span { name, phase, layer, thread, begin_ns: since(begin), end_ns: since(end) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_nest_and_take_on_the_scope_around_them() {
        drop(span("before"));
        assert!(finish().is_none());
        start();
        {
            let _block = scope("block", Phase::Backward, Some(3));
            {
                let _op = span("op");
                std::thread::sleep(Duration::from_millis(2));
            }
            drop(scope("again", Phase::Recompute, Some(2)));
            drop(span("late"));
        }
        drop(span("after"));
        let profile = finish().unwrap();
        drop(span("off again"));
        // Other tests of this binary may record on their own threads while this one does.
        let mine = profile.spans.iter().find(|s| s.name == "block").unwrap().thread;
        let spans: Vec<Span> = profile.spans.iter().copied().filter(|s| s.thread == mine).collect();
        let told: Vec<_> = spans.iter().map(|s| (s.name, s.phase, s.layer)).collect();
        let expected = [
            ("op", Phase::Backward, Some(3)),
            ("again", Phase::Recompute, Some(2)),
            ("late", Phase::Backward, Some(3)),
            ("block", Phase::Backward, Some(3)),
            ("after", Phase::Run, None),
        ];
        assert_eq!(told, expected);
        let (op, block) = (spans[0], spans[3]);
        assert!(block.begin_ns <= op.begin_ns && op.end_ns <= block.end_ns);
        assert!(op.end_ns - op.begin_ns >= 2_000_000);
        assert!(u128::from(block.end_ns) <= profile.wall.as_nanos() && profile.dropped == 0);
    }
}

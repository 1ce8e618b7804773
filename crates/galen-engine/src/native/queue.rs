//! Where requests wait for the worker: bounded, first come first served.

use super::adapters::Served;
use crate::answer::Event;
use crate::engine::EngineError;
use crate::grammar::Constraint;
use crate::request::Options;
use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// One prompt of a request.
pub(super) struct Job {
    pub served: Arc<Served>,
    pub prompt: Vec<u32>,
    /// See [`crate::Input::goes_on`].
    pub goes_on: bool,
    pub options: Arc<Options>,
    /// From its beginning.
    pub constraint: Option<Constraint>,
    pub max_tokens: usize,
    /// Tokens whose keys and values it may come to hold.
    pub reserved: u64,
    pub first_choice: usize,
    pub events: UnboundedSender<Event>,
}

/// An adapter to be read, and who waits for it.
pub(super) struct Load {
    pub name: String,
    pub path: String,
    pub done: Sender<Result<(), EngineError>>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    loads: VecDeque<Load>,
    stopping: bool,
    aborted: bool,
}

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    max_waiting: usize,
}

/// What the worker finds.
pub(super) struct Found {
    pub loads: Vec<Load>,
    /// Drop everything.
    pub aborted: bool,
    /// Nothing will follow.
    pub over: bool,
}

impl Queue {
    pub fn new(max_waiting: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), max_waiting: max_waiting.max(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn len(&self) -> usize {
        self.state().jobs.len()
    }

    /// Whether so many jobs could be taken now.
    pub fn has_room(&self, jobs: usize) -> Result<(), EngineError> {
        self.room_in(&mut self.state(), jobs)
    }

    fn room_in(&self, state: &mut State, jobs: usize) -> Result<(), EngineError> {
        if state.stopping {
            return Err(EngineError::Stopping);
        }
        if jobs > self.max_waiting {
            let what = format!("{jobs} prompts, and at most {} can wait", self.max_waiting);
            return Err(EngineError::Invalid { field: "prompt", what });
        }
        if state.jobs.len() + jobs > self.max_waiting {
            // Whoever hung up waits no longer.
            state.jobs.retain(|job| !job.events.is_closed());
        }
        if state.jobs.len() + jobs > self.max_waiting { Err(EngineError::QueueFull) } else { Ok(()) }
    }

    /// Takes all of a request's jobs or none.
    pub fn push(&self, jobs: Vec<Job>) -> Result<(), EngineError> {
        let mut state = self.state();
        self.room_in(&mut state, jobs.len())?;
        state.jobs.extend(jobs);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Has the worker read an adapter; waits for it.
    pub fn load(&self, name: &str, path: &str) -> Result<(), EngineError> {
        let (done, result) = channel();
        let mut state = self.state();
        if state.stopping {
            return Err(EngineError::Stopping);
        }
        state.loads.push_back(Load { name: name.to_owned(), path: path.to_owned(), done });
        drop(state);
        self.changed.notify_all();
        result.recv().unwrap_or(Err(EngineError::Stopping))
    }

    /// Takes no more; with `abort` drops what waits, so that whoever asked learns of it.
    pub fn stop(&self, abort: bool) {
        let mut state = self.state();
        state.stopping = true;
        state.aborted |= abort;
        if abort {
            state.jobs.clear();
            state.loads.clear();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// What there is besides jobs; waits for something where the worker has nothing at hand.
    pub fn look(&self, idle: bool) -> Found {
        let mut state = self.state();
        while idle && state.jobs.is_empty() && state.loads.is_empty() && !state.stopping {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let over = state.stopping && state.jobs.is_empty();
        Found { loads: state.loads.drain(..).collect(), aborted: state.aborted, over }
    }

    /// The first job whose client is still there, where `fits` it; and how many had gone.
    pub fn take(&self, fits: impl FnOnce(&Job) -> bool) -> (Option<Job>, u64) {
        let mut state = self.state();
        let mut gone = 0;
        while let Some(job) = state.jobs.front() {
            if job.events.is_closed() {
                state.jobs.pop_front();
                gone += 1;
            } else if fits(job) {
                return (state.jobs.pop_front(), gone);
            } else {
                break;
            }
        }
        (None, gone)
    }
}

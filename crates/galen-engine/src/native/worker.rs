//! The loop that owns the model.

use super::adapters::Served;
use super::queue::Job;
use super::sequence::{Live, Prefill, begin};
use super::{Loader, Shared};
use crate::answer::Event;
use galen_model::{Model, Session};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

/// The engine's one worker. Best run on a thread of the pool that the products run on.
pub struct Worker {
    model: Model,
    shared: Arc<Shared>,
    loader: Loader,
}

/// The adapters' tensors as the blocks take them, while anything may ask for them.
type Families<'a> = HashMap<u64, (Weak<Served>, Session<'a>)>;

impl Worker {
    pub(super) fn new(model: Model, shared: Arc<Shared>, loader: Loader) -> Self {
        Self { model, shared, loader }
    }

    /// Answers requests until the engine is stopped.
    pub fn run(self) {
        /// However the worker ends, nobody waits for it longer.
        struct Ends(Arc<Shared>);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.queue.stop(true);
            }
        }
        let _ends = Ends(self.shared.clone());
        let mut families = Families::new();
        let mut prefill: Option<Prefill> = None;
        let mut live: Vec<Live> = Vec::new();
        loop {
            let idle = live.is_empty() && prefill.is_none();
            let found = self.shared.queue.look(idle);
            if found.aborted || (found.over && idle) {
                break;
            }
            for load in found.loads {
                let done = self.shared.adapters.room_for(&load.name).and_then(|()| {
                    let read = (self.loader)(&load.path, &self.model).map_err(crate::EngineError::Adapter)?;
                    self.shared.adapters.insert(&load.name, read)
                });
                // Whoever asked may have gone; the adapter is there all the same.
                let _ = load.done.send(done);
            }
            self.drop_cancelled(&mut live, &mut prefill);
            families.retain(|_, (served, _)| served.strong_count() > 0);
            self.admit(&mut families, &mut prefill, &mut live);
            self.count(&live, prefill.as_ref());
            self.step(&mut live);
            self.count(&live, prefill.as_ref());
        }
        self.count(&[], None);
    }

    fn drop_cancelled<'a>(&self, live: &mut Vec<Live<'a>>, prefill: &mut Option<Prefill<'a>>) {
        let mut gone: Vec<*const Job> = Vec::new();
        live.retain(|l| {
            let stays = !l.job.events.is_closed();
            if !stays && !gone.contains(&Arc::as_ptr(&l.job)) {
                gone.push(Arc::as_ptr(&l.job));
            }
            stays
        });
        if prefill.take_if(|p| p.job.events.is_closed()).is_some() {
            self.shared.counts.cancelled.fetch_add(1, Relaxed);
        }
        self.shared.counts.cancelled.fetch_add(gone.len() as u64, Relaxed);
    }

    /// Takes waiting requests while there is room, about one part of a prompt ([`Session::PREFILL_TOKENS`]) between
    /// two steps, so that a long prompt does not hold up those who are being answered.
    fn admit<'m>(
        &'m self,
        families: &mut Families<'m>,
        prefill: &mut Option<Prefill<'m>>,
        live: &mut Vec<Live<'m>>,
    ) {
        let part = Session::PREFILL_TOKENS;
        let mut computed = 0;
        while computed < part {
            let now = match prefill.take() {
                Some(prefill) => Some(prefill),
                None => self.next(families, live),
            };
            let Some(mut now) = now else { return };
            let ids = &now.job.prompt[now.done..];
            let ids = &ids[..ids.len().min(part)];
            computed += ids.len();
            self.shared.counts.prompt_tokens.fetch_add(ids.len() as u64, Relaxed);
            match now.session.feed(ids) {
                Err(e) => _ = now.job.events.send(Event::Failed(e.to_string())),
                Ok(logits) => {
                    now.done += ids.len();
                    if now.done < now.job.prompt.len() {
                        *prefill = Some(now);
                        continue;
                    }
                    let Prefill { job, session, .. } = now;
                    let begun = begin(&self.shared.tokenizer, &job, session, &logits);
                    self.shared.counts.generated_tokens.fetch_add(job.options.n as u64, Relaxed);
                    live.extend(begun);
                    // Rows of an adapter lie side by side.
                    live.sort_by_key(|l| l.job.served.id);
                }
            }
        }
    }

    /// The next request, where it fits beside those that run.
    fn next<'m>(&'m self, families: &mut Families<'m>, live: &[Live<'m>]) -> Option<Prefill<'m>> {
        let reserved = reserved(live);
        let fits = |job: &Job| {
            live.len() + job.options.n <= self.shared.limits.max_sequences
                && reserved + job.reserved <= self.shared.most_reserved_tokens
        };
        let (job, gone) = self.shared.queue.take(fits);
        self.shared.counts.cancelled.fetch_add(gone, Relaxed);
        let job = job?;
        let (_, family) = families.entry(job.served.id).or_insert_with(|| {
            let session = match &job.served.adapter {
                Some(adapter) => Session::shared(&self.model, adapter.clone()),
                None => Session::new(&self.model, None),
            };
            (Arc::downgrade(&job.served), session.with_kernels(self.shared.kernels))
        });
        Some(Prefill { session: family.sibling(), job: Arc::new(job), done: 0 })
    }

    /// Extends every sequence by a token.
    fn step(&self, live: &mut Vec<Live>) {
        let ids: Vec<u32> = live.iter().map(|l| l.next).collect();
        if ids.is_empty() {
            return;
        }
        let mut sessions: Vec<&mut Session> = live.iter_mut().map(|l| &mut l.session).collect();
        match Session::step(&mut sessions, &ids) {
            Ok(logits) => {
                self.shared.counts.steps.fetch_add(1, Relaxed);
                self.shared.counts.generated_tokens.fetch_add(ids.len() as u64, Relaxed);
                let rows = logits.par_chunks_exact((logits.len() / ids.len()).max(1));
                let going: Vec<bool> = live.par_iter_mut().zip(rows).map(|(l, row)| l.take(row)).collect();
                let mut going = going.into_iter();
                live.retain(|_| going.next().unwrap_or(false));
            }
            Err(e) => {
                live.drain(..).for_each(|l| _ = l.job.events.send(Event::Failed(e.to_string())));
            }
        }
    }

    fn count(&self, live: &[Live], prefill: Option<&Prefill>) {
        let counts = &self.shared.counts;
        counts.running.store(live.len() as u64 + u64::from(prefill.is_some()), Relaxed);
        counts.reserved.store(reserved(live) + prefill.map_or(0, |p| p.job.reserved), Relaxed);
    }
}

/// Tokens that running requests may come to hold; a request's completions give up their share together.
fn reserved(live: &[Live]) -> u64 {
    let mut jobs: Vec<(*const Job, u64)> =
        live.iter().map(|l| (Arc::as_ptr(&l.job), l.job.reserved)).collect();
    jobs.sort_unstable();
    jobs.dedup();
    jobs.iter().map(|(_, reserved)| reserved).sum()
}

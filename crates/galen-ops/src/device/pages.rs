//! Who has which page of a cache, and what one extension of sequences knows of it.

use super::cache::{
    KvPlace, KvSequences, KvShape, PAGE_TOKENS, decode_attention, kv_copy, kv_write, prompt_attention,
};
use super::{Accelerator, AttentionOperands, AttentionPlan, Backend as _, DeviceTensor, Memory, int_bytes};
use crate::error::{Error, Result, shape_error};
use crate::ops::AttentionShape;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pages on an accelerator. It grows as sequences do, and gives its memory back when no sequence is left.
pub struct KvPool {
    on: Accelerator,
    shape: KvShape,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    memory: Option<Memory>,
    pages: usize,
    free: Vec<u32>,
}

/// A page, given back when its last holder goes.
struct Page {
    number: u32,
    pool: Arc<KvPool>,
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.free.push(self.number);
        if state.free.len() == state.pages {
            *state = State::default();
        }
    }
}

impl KvPool {
    /// A pool without pages yet. Errors: a shape without kernels.
    pub fn new(on: &Accelerator, shape: KvShape) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { on: on.clone(), shape: shape.check()?, state: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages that are held, and pages there is memory for.
    pub fn pages(&self) -> (usize, usize) {
        let state = self.lock();
        (state.pages - state.free.len(), state.pages)
    }

    fn take(self: &Arc<Self>) -> Result<Arc<Page>> {
        let mut state = self.lock();
        if state.free.is_empty() {
            self.grow(&mut state)?;
        }
        match state.free.pop() {
            Some(number) => Ok(Arc::new(Page { number, pool: Arc::clone(self) })),
            None => {
                shape_error("kv_cache", "no page is left\nhint: fewer sequences at a time, or `--device cpu`")
            }
        }
    }

    /// Twice the pages, or fewer more where there is no memory for those.
    fn grow(&self, state: &mut State) -> Result<()> {
        let room = |pages: usize| {
            let bytes = pages.checked_mul(self.shape.page_bytes());
            let bytes = bytes.filter(|_| i32::try_from(pages * PAGE_TOKENS).is_ok());
            let bytes =
                bytes.ok_or_else(|| Error::Device(format!("a cache of {pages} pages is too large")))?;
            Ok((pages, self.on.alloc(bytes)?))
        };
        let had = state.pages;
        let (pages, memory) = room((2 * had).max(4))
            .or_else(|_: Error| room(had + had / 2 + 1))
            .or_else(|_| room(had + had / 8 + 1))
            .or_else(|_| room(had + 1))?;
        if let Some(old) = &state.memory {
            let pairs: Vec<i32> = (0..had as i32).flat_map(|i| [i, i]).collect();
            let pairs = self.on.upload(&int_bytes(&pairs))?;
            kv_copy(&self.on, self.shape, (old, &memory), (&pairs, had))?;
        }
        state.memory = Some(memory);
        state.pages = pages;
        state.free.extend((had as u32..pages as u32).rev());
        Ok(())
    }

    /// What is put on the queue over its memory, which does not move meanwhile: another thread's sequence may want to grow it.
    fn with<T>(&self, work: impl FnOnce(&Memory) -> Result<T>) -> Result<T> {
        let state = self.lock();
        let none = || Error::Device("a cache without pages\nhint: `--device cpu`; please report this".into());
        work(state.memory.as_ref().ok_or_else(none)?)
    }
}

/// A sequence's pages. Clones share them: who first writes to a page that others hold copies it.
#[derive(Clone)]
pub struct KvSequence {
    pool: Arc<KvPool>,
    pages: Vec<Arc<Page>>,
}

impl KvSequence {
    /// An empty sequence.
    pub fn new(pool: &Arc<KvPool>) -> Self {
        Self { pool: Arc::clone(pool), pages: vec![] }
    }

    /// Makes room for `new` tokens behind `past`, in pages of its own.
    fn extend(&mut self, past: usize, new: usize) -> Result<()> {
        self.pages.truncate(past.div_ceil(PAGE_TOKENS));
        let begun = self.pages.last_mut().filter(|_| !past.is_multiple_of(PAGE_TOKENS));
        if let Some(page) = begun
            && Arc::strong_count(page) > 1
        {
            let own = self.pool.take()?;
            let on = &self.pool.on;
            let pair = on.upload(&int_bytes(&[page.number as i32, own.number as i32]))?;
            self.pool.with(|memory| kv_copy(on, self.pool.shape, (memory, memory), (&pair, 1)))?;
            *page = own;
        }
        while self.pages.len() * PAGE_TOKENS < past + new {
            self.pages.push(self.pool.take()?);
        }
        Ok(())
    }

    fn slot(&self, token: usize) -> i32 {
        let page = self.pages.get(token / PAGE_TOKENS).map_or(0, |p| p.number);
        (page as usize * PAGE_TOKENS + token % PAGE_TOKENS) as i32
    }

    fn table(&self) -> impl Iterator<Item = i32> {
        self.pages.iter().map(|p| p.number as i32)
    }
}

/// What new tokens see.
enum Seen {
    /// The new tokens of one sequence, behind so many.
    Prompt { past: usize, new: usize },
    /// One new token of each of so many sequences, the longest of so many tokens.
    Step { stride: usize, longest: usize },
}

/// One extension of sequences: where their new keys go, and what their queries read.
pub struct KvExtension {
    pool: Arc<KvPool>,
    seen: Seen,
    slots: Memory,
    tables: Memory,
    lengths: Memory,
    plans: Mutex<Vec<(AttentionShape, Arc<AttentionPlan<Memory>>)>>,
}

impl KvExtension {
    /// `new` tokens of one sequence behind `past`.
    pub fn prompt(sequence: &mut KvSequence, past: usize, new: usize) -> Result<Self> {
        sequence.extend(past, new)?;
        let slots = (past..past + new).map(|t| sequence.slot(t)).collect();
        let tables = sequence.table().collect();
        let pool = Arc::clone(&sequence.pool);
        Self::new(pool, Seen::Prompt { past, new }, [slots, tables, vec![]])
    }

    /// A token of each sequence, behind its `past`. Errors: no sequence, or sequences of several pools.
    pub fn step(sequences: &mut [(&mut KvSequence, usize)]) -> Result<Self> {
        for (sequence, past) in sequences.iter_mut() {
            sequence.extend(*past, 1)?;
        }
        let Some((first, _)) = sequences.first() else { return shape_error("step", "no sequence") };
        let pool = Arc::clone(&first.pool);
        if !sequences.iter().all(|(s, _)| Arc::ptr_eq(&s.pool, &pool)) {
            return shape_error("step", "sequences of different caches");
        }
        let stride = sequences.iter().map(|(s, _)| s.pages.len()).max().unwrap_or(0);
        let longest = sequences.iter().map(|(_, past)| past + 1).max().unwrap_or(0);
        let slots = sequences.iter().map(|(s, past)| s.slot(*past)).collect();
        let lengths = sequences.iter().map(|(_, past)| *past as i32 + 1).collect();
        let mut tables = Vec::with_capacity(stride * sequences.len());
        for (sequence, _) in sequences.iter() {
            let end = tables.len() + stride;
            tables.extend(sequence.table());
            tables.resize(end, 0);
        }
        Self::new(pool, Seen::Step { stride, longest }, [slots, tables, lengths])
    }

    fn new(pool: Arc<KvPool>, seen: Seen, lists: [Vec<i32>; 3]) -> Result<Self> {
        // One upload for all.
        let all = pool.on.upload(&int_bytes(&lists.concat()))?;
        let [n_slots, n_tables, _] = lists.each_ref().map(|list| size_of::<i32>() * list.len());
        let [slots, tables, lengths] = [0, n_slots, n_slots + n_tables].map(|at| all.part(at));
        Ok(Self { pool, seen, slots, tables, lengths, plans: Mutex::default() })
    }

    /// Whether each row is the next token of a sequence of its own.
    pub fn is_step(&self) -> bool {
        matches!(self.seen, Seen::Step { .. })
    }

    /// Keeps k and v `[T, G D]` of block `layer`, and gives o `[T, H D]` of q, all bf16.
    pub fn attention(
        &self,
        layer: usize,
        shape: AttentionShape,
        [q, k, v]: [&DeviceTensor; 3],
    ) -> Result<DeviceTensor> {
        let on = &self.pool.on;
        let o = self.pool.with(|pool| {
            let at = KvPlace { pool, shape: self.pool.shape, layer };
            kv_write(on, &at, (&k.matrix, &v.matrix), &self.slots)?;
            match self.seen {
                Seen::Step { stride, longest } => {
                    let of = KvSequences { tables: &self.tables, stride, lengths: &self.lengths, longest };
                    decode_attention(on, shape, 0.0, &q.matrix, &at, &of)
                }
                Seen::Prompt { past, new } => {
                    let plan = self.plan(shape, past, new)?;
                    let x = AttentionOperands { q: &q.matrix, k: &k.matrix, v: &v.matrix };
                    prompt_attention(on, &plan, &x, &at, (&self.tables, past))
                }
            }
        })?;
        Ok(DeviceTensor::new(on, o))
    }

    /// Made once for all blocks of one shape.
    fn plan(&self, shape: AttentionShape, past: usize, new: usize) -> Result<Arc<AttentionPlan<Memory>>> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(of, _)| *of == shape) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(AttentionPlan::behind(&self.pool.on, shape, 0.0, (past, new))?);
        plans.push((shape, Arc::clone(&plan)));
        Ok(plan)
    }
}

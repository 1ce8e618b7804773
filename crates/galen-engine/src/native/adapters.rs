//! What is served: the base and adapters by name.

use crate::engine::{EngineError, ModelCard};
use crate::request::Encode;
use galen_adapter::Adapter;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Most adapters over one base: each is held in f32.
const MAX_ADAPTERS: usize = 64;

/// An adapter, read.
pub struct LoadedAdapter {
    /// Its matrices, over the engine's base.
    pub adapter: Adapter,
    /// How its inputs become tokens: it may have a chat template of its own.
    pub encode: Arc<dyn Encode>,
}

/// A model under its name. A request holds it, so that its going does not matter to those under way.
pub(super) struct Served {
    /// Never given twice: a name may be.
    pub id: u64,
    pub name: String,
    pub adapter: Option<Arc<Adapter>>,
    pub encode: Arc<dyn Encode>,
    created: u64,
}

pub(super) struct Adapters {
    base: Arc<Served>,
    by_name: RwLock<BTreeMap<String, Arc<Served>>>,
    next: AtomicU64,
}

impl Adapters {
    pub fn new(name: String, encode: Arc<dyn Encode>) -> Self {
        let base = Arc::new(Served { id: 0, name, adapter: None, encode, created: now() });
        Self { base, by_name: RwLock::default(), next: AtomicU64::new(1) }
    }

    pub fn find(&self, name: &str) -> Option<Arc<Served>> {
        if name == self.base.name {
            return Some(self.base.clone());
        }
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Whether an adapter of this name could be taken: before it is read.
    pub fn room_for(&self, name: &str) -> Result<(), EngineError> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        if name == self.base.name || by_name.contains_key(name) {
            return Err(EngineError::Exists(name.to_owned()));
        }
        if by_name.len() >= MAX_ADAPTERS {
            let what = format!("{MAX_ADAPTERS} adapters are loaded, the most there may be\nhint: unload one");
            return Err(EngineError::Adapter(what));
        }
        Ok(())
    }

    pub fn insert(&self, name: &str, loaded: LoadedAdapter) -> Result<(), EngineError> {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if name == self.base.name || by_name.contains_key(name) {
            return Err(EngineError::Exists(name.to_owned()));
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (adapter, encode) = (Some(Arc::new(loaded.adapter)), loaded.encode);
        let served = Served { id, name: name.to_owned(), adapter, encode, created: now() };
        by_name.insert(name.to_owned(), Arc::new(served));
        Ok(())
    }

    pub fn remove(&self, name: &str) -> Result<(), EngineError> {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        match by_name.remove(name) {
            Some(_) => Ok(()),
            None => Err(EngineError::UnknownModel(name.to_owned())),
        }
    }

    pub fn cards(&self, max_tokens: usize) -> Vec<ModelCard> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let card = |served: &Arc<Served>| ModelCard {
            name: served.name.clone(),
            parent: served.adapter.is_some().then(|| self.base.name.clone()),
            created: served.created,
            max_tokens,
        };
        std::iter::once(&self.base).chain(by_name.values()).map(card).collect()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

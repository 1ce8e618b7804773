//! Owns: where models, adapters and data sets come from; the caches; checksums; every socket galen opens for files.
//! Takes: a name as users write it (path, `ORG/REPO[@REV][:QUANT]`, catalogue name) and [`Options`].
//! Gives: paths of files that are there, whole, and checked where a checksum is known.
//! Never: opens what it fetched (weights, tokenizers, rows), or touches the network when offline.

mod catalogue;
mod disk;
mod error;
mod hub;
mod inventory;
mod names;
mod options;
mod reference;
mod resolve;
mod select;
mod sources;
mod store;

pub use catalogue::{Entry, Kind, catalogue, find};
pub use error::{HubError, Result};
pub use inventory::{Held, What, inventory, remove};
pub use options::{Lines, Options, Progress, Silent};
pub use resolve::{Resolved, cached, resolve_adapter, resolve_data, resolve_dataset, resolve_model};
pub use select::DatasetQuery;
pub use store::{cache_dir, store_path};

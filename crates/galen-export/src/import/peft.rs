//! PEFT's folders: `galen_adapter` reads them.

use super::{AdapterFiles, Over};
use crate::error::Result;
use galen_adapter::{Adapter, BaseRecord, load_peft, peft_base};
use std::path::{Path, PathBuf};

pub(super) struct Peft;

impl AdapterFiles for Peft {
    fn name(&self) -> &'static str {
        "peft"
    }

    fn about(&self) -> &'static str {
        "PEFT's folders (`adapter_config.json`, `adapter_model.safetensors`)"
    }

    fn holds(&self, path: &Path) -> bool {
        path.join("adapter_config.json").is_file()
    }

    fn weights(&self, path: &Path) -> PathBuf {
        path.join("adapter_model.safetensors")
    }

    fn base(&self, path: &Path) -> Result<BaseRecord> {
        Ok(peft_base(path)?)
    }

    fn load(&self, path: &Path, over: Over, seed: u64) -> Result<(Adapter, BaseRecord)> {
        Ok(load_peft(path, over.modules, seed)?)
    }
}

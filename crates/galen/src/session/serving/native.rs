//! The native engine, opened.

use super::super::adapters::open_adapter;
use super::super::base::Base;
use super::encoder::{Encoder, adapter_encoder};
use super::{Asked, Kernels, Serving};
use crate::progress::say;
use galen_engine::{Encode, LoadedAdapter, Loader, Native, NativeOptions};
use galen_model::tokenizer::Tokenizer;
use galen_model::{Model, StepKernels};
use galen_ops::device::Backend as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Sequences at a time from which [`Kernels::Passes`] is faster.
const MANY: usize = 16;

pub(super) fn open(asked: Asked) -> anyhow::Result<Serving> {
    let Asked { options, adapters, load, offline, .. } = &asked;
    anyhow::ensure!(
        options.isq.is_none(),
        "`--isq` is for `--engine mistralrs`\nhint: the native engine computes on the weights as they are stored"
    );
    let base = Base::open(&asked.base, *offline)?;
    let many = if options.max_num_seqs >= MANY { Kernels::Passes } else { Kernels::Blocks };
    let (kernels, here): (_, fn(&Base, _) -> _) = match options.kernels.unwrap_or(many) {
        Kernels::Blocks => (StepKernels::Blocks, Base::model),
        Kernels::Passes => (StepKernels::PassesApart, Base::model_for_passes),
    };
    let model = base.answering(Some(options.device), *load, here)?;
    if model.device().is_some() && options.kernels.is_some() {
        say("note: `kernels` has no effect on a card, whose steps have one way");
    }
    let computes = match model.device() {
        Some(on) => on.arithmetic().to_owned(),
        None => format!("{:?} {:?} {kernels:?}", galen_ops::isa(), load.compute),
    };
    let chosen = options.chat_template.as_deref();
    let template = base.template(asked.template())?;
    let tokenizer = Arc::new(base.tokenizer);
    let own: Arc<dyn Encode> = Arc::new(Encoder { tokenizer: tokenizer.clone(), template });
    let reader = Reader {
        tokenizer: tokenizer.clone(),
        base: own.clone(),
        keeps_base: chosen.is_some(),
        offline: *offline,
    };
    let read = adapters
        .iter()
        .map(|(name, path)| Ok((name, reader.read(path, &model)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let base_name = asked.base_name();
    let mut identity = vec![(base_name.clone(), base.resolved.path.clone())];
    identity.extend(read.iter().map(|(name, (_, path))| ((*name).clone(), path.clone())));
    let settings = format!("{computes} {chosen:?} {:?}", options.max_model_len);
    let cache_bytes = options.cache_mib.map(|mib| (mib as u64) << 20);
    let native = NativeOptions {
        name: base_name,
        encode: own,
        kernels,
        max_sequences: options.max_num_seqs,
        max_waiting: asked.max_waiting,
        max_model_tokens: options.max_model_len,
        cache_bytes: cache_bytes
            .or_else(|| match model.device() {
                Some(on) => on.free_bytes().map(|free| free / 2),
                None => galen_train::available_bytes().map(|free| free / 2),
            })
            .unwrap_or(4 << 30),
    };
    let model_bytes = model.nbytes() as u64;
    let loader: Loader = Box::new(move |path, model| {
        reader.read(path, model).map(|(loaded, _)| loaded).map_err(|e| format!("{e:#}"))
    });
    let (engine, worker) = Native::new(model, tokenizer, native, loader);
    for (name, (loaded, _)) in read {
        engine.serve_adapter(name, loaded)?;
    }
    let (engine, worker) = (Arc::new(engine), Box::new(move || worker.run()));
    Ok(Serving { engine, worker, model_bytes, identity, settings })
}

/// Reads adapters over the base.
struct Reader {
    tokenizer: Arc<Tokenizer>,
    base: Arc<dyn Encode>,
    /// Whether a template was chosen for all.
    keeps_base: bool,
    offline: bool,
}

impl Reader {
    /// The adapter, and where it lies.
    fn read(&self, path: &str, model: &Model) -> anyhow::Result<(LoadedAdapter, PathBuf)> {
        let (adapter, found) = open_adapter(path, model, 0, self.offline)?;
        let encode = if self.keeps_base {
            self.base.clone()
        } else {
            adapter_encoder(path, &self.tokenizer, &self.base, self.offline)?
        };
        Ok((LoadedAdapter { adapter, encode }, found))
    }
}

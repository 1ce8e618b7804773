//! The engine over mistralrs-core, opened.

use super::super::adapters::find_adapter;
use super::super::base::{hub_bars, template_of};
use super::encoder::{Encoder, adapter_encoder};
use super::{Asked, Serving};
use anyhow::Context as _;
use galen_engine::{Encode, Mistralrs, MistralrsOptions};
use galen_hub::Options;
use galen_model::tokenizer::Tokenizer;
use std::path::Path;
use std::sync::Arc;

pub(super) fn open(asked: Asked) -> anyhow::Result<Serving> {
    let Asked { options, adapters, offline, .. } = &asked;
    let refused = [
        ("--kernels", options.kernels.is_some()),
        ("--cache-mib", options.cache_mib.is_some()),
        ("more than one `--adapter`", adapters.len() > 1),
    ];
    if let Some((what, _)) = refused.iter().find(|(_, given)| *given) {
        anyhow::bail!("the mistralrs engine takes no {what}\nhint: `--engine native`");
    }
    let hub = Options::from_env(*offline, hub_bars());
    let model = galen_hub::resolve_model(&asked.base, &hub)?.path;
    let tokenizer = Arc::new(Tokenizer::open(&model).with_context(|| model.display().to_string())?);
    let template = template_of(&tokenizer, asked.template())?;
    let own: Arc<dyn Encode> = Arc::new(Encoder { tokenizer: tokenizer.clone(), template });
    let base_name = asked.base_name();
    let mut identity = vec![(base_name.clone(), model.clone())];
    let mut mistralrs = MistralrsOptions {
        name: base_name,
        parent: None,
        encode: own.clone(),
        model: model.clone(),
        adapter: None,
        isq: options.isq.clone(),
        card: options.device.card().map(|n| n as usize),
        max_sequences: options.max_num_seqs,
        max_waiting: asked.max_waiting,
        max_model_tokens: options.max_model_len,
    };
    if let Some((name, path)) = adapters.first() {
        let found = find_adapter(path, *offline)?;
        anyhow::ensure!(
            found.join("adapter_model.safetensors").is_file(),
            "{path}: the mistralrs engine reads PEFT's adapters\nhint: `galen export --format peft` makes one of it"
        );
        if options.chat_template.is_none() {
            mistralrs.encode = adapter_encoder(path, &tokenizer, &own, *offline)?;
        }
        mistralrs.parent = Some(std::mem::replace(&mut mistralrs.name, name.clone()));
        identity.push((name.clone(), found.clone()));
        mistralrs.adapter = Some(found);
    }
    let settings =
        format!("mistralrs {:?} {:?} {:?}", options.isq, options.chat_template, options.max_model_len);
    let settings = options.device.card().map_or(settings.clone(), |_| format!("{settings} on a card"));
    let model_bytes = weights_bytes(&model);
    let (engine, worker) = Mistralrs::open(tokenizer, mistralrs).map_err(anyhow::Error::msg)?;
    let (engine, worker) = (Arc::new(engine), Box::new(move || worker.run()));
    Ok(Serving { engine, worker, model_bytes, identity, settings })
}

/// Bytes of the files that hold the weights.
fn weights_bytes(model: &Path) -> u64 {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    let Ok(folder) = std::fs::read_dir(model) else { return size(model) };
    let paths = folder.flatten().map(|entry| entry.path());
    paths.filter(|p| p.extension().is_some_and(|e| e == "safetensors")).map(|p| size(&p)).sum()
}

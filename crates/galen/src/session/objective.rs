//! What a run learns by, built from its rows and its configuration.

use super::base::Base;
use super::record::sha256_text;
use super::reward_model::{SharedBase, outside};
use super::rollout::RowJudge;
use super::rows::{Parts, Rows};
use crate::config::{Alignment, Config};
use crate::progress::{Progress, Unit};
use anyhow::Context as _;
use galen_adapter::Adapter;
use galen_model::Model;
use galen_ops::device::Accelerator;
use galen_ops::profile::span;
use galen_reward::Network;
use galen_train::preference::{
    LabelledRows, Labels, PairRows, Pairs, Reference, RewardPairs, RowSequences, sharing,
};
use galen_train::rollout::{LengthDrift, Policy, PromptRows, Store};
use galen_train::{Objective, Sft};
use galen_types::{TextEncoder as _, TokenizedPrompt};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the objective of a run is made from.
pub(super) struct Making<'a> {
    pub(super) config: &'a Config,
    pub(super) base: &'a Base,
    pub(super) model: &'a Model,
    /// The same on further devices.
    pub(super) others: &'a [Model],
    /// The adapter as training finds it.
    pub(super) adapter: &'a Adapter,
    /// Hashes of what goes into the run.
    pub(super) hashes: &'a BTreeMap<String, String>,
    /// Settings and hashes that a resumed run must share.
    pub(super) fingerprint: &'a BTreeMap<String, String>,
}

/// The objective of these rows; `prompts` and `judge` are theirs where answers are sampled.
pub(super) fn objective<'a>(
    rows: &'a Rows,
    prompts: &'a Parts<&'a TokenizedPrompt>,
    judge: Option<&'a RowJudge<'a>>,
    alignment: Option<&'a Alignment>,
    making: &Making,
) -> anyhow::Result<Box<dyn Objective + 'a>> {
    let config = making.config;
    Ok(match (rows, alignment) {
        (Rows::Pairs(parts), Some(Alignment::Pairs(loss))) => {
            let rows = PairRows { train: &parts.train, validation: &parts.validation };
            let reference =
                if loss.needs_reference() { making.reference(&rows)? } else { Reference::default() };
            let (sharing, displacement) = (sharing(making.adapter), config.displacement());
            Box::new(Pairs { rows, loss: loss.as_ref(), reference, sharing, displacement })
        }
        (Rows::Pairs(parts), Some(Alignment::Reward(loss))) => {
            let rows = PairRows { train: &parts.train, validation: &parts.validation };
            Box::new(RewardPairs { rows, loss: *loss, sharing: sharing(making.adapter) })
        }
        (Rows::Labelled(parts, mismatched), Some(Alignment::Labelled(loss))) => {
            let rows = LabelledRows {
                train: &parts.train,
                validation: &parts.validation,
                train_mismatched: &mismatched.train,
                validation_mismatched: &mismatched.validation,
            };
            let reference = making.reference(&rows)?;
            Box::new(Labels { rows, loss: *loss, reference, sharing: sharing(making.adapter) })
        }
        (Rows::Prompts(_), Some(Alignment::Sampled(loss))) => {
            let Some(judge) = judge else { anyhow::bail!("nothing says what answers are worth") };
            let rows = PromptRows { train: &prompts.train, validation: &prompts.validation };
            let reference = if loss.needs_reference() { making.start()? } else { Reference::default() };
            let key = sha256_text(&format!("{:?}", making.fingerprint));
            Box::new(Policy {
                rows,
                loss: *loss,
                settings: config.rollout_settings(making.stop_ids()?),
                reference,
                sharing: sharing(making.adapter),
                judge,
                drift: LengthDrift::default(),
                store: Store::new(PathBuf::from(&config.output_dir), key, config.kept_answers()),
            })
        }
        (Rows::Supervised(parts), None) => {
            Box::new(Sft { train: &parts.train, validation: &parts.validation })
        }
        _ => anyhow::bail!("the rows were not prepared for `rl: {}`", config.rl().unwrap_or("(unset)")),
    })
}

/// The reward functions of rows whose answers are sampled, their programs started.
pub(super) fn judge<'a>(
    config: &Config,
    shared: SharedBase<'a>,
    rows: &'a Rows,
) -> anyhow::Result<Option<RowJudge<'a>>> {
    let Rows::Prompts(parts) = rows else { return Ok(None) };
    let network = if shared.offline { Network::Offline } else { Network::Allowed };
    let rewards = config.rewards(network, &mut [outside(shared)])?;
    rewards.start()?;
    Ok(Some(RowJudge { rows: parts, rewards, tokenizer: &shared.base.tokenizer }))
}

impl Making<'_> {
    /// The policy that training starts from: the base, or a copy of the adapter that it goes on from.
    fn start(&self) -> anyhow::Result<Reference> {
        let mut starts = Vec::new();
        if self.config.lora_model_dir.is_none() {
            return Ok(Reference::new(starts));
        }
        for model in [self.model].into_iter().chain(self.others) {
            let mut start = self.adapter.clone();
            if let Some(card) = model.device() {
                start.place_frozen(card)?;
            }
            starts.push(start);
        }
        Ok(Reference::new(starts))
    }

    /// Tokens that end a sampled answer: the tokenizer's, and those of `eot_tokens`.
    fn stop_ids(&self) -> anyhow::Result<Vec<u32>> {
        let tokenizer = &self.base.tokenizer;
        let mut ids = tokenizer.eos_ids().to_vec();
        for token in &self.config.eot_tokens {
            let known = tokenizer.token_id(token);
            ids.push(known.with_context(|| format!("`eot_tokens`: the vocabulary has no token `{token}`"))?);
        }
        Ok(ids)
    }

    /// The policy that training starts from, with its log-probabilities computed beforehand where asked.
    fn reference(&self, rows: &dyn RowSequences) -> anyhow::Result<Reference> {
        let mut reference = self.start()?;
        if self.config.precompute_ref_log_probs == Some(true) {
            let _span = span("reference");
            let key = self.key();
            let file = galen_hub::cache_dir().join("reference").join(format!("{key}.safetensors"));
            let bar = Progress::new("reference", 0, Unit::Items);
            let told = &mut |done: u64, all: u64| {
                bar.message(format!("of {all}"));
                bar.set(done);
            };
            let batch = self.config.micro_batch_size as usize;
            reference.precompute(self.model, rows, batch, &file, &key, told)?;
        }
        Ok(reference)
    }

    /// Everything that the reference's log-probabilities follow from.
    fn key(&self) -> String {
        let mut parts: Vec<String> =
            self.hashes.iter().filter(|(k, _)| *k != "config").map(|(k, v)| format!("{k}={v}")).collect();
        let config = self.config;
        let card = self.model.device().map(Accelerator::arithmetic);
        let compute = if card.is_some() { config.on_card().compute() } else { config.compute() };
        parts.push(format!("base={:?} {compute:?}", config.base_precision()));
        let kernels = card.unwrap_or(galen_ops::isa().name());
        parts.push(format!("kernels={kernels} version={}", env!("CARGO_PKG_VERSION")));
        // Which answers stand behind which prompts in the KL estimate.
        parts.push(format!(
            "rl={:?} batch={} length={}",
            config.rl(),
            config.micro_batch_size,
            config.sequence_len
        ));
        sha256_text(&parts.join("\n"))
    }
}

//! A model that reads texts: their hidden states and their likelihoods, many texts a pass.

use crate::config::native_compute;
use crate::progress::{Progress, Unit, say};
use crate::session::Base;
use galen_model::{LoadOptions, Model, Pass, PassOptions, PooledPass};
use galen_types::{PackedBatch, Segment, Target, TextEncoder as _};
use std::ops::Range;

/// Tokens of a pass.
const PASS_TOKENS: usize = 2048;
/// Most tokens before a text.
const CONTEXT_TOKENS: usize = 1024;

/// A base model, opened to read texts.
pub struct TextModel {
    base: Base,
    model: Model,
    /// Texts are read up to so many tokens.
    max_tokens: usize,
    /// What the tokenizer puts before any text: a BOS, for some families.
    lead: Vec<u32>,
}

impl TextModel {
    /// Finds and loads a model.
    pub fn open(name: &str, max_tokens: usize, offline: bool) -> anyhow::Result<Self> {
        let base = Base::open(name, offline)?;
        let model =
            base.model_for_passes(LoadOptions { compute: native_compute(), ..LoadOptions::default() })?;
        // Half of what the model can read is for a text, half for what stands before it.
        let room = (model.config.max_position_embeddings / 2).max(1);
        if max_tokens > room {
            say(&format!(
                "{name}: {room} tokens of a text are read, not {max_tokens}: half of what the model can read"
            ));
        }
        let max_tokens = max_tokens.min(room);
        let lead =
            base.tokenizer.encode("", true).unwrap_or_default().into_iter().map(|(id, _)| id).collect();
        Ok(Self { base, model, max_tokens, lead })
    }

    /// Most tokens that may stand before a text.
    pub fn context_tokens(&self) -> usize {
        (self.model.config.max_position_embeddings / 2).saturating_sub(self.lead.len()).min(CONTEXT_TOKENS)
    }

    /// Values of a hidden state.
    pub fn width(&self) -> usize {
        self.model.config.hidden_size
    }

    /// Tokens of a text, as far as it is read.
    pub fn encode(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let tokens = self
            .base
            .tokenizer
            .encode(text, false)
            .map_err(|e| anyhow::anyhow!("the tokenizer failed: {e}"))?;
        Ok(tokens.into_iter().map(|(id, _)| id).take(self.max_tokens).collect())
    }

    /// The mean of each text's last hidden states, [`TextModel::width`] values a text; 0 for a text without tokens.
    pub fn means<'t>(
        &self,
        name: &str,
        texts: impl IntoIterator<Item = &'t str>,
    ) -> anyhow::Result<Vec<f32>> {
        let ids = self.encode_all(texts)?;
        let (width, bar) = (self.width(), Progress::new(name, ids.len() as u64, Unit::Items));
        let mut out = Vec::with_capacity(ids.len() * width);
        for part in passes(&ids, self.lead.len()) {
            let texts = &ids[part.clone()];
            let batch = Laid::new(&self.lead, texts)?.batch()?;
            let tokens: Vec<u32> = (self.lead.len() as u32..batch.ids().len() as u32).collect();
            let states = if tokens.is_empty() {
                Vec::new()
            } else {
                PooledPass::forward(&self.model, None, &batch, &tokens, PassOptions::default())?.states
            };
            let mut at = 0;
            for text in texts {
                let states = &states[at * width..(at + text.len()) * width];
                at += text.len();
                let mean = |c: usize| -> f64 {
                    states.chunks_exact(width).map(|state| f64::from(state[c])).sum::<f64>()
                        / text.len().max(1) as f64
                };
                out.extend((0..width).map(|c| mean(c) as f32));
            }
            bar.set(part.end as u64);
        }
        bar.finish(&format!("{} texts read", ids.len()));
        Ok(out)
    }

    /// For each text the log-probabilities of its tokens but the first, summed, behind the tokens `context`; and their number.
    pub fn log_likelihoods(
        &self,
        name: &str,
        context: &[u32],
        ids: &[Vec<u32>],
    ) -> anyhow::Result<Vec<(f64, usize)>> {
        let bar = Progress::new(name, ids.len() as u64, Unit::Items);
        let context = [&self.lead, context].concat();
        let mut out = vec![(0.0, 0); ids.len()];
        for part in passes(ids, context.len()) {
            let mut laid = Laid::new(&context, &ids[part.clone()])?;
            laid.predict();
            let batch = laid.batch()?;
            if batch.targets().is_empty() {
                continue;
            }
            let pass = Pass::forward(&self.model, None, &batch, PassOptions::default())?;
            for (target, logp) in batch.targets().iter().zip(&pass.logps.0) {
                let (sum, n) = &mut out[part.start + target.row as usize];
                *sum += f64::from(*logp);
                *n += 1;
            }
            bar.set(part.end as u64);
        }
        bar.finish(&format!("{} texts read", ids.len()));
        Ok(out)
    }

    /// Tokens of several texts.
    pub fn encode_all<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> anyhow::Result<Vec<Vec<u32>>> {
        texts.into_iter().map(|text| self.encode(text)).collect()
    }
}

/// Texts that go through the model together, a context before each pass included.
fn passes(ids: &[Vec<u32>], context: usize) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (i, text) in ids.iter().enumerate() {
        if let Some(last) = out.last_mut().filter(|_| tokens + text.len() <= PASS_TOKENS) {
            last.end = i + 1;
        } else {
            tokens = context;
            out.push(i..i + 1);
        }
        tokens += text.len();
    }
    out
}

/// Texts laid end to end, each behind one context that is computed once.
struct Laid<'a> {
    ids: Vec<u32>,
    segments: Vec<Segment>,
    targets: Vec<Target>,
    texts: &'a [Vec<u32>],
    context: usize,
}

impl<'a> Laid<'a> {
    fn new(context: &[u32], texts: &'a [Vec<u32>]) -> anyhow::Result<Self> {
        let mut ids = context.to_vec();
        let mut segments = Vec::new();
        let position = context.len() as u32;
        let parent = (!context.is_empty()).then_some(0);
        if parent.is_some() {
            segments.push(Segment { start: 0, len: position, parent: None, position: 0 });
        }
        for text in texts.iter().filter(|t| !t.is_empty()) {
            let (start, len) = (u32::try_from(ids.len())?, text.len() as u32);
            segments.push(Segment { start, len, parent, position });
            ids.extend_from_slice(text);
        }
        Ok(Self { ids, segments, targets: Vec::new(), texts, context: context.len() })
    }

    /// Every token of a text predicts the next.
    fn predict(&mut self) {
        let mut start = self.context as u32;
        for (row, text) in self.texts.iter().enumerate() {
            let next = text.iter().skip(1).zip(start..);
            self.targets.extend(next.map(|(token, index)| Target { index, token: *token, row: row as u32 }));
            start += text.len() as u32;
        }
    }

    fn batch(self) -> anyhow::Result<PackedBatch> {
        let n = self.ids.len();
        Ok(PackedBatch::new(self.ids, self.segments, self.targets, vec![0; n])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_hold_whole_texts() {
        let texts = |lengths: &[usize]| lengths.iter().map(|n| vec![1; *n]).collect::<Vec<Vec<u32>>>();
        assert_eq!(passes(&texts(&[1000, 1000, 48, 1, 3000, 5]), 0), [0..3, 3..4, 4..5, 5..6]);
        assert_eq!(passes(&texts(&[1000, 1000, 48]), 100), [0..1, 1..3]);
        assert!(passes(&[], 0).is_empty());
    }

    #[test]
    fn texts_stand_behind_their_context() {
        let texts = [vec![5, 6, 7], vec![], vec![8], vec![9, 10]];
        let mut laid = Laid::new(&[1, 2], &texts).unwrap();
        laid.predict();
        let batch = laid.batch().unwrap();
        assert_eq!(batch.ids(), [1, 2, 5, 6, 7, 8, 9, 10]);
        assert_eq!(batch.positions(), [0, 1, 2, 3, 4, 2, 2, 3]);
        let targets: Vec<_> = batch.targets().iter().map(|t| (t.index, t.token, t.row)).collect();
        assert_eq!(targets, [(2, 6, 0), (3, 7, 0), (6, 10, 3)]);
        let alone = Laid::new(&[], &texts).unwrap().batch().unwrap();
        assert_eq!(alone.positions(), [0, 1, 2, 0, 0, 1]);
    }
    /// Of one text behind what stands before it, all in one segment.
    fn alone(before: &[u32], text: &[u32]) -> PackedBatch {
        let ids = [before, text].concat();
        let segment = Segment { start: 0, len: ids.len() as u32, parent: None, position: 0 };
        let target = |t: usize| Target { index: t as u32 - 1, token: ids[t], row: 0 };
        let targets = (before.len() + 1..ids.len()).map(target).collect();
        PackedBatch::new(ids.clone(), vec![segment], targets, vec![0; ids.len()]).unwrap()
    }

    #[test]
    fn many_texts_in_a_pass_are_as_each_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, galen_testkit::tiny_gguf::tiny_gguf(5)).unwrap();
        let reads = TextModel::open(path.to_str().unwrap(), 12, true).unwrap();
        let texts = ["abab abab", "x", "a text that is cut", "09 18 27"];
        let ids = reads.encode_all(texts).unwrap();
        assert_eq!(ids.iter().map(Vec::len).collect::<Vec<_>>(), [9, 1, 12, 8]);
        let context = reads.encode("abab abab").unwrap();
        let found = reads.log_likelihoods("texts", &context, &ids).unwrap();
        let means = reads.means("texts", texts).unwrap();
        let options = PassOptions::default();
        for (i, text) in ids.iter().enumerate() {
            let (sum, n) = found[i];
            assert_eq!(n, text.len() - 1);
            if n > 0 {
                let batch = alone(&[&reads.lead[..], &context].concat(), text);
                let logps = Pass::forward(&reads.model, None, &batch, options).unwrap().logps.0;
                let expect: f64 = logps.iter().map(|x| f64::from(*x)).sum();
                assert!((sum - expect).abs() <= 1e-4 * expect.abs(), "{i}: {sum} for {expect}");
            }
            let batch = alone(&reads.lead, text);
            let tokens: Vec<u32> = (reads.lead.len() as u32..batch.ids().len() as u32).collect();
            let states = PooledPass::forward(&reads.model, None, &batch, &tokens, options).unwrap().states;
            for c in 0..reads.width() {
                let expect = states.iter().skip(c).step_by(reads.width()).sum::<f32>() / tokens.len() as f32;
                let found = means[i * reads.width() + c];
                assert!(
                    (found - expect).abs() <= 1e-4 * expect.abs().max(1.0),
                    "{i}, {c}: {found} for {expect}"
                );
            }
        }
    }
}

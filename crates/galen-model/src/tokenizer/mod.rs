//! Tokenizers, from a Hugging Face directory or from GGUF metadata, over the `tokenizers` crate.

mod bytes;
mod error;
mod gguf;
mod hf;
mod pre;
mod save;
mod spm;
mod stream;

pub use error::TokenizerError;
pub use gguf::GgufMetadata;
pub use pre::{PRE_TOKENIZERS, PreTokenizer, recognise};
pub use stream::TextStream;

use error::{Result, malformed};
use galen_types::TextEncoder;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// A tokenizer with the chat template and the special tokens of its model.
#[derive(Debug)]
pub struct Tokenizer {
    /// Without post-processor: that one trims offsets, and what it adds is in `prefix` and `suffix`.
    inner: tokenizers::Tokenizer,
    /// With its post-processor, for saving; `None` where the original files are copied.
    files: Option<PathBuf>,
    post_processor: Option<tokenizers::PostProcessorWrapper>,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    special: Special,
    template: Option<String>,
    vocab_size: usize,
}

/// Special tokens by their roles.
#[derive(Debug, Default)]
struct Special {
    /// `bos_token` ... to text.
    named: BTreeMap<String, String>,
    /// Ids that end a generation, the model's own end of sequence first.
    eos_ids: Vec<u32>,
}

impl Tokenizer {
    /// From a `.gguf` file or a directory with `tokenizer.json`.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::from_dir(path);
        }
        let origin = path.display().to_string();
        let file = crate::weights::Gguf::open(path).map_err(|e| malformed(&origin, e))?;
        Self::from_gguf_metadata(&file)
    }

    /// `tokens` is the model's number of ids, where its files say.
    fn build(
        mut inner: tokenizers::Tokenizer,
        special: Special,
        template: Option<String>,
        files: Option<PathBuf>,
        tokens: usize,
    ) -> Result<Self> {
        guarded(|| inner.with_truncation(None).map(|_| ())).map_err(|e| malformed("tokenizer.json", e))?;
        inner.with_padding(None);
        let ids = |inner: &tokenizers::Tokenizer, special: bool| {
            guarded(|| inner.encode("a", special))
                .map(|e| e.get_ids().to_vec())
                .map_err(|e| malformed("tokenizer.json", e))
        };
        let (with, bare) = (ids(&inner, true)?, ids(&inner, false)?);
        let at = with.windows(bare.len().max(1)).position(|w| w == bare).filter(|_| !bare.is_empty());
        let (prefix, suffix) = match at {
            Some(at) => (with[..at].to_vec(), with[at + bare.len()..].to_vec()),
            None => (Vec::new(), Vec::new()),
        };
        let post_processor = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        let vocab_size = inner.get_vocab_size(true).max(tokens);
        Ok(Self { inner, files, post_processor, prefix, suffix, special, template, vocab_size })
    }

    /// The model's own chat template, where its files have one.
    pub fn chat_template(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// Template variables: `bos_token`, `eos_token`, `pad_token`, `unk_token` ... to their text.
    pub fn special_tokens(&self) -> &BTreeMap<String, String> {
        &self.special.named
    }

    /// Text of every control token, by id.
    pub fn control_tokens(&self) -> Vec<String> {
        let added = self.inner.get_added_tokens_decoder();
        let mut control: Vec<(u32, String)> =
            added.into_iter().filter(|(_, t)| t.special).map(|(id, t)| (id, t.content)).collect();
        control.sort();
        control.into_iter().map(|(_, text)| text).collect()
    }

    /// Ids that end a generation: the end of sequence first, then ends of turn and what `generation_config.json` adds.
    pub fn eos_ids(&self) -> &[u32] {
        &self.special.eos_ids
    }

    /// The text of one token, as the vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Decodes as ids come, giving out whole characters only.
    pub fn stream(&self, skip_special: bool) -> TextStream<&Self> {
        TextStream::new(self, skip_special)
    }

    fn named(&self, variable: &str) -> Option<(u32, &str)> {
        let text = self.special.named.get(variable)?;
        Some((self.inner.token_to_id(text)?, text))
    }
}

/// Runs the `tokenizers` crate, a panic of it made an error. It unwraps much of what it reads, and a tokenizer comes with
/// a model; one that panicked says so again at the next text.
fn guarded<T>(f: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("its parts contradict one another".to_owned()),
    }
}

impl TextEncoder for Tokenizer {
    fn encode(
        &self,
        text: &str,
        add_special_tokens: bool,
    ) -> std::result::Result<Vec<(u32, Range<usize>)>, String> {
        let encoding = guarded(|| self.inner.encode(text, false))?;
        let ids = encoding.get_ids().iter().zip(encoding.get_offsets());
        let mut out: Vec<(u32, Range<usize>)> = Vec::with_capacity(encoding.len() + 2);
        if add_special_tokens {
            out.extend(self.prefix.iter().map(|id| (*id, 0..0)));
        }
        out.extend(ids.map(|(id, (start, end))| (*id, *start..*end)));
        if add_special_tokens {
            out.extend(self.suffix.iter().map(|id| (*id, text.len()..text.len())));
        }
        Ok(out)
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> std::result::Result<String, String> {
        guarded(|| self.inner.decode(ids, skip_special))
    }

    fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    fn bos(&self) -> Option<(u32, &str)> {
        self.named("bos_token")
    }

    fn eos(&self) -> Option<(u32, &str)> {
        self.named("eos_token")
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

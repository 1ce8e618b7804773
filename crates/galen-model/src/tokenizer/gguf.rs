//! A tokenizer from GGUF metadata: byte-level BPE (`gpt2`) and SentencePiece BPE (`llama`).

use super::error::{Result, TokenizerError, malformed};
use super::{Special, Tokenizer, pre, spm};
use crate::weights::{Gguf, GgufValue};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

/// The metadata of a GGUF file, as far as a tokenizer needs it.
pub trait GgufMetadata {
    /// Text.
    fn text(&self, key: &str) -> Option<&str>;
    /// A non-negative integer of any width.
    fn unsigned(&self, key: &str) -> Option<u64>;
    /// A truth value.
    fn flag(&self, key: &str) -> Option<bool>;
    /// An array of text.
    fn texts(&self, key: &str) -> Option<Vec<&str>>;
    /// An array of numbers.
    fn numbers(&self, key: &str) -> Option<Vec<f64>>;
}

impl GgufMetadata for Gguf {
    fn text(&self, key: &str) -> Option<&str> {
        self.str(key)
    }

    fn unsigned(&self, key: &str) -> Option<u64> {
        self.u64(key)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.bool(key)
    }

    fn texts(&self, key: &str) -> Option<Vec<&str>> {
        Some(self.array(key)?.strs()?.collect())
    }

    fn numbers(&self, key: &str) -> Option<Vec<f64>> {
        self.array(key)?.values().map(|v: GgufValue| v.as_f64()).collect()
    }
}

/// Token types of the format.
mod kind {
    pub const NORMAL: f64 = 1.0;
    pub const UNKNOWN: f64 = 2.0;
    pub const CONTROL: f64 = 3.0;
    pub const USER_DEFINED: f64 = 4.0;
    pub const BYTE: f64 = 6.0;
}

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

/// What ends a turn or a text in the families that name no more than one end in their files.
const END_TOKENS: &[&str] = &[
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
];

struct Parts {
    model: BPE,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Value,
    add_bos: bool,
}

impl Tokenizer {
    /// From the metadata of a GGUF file.
    ///
    /// Errors: a kind of tokenizer or pre-tokenizer that is not known, by its name; lists that do not fit together.
    pub fn from_gguf_metadata(metadata: &impl GgufMetadata) -> Result<Self> {
        let tokens = metadata.texts(TOKENS).filter(|t| !t.is_empty());
        let tokens = tokens.ok_or_else(|| malformed(TOKENS, "no list of tokens\nhint: this file has no tokenizer: take a GGUF that has, or the model's folder"))?;
        let types = metadata.numbers(TYPES).unwrap_or_else(|| vec![kind::NORMAL; tokens.len()]);
        if types.len() != tokens.len() {
            return Err(malformed(TYPES, format!("`{}` types for `{}` tokens", types.len(), tokens.len())));
        }
        let parts = match metadata.text(MODEL) {
            Some("gpt2") => byte_level(metadata, &tokens)?,
            Some("llama") => sentence_piece(metadata, &tokens, &types)?,
            other => {
                return Err(TokenizerError::Unsupported {
                    origin: MODEL.into(),
                    what: format!("a tokenizer of kind `{}`", other.unwrap_or("(none)")),
                    hint: "`gpt2` (byte-level BPE) and `llama` (SentencePiece BPE) are".into(),
                });
            }
        };
        let id = |name: &str| -> Result<Option<u32>> {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let Some(id) = metadata.unsigned(&key).filter(|id| *id != u64::from(u32::MAX)) else {
                return Ok(None);
            };
            match usize::try_from(id).ok().filter(|id| *id < tokens.len()) {
                Some(id) => Ok(Some(id as u32)),
                None => Err(malformed(&key, format!("`{id}` is not below the `{}` tokens", tokens.len()))),
            }
        };
        let mut special = Special::default();
        for (name, variable) in
            [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")]
        {
            if let Some(id) = id(name)? {
                special.named.insert(variable.into(), tokens[id as usize].to_string());
            }
        }
        special.eos_ids.extend(id("eos")?);
        for name in ["eot", "eom"] {
            special.eos_ids.extend(id(name)?);
        }
        for (i, (token, kind)) in tokens.iter().zip(&types).enumerate() {
            let is_end = END_TOKENS.contains(token) && *kind != kind::NORMAL;
            if is_end && !special.eos_ids.contains(&(i as u32)) {
                special.eos_ids.push(i as u32);
            }
        }
        let add_bos = metadata.flag("tokenizer.ggml.add_bos_token").unwrap_or(parts.add_bos);
        let add_eos = metadata.flag("tokenizer.ggml.add_eos_token").unwrap_or(false);
        let (bos, eos) = (id("bos")?.filter(|_| add_bos), id("eos")?.filter(|_| add_eos));
        let inner = assemble(parts, &tokens, &types, bos, eos)?;
        let template = metadata.text("tokenizer.chat_template").map(str::to_string);
        Self::build(inner, special, template, None, tokens.len())
    }
}

/// Puts the parts of a tokenizer together.
fn assemble(
    parts: Parts,
    tokens: &[&str],
    types: &[f64],
    bos: Option<u32>,
    eos: Option<u32>,
) -> Result<tokenizers::Tokenizer> {
    let mut inner = tokenizers::Tokenizer::new(parts.model);
    let prefixed = parts.normalizer.as_ref().is_some_and(|n| n.to_string().contains("Prepend"));
    inner.with_normalizer(parts.normalizer.map(component::<NormalizerWrapper>).transpose()?);
    inner.with_pre_tokenizer(parts.pre_tokenizer.map(component::<PreTokenizerWrapper>).transpose()?);
    inner.with_decoder(Some(component::<DecoderWrapper>(parts.decoder)?));
    let named = |wanted: &[f64]| -> Vec<&str> {
        let both = tokens.iter().zip(types).filter(|(t, k)| wanted.contains(k) && !t.is_empty());
        both.map(|(t, _)| *t).collect()
    };
    let control: Vec<AddedToken> = named(&[kind::CONTROL, kind::UNKNOWN])
        .into_iter()
        .map(|t| AddedToken::from(t, true).normalized(false))
        .collect();
    inner.add_special_tokens(&control);
    let user: Vec<AddedToken> = named(&[kind::USER_DEFINED])
        .into_iter()
        // SentencePiece finds pieces with spaces in its normalised text, where a space and its mark are one.
        .map(|t| AddedToken::from(t, false).normalized(t.contains([MARK, ' ']) && !prefixed))
        .collect();
    inner.add_tokens(&user);
    if bos.is_some() || eos.is_some() {
        let mut single = Vec::new();
        let mut special = BTreeMap::new();
        let mut add = |id: u32, single: &mut Vec<Value>| {
            let token = tokens[id as usize];
            single.push(json!({"SpecialToken": {"id": token, "type_id": 0}}));
            special.insert(token.to_string(), json!({"id": token, "ids": [id], "tokens": [token]}));
        };
        if let Some(id) = bos {
            add(id, &mut single);
        }
        single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
        if let Some(id) = eos {
            add(id, &mut single);
        }
        let mut pair = single.clone();
        pair.push(json!({"Sequence": {"id": "B", "type_id": 1}}));
        let template =
            json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special});
        inner.with_post_processor(Some(component::<PostProcessorWrapper>(template)?));
    }
    Ok(inner)
}

fn component<T: serde::de::DeserializeOwned>(json: Value) -> Result<T> {
    serde_json::from_value(json).map_err(|e| malformed("tokenizer component", e))
}

/// Ids by text; of tokens with the same text (padding entries) the first counts.
fn vocabulary(tokens: &[&str]) -> Vocab {
    let mut vocab = Vocab::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        vocab.entry((*token).to_string()).or_insert(id as u32);
    }
    vocab
}

fn byte_level(metadata: &impl GgufMetadata, tokens: &[&str]) -> Result<Parts> {
    let name = metadata.text(PRE).unwrap_or("(none)");
    let pre = pre::pre_tokenizer(name).ok_or_else(|| TokenizerError::Unsupported {
        origin: PRE.into(),
        what: format!("the pre-tokenizer `{name}`"),
        hint:
            "take the model as a directory with `tokenizer.json`, or a GGUF file that names its pre-tokenizer"
                .into(),
    })?;
    let lines = metadata.texts(MERGES).ok_or_else(|| malformed(MERGES, "no list of merges"))?;
    let merges = lines.iter().map(|line| {
        // A byte-level token holds no space, but may begin a line's second half: cut at the first after one character.
        let cut = line.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(i, _)| i);
        let (left, right) =
            cut.map(|i| line.split_at(i)).ok_or_else(|| malformed(MERGES, format!("`{line}` is no pair")))?;
        Ok((left.to_string(), right[1..].to_string()))
    });
    let merges = merges.collect::<Result<Vec<_>>>()?;
    let model = BPE::builder()
        .vocab_and_merges(vocabulary(tokens), merges)
        .ignore_merges(pre.ignore_merges)
        .build()
        .map_err(|e| malformed(MERGES, e))?;
    Ok(Parts {
        model,
        normalizer: pre.nfc.then(|| json!({"type": "NFC"})),
        pre_tokenizer: Some(pre.json()),
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        add_bos: pre.add_bos,
    })
}

/// SentencePiece's mark for a space.
const MARK: char = '\u{2581}';

fn sentence_piece(metadata: &impl GgufMetadata, tokens: &[&str], types: &[f64]) -> Result<Parts> {
    let scores = metadata.numbers(SCORES).ok_or_else(|| malformed(SCORES, "no list of scores"))?;
    if scores.len() != tokens.len() {
        return Err(malformed(SCORES, format!("`{}` scores for `{}` tokens", scores.len(), tokens.len())));
    }
    let pieces: Vec<(&str, u32, f32)> = tokens
        .iter()
        .zip(types)
        .zip(&scores)
        .enumerate()
        .filter(|(_, ((_, kind), _))| **kind == kind::NORMAL)
        .map(|(id, ((token, _), score))| (*token, id as u32, *score as f32))
        .collect();
    let mut builder = BPE::builder()
        .vocab_and_merges(vocabulary(tokens), spm::merges(&pieces))
        .byte_fallback(types.contains(&kind::BYTE))
        .fuse_unk(true);
    if let Some(unknown) = types.iter().position(|k| *k == kind::UNKNOWN).or_else(|| {
        metadata
            .unsigned("tokenizer.ggml.unknown_token_id")
            .map(|id| id as usize)
            .filter(|id| *id < tokens.len())
    }) {
        builder = builder.unk_token(tokens[unknown].to_string());
    }
    let model = builder.build().map_err(|e| malformed(TOKENS, e))?;
    let prefix = metadata.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let mark = json!({"type": "Replace", "pattern": {"String": " "}, "content": MARK.to_string()});
    let normalizer = if prefix {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK.to_string()}, mark]})
    } else {
        mark
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": MARK.to_string()}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(Parts {
        model,
        normalizer: Some(normalizer),
        pre_tokenizer: None,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        add_bos: true,
    })
}

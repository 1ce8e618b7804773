//! How each `tokenizer.ggml.pre` splits text before byte-level BPE. A new one is one line in [`PRE_TOKENIZERS`].
//!
//! The patterns are those of the models' own `tokenizer.json`.

use serde_json::{Value, json};

/// One way of splitting text, under the names GGUF files give it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties, as the files have them")]
pub struct PreTokenizer {
    /// Values of `tokenizer.ggml.pre`.
    pub names: &'static [&'static str],
    /// Regular expressions applied one after the other, each isolating its matches.
    patterns: &'static [&'static str],
    /// Whether the last step is GPT-2's own pattern.
    gpt2: bool,
    /// Whether text is brought to Unicode's composed form first.
    pub nfc: bool,
    /// Whether a word that is a token as a whole skips the merges.
    pub ignore_merges: bool,
    /// Whether a BOS is added where the file does not say.
    pub add_bos: bool,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const DEEPSEEK_LLM_WORDS: &str = "\\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}\
    \u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\u{3a3}-\
    \u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\u{13f8}-\u{13fd}\
    \u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\
    \u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\
    \u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\
    \u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\
    \u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\
    \u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\
    \u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\
    \u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\
    \u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}\
    -\u{1e943}]+";
const DIGIT: &str = r"\p{N}";

const BASE: PreTokenizer =
    PreTokenizer { names: &[], patterns: &[], gpt2: false, nfc: false, ignore_merges: false, add_bos: false };

/// All that are known.
pub const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["gpt-2", "phi-2", "exaone4", "a.x-4.0", "mellum", "gigachat"],
        gpt2: true,
        ..BASE
    },
    PreTokenizer { names: &["mpt", "olmo"], gpt2: true, nfc: true, ..BASE },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
        patterns: &[DIGIT],
        gpt2: true,
        ..BASE
    },
    PreTokenizer { names: &["command-r"], patterns: &[DIGIT], gpt2: true, nfc: true, ..BASE },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..BASE
    },
    PreTokenizer { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], patterns: &[LLAMA3], ..BASE },
    PreTokenizer { names: &["glm4", "glm5"], patterns: &[LLAMA3], ignore_merges: true, ..BASE },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen", "megrez", "kormo"],
        patterns: &[QWEN2],
        nfc: true,
        ..BASE
    },
    PreTokenizer { names: &["stablelm2", "hunyuan", "solar-open", "grok-2"], patterns: &[QWEN2], ..BASE },
    PreTokenizer { names: &["qwen35"], patterns: &[QWEN35], ..BASE },
    PreTokenizer { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true, ..BASE },
    PreTokenizer { names: &["gpt-4o", "llama4", "kanana2", "minimax-m2"], patterns: &[GPT4O], ..BASE },
    PreTokenizer {
        names: &["deepseek-coder"],
        patterns: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", DIGIT],
        ..BASE
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        patterns: &[
            r"[\r\n]",
            DEEPSEEK_LLM_WORDS,
            "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            "[一-龥ࠀ-一가-퟿]+",
            r"\p{N}+",
        ],
        ..BASE
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        patterns: &[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
        ..BASE
    },
];

/// The one called `name`.
pub fn pre_tokenizer(name: &str) -> Option<&'static PreTokenizer> {
    PRE_TOKENIZERS.iter().find(|p| p.names.contains(&name))
}

/// The one that a `tokenizer.json` describes, by what it does: how text is split, whether it is composed first, and
/// whether whole words skip the merges.
pub fn recognise(tokenizer: &Value) -> Option<&'static PreTokenizer> {
    let parts = &tokenizer["pre_tokenizer"];
    let parts = match parts["pretokenizers"].as_array() {
        Some(list) => list.iter().collect(),
        None => vec![parts],
    };
    let (last, splits) = parts.split_last()?;
    let gpt2 = last["type"] == "ByteLevel" && last["use_regex"].as_bool() != Some(false);
    if last["type"] != "ByteLevel" || last["add_prefix_space"] == true {
        return None;
    }
    let patterns: Vec<&str> = splits.iter().map(|part| pattern(part)).collect::<Option<_>>()?;
    let nfc = match &tokenizer["normalizer"] {
        Value::Null => false,
        one if one["type"] == "NFC" => true,
        _ => return None,
    };
    let ignore_merges = tokenizer["model"]["ignore_merges"] == true;
    let same = |p: &&PreTokenizer| {
        p.patterns == patterns && p.gpt2 == gpt2 && p.nfc == nfc && p.ignore_merges == ignore_merges
    };
    PRE_TOKENIZERS.iter().find(same)
}

/// The regular expression of a step that isolates its matches.
fn pattern(part: &Value) -> Option<&str> {
    match part["type"].as_str()? {
        "Digits" if part["individual_digits"] == true => Some(DIGIT),
        "Split" if part["behavior"] == "Isolated" && part["invert"] != true => {
            part["pattern"]["Regex"].as_str()
        }
        _ => None,
    }
}

impl PreTokenizer {
    /// As `tokenizer.json` writes it.
    pub(super) fn json(&self) -> Value {
        let mut steps: Vec<Value> = self
            .patterns
            .iter()
            .map(|p| json!({"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": false}))
            .collect();
        steps.push(json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": self.gpt2
        }));
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

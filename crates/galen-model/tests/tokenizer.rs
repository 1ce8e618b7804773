//! Token ids against `tests/goldens/tokens` (made by `tokens.py` there: tokenizers, sentencepiece, llama.cpp).

use galen_model::tokenizer::{GgufMetadata, Tokenizer};
use galen_model::weights::Gguf;
use galen_types::TextEncoder;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/tokens")
}

fn json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).expect("JSON")
}

fn texts() -> Vec<String> {
    serde_json::from_value(json(&goldens().join("texts.json"))).expect("texts")
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false).expect("encodes").into_iter().map(|(id, _)| id).collect()
}

/// Ids of the golden `name` as `tokenizer` sees them: `map` from its ids to the full vocabulary's.
fn check(name: &str, tokenizer: &Tokenizer, small: bool) {
    let golden = json(&goldens().join(format!("{name}.json")));
    let map: Vec<u32> = serde_json::from_value(golden["id_map"].clone()).expect("id_map");
    let want: Vec<Vec<u32>> = serde_json::from_value(golden["ids"].clone()).expect("ids");
    let texts = texts();
    assert_eq!(texts.len(), want.len());
    let mut wrong = Vec::new();
    for (text, want) in texts.iter().zip(&want) {
        let got: Vec<u32> =
            ids(tokenizer, text).into_iter().map(|id| if small { map[id as usize] } else { id }).collect();
        if got != *want {
            wrong.push(format!("{text:?}\n  got {got:?}\n want {want:?}"));
        }
    }
    assert!(wrong.is_empty(), "{name}: {} of {} differ\n{}", wrong.len(), texts.len(), wrong.join("\n"));
    println!("{name}: {} texts, {} tokens equal", texts.len(), want.iter().map(Vec::len).sum::<usize>());
}

const NAMES: [&str; 9] = [
    "smollm2",
    "gemma3",
    "llama-spm",
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "deepseek-coder",
    "starcoder",
    "refact",
];

#[test]
fn ids_from_gguf_metadata() {
    for name in NAMES {
        let file = Gguf::open(&goldens().join(format!("{name}.gguf"))).expect("opens");
        check(name, &Tokenizer::from_gguf_metadata(&file).expect("builds"), true);
    }
}

/// Ids that `tokens.py` asked `tokenizers` for, from the same vocabulary as a `tokenizer.json`.
#[test]
fn ids_from_a_directory() {
    for name in ["smollm2", "qwen2"] {
        let dir = tempfile::tempdir().expect("directory");
        let from = goldens().join(format!("{name}.tokenizer.json"));
        std::fs::copy(from, dir.path().join("tokenizer.json")).expect("copies");
        check(name, &Tokenizer::open(dir.path()).expect("loads"), true);
    }
}

fn small(name: &str) -> Tokenizer {
    Tokenizer::open(&goldens().join(format!("{name}.gguf"))).expect("builds")
}

#[test]
fn offsets_cover_the_text_and_decoding_gives_it_back() {
    for name in NAMES {
        let tokenizer = small(name);
        for text in texts() {
            let tokens = tokenizer.encode(&text, false).expect("encodes");
            let mut covered = 0;
            for (id, range) in &tokens {
                assert!((*id as usize) < tokenizer.vocab_size());
                assert!(range.start <= range.end && range.end <= text.len(), "{name} {text:?}");
                // Bringing text to its composed form leaves the marks it takes in without a token.
                assert!(
                    name == "qwen2" || range.start <= covered,
                    "{name} {text:?}: nothing before {range:?}"
                );
                assert!(range.end >= covered, "{name} {text:?}");
                covered = range.end;
            }
            assert!(name == "qwen2" || covered == text.len(), "{name} {text:?}: {covered}");
            let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
            let back = tokenizer.decode(&ids, false).expect("decodes");
            // SentencePiece writes a space as a mark, so a mark comes back as a space; its prefix space is one a part.
            let same = match name {
                "gemma3" => back == text.replace('\u{2581}', " "),
                "llama-spm" => back.replace(' ', "") == text.replace(['\u{2581}', ' '], ""),
                // The composed form; and DeepSeek's added tokens of one letter, which its decoder takes for bytes.
                "qwen2" | "deepseek-coder" => true,
                _ => back == text,
            };
            assert!(same, "{name}: {text:?} comes back as {back:?}");
        }
    }
}

#[test]
fn a_stream_gives_whole_characters_and_all_of_them() {
    // Not DeepSeek's: added tokens of one letter are no whole characters to its decoder.
    for name in NAMES.into_iter().filter(|name| *name != "deepseek-coder") {
        let tokenizer = small(name);
        for text in texts() {
            let ids = ids(&tokenizer, &text);
            let mut stream = tokenizer.stream(false);
            let mut out = String::new();
            for id in &ids {
                let piece = stream.push(*id).expect("decodes");
                assert!(!piece.contains(char::REPLACEMENT_CHARACTER), "{name} {text:?}: {piece:?}");
                out += &piece;
            }
            out += &stream.finish().expect("decodes");
            assert_eq!(out, tokenizer.decode(&ids, false).expect("decodes"), "{name}");
        }
    }
    // A character cut in the middle is given out at the end, not lost.
    let tokenizer = small("gpt-2");
    let ids = ids(&tokenizer, "😀");
    let mut stream = tokenizer.stream(true);
    assert!(ids.len() > 1 && stream.push(ids[0]).expect("decodes").is_empty());
    assert_eq!(stream.finish().expect("decodes"), "\u{fffd}");
}

#[test]
fn special_tokens_and_what_is_added() {
    let smollm = small("smollm2");
    assert_eq!(smollm.bos().map(|b| b.1), Some("<|im_start|>"));
    assert_eq!(smollm.eos().map(|e| e.1), Some("<|im_end|>"));
    assert_eq!(smollm.eos_ids().first().copied(), smollm.eos().map(|e| e.0));
    assert!(smollm.control_tokens().contains(&"<|im_end|>".to_string()));
    assert_eq!(smollm.encode("Hi", true), smollm.encode("Hi", false), "`add_bos_token` is false");
    let hidden = ids(&smollm, "a<|im_end|>b");
    assert_eq!(smollm.decode(&hidden, true).expect("decodes"), "ab");

    let gemma = small("gemma3");
    let with = gemma.encode("Hi", true).expect("encodes");
    assert_eq!((with[0].0, with[0].1.clone()), (gemma.bos().expect("has one").0, 0..0));
    assert_eq!(with[1..], gemma.encode("Hi", false).expect("encodes"));
    let turn = gemma.token_id("<end_of_turn>").expect("has one");
    assert_eq!(gemma.eos_ids(), [gemma.eos().expect("has one").0, turn]);
    assert_eq!(gemma.special_tokens().get("unk_token").map(String::as_str), Some("<unk>"));
}

#[test]
fn what_is_saved_loads_equal() {
    for name in NAMES {
        let tokenizer = small(name);
        let dir = tempfile::tempdir().expect("directory");
        tokenizer.save_to(dir.path(), Some("{{ messages }}")).expect("saves");
        let again = Tokenizer::open(dir.path()).expect("loads");
        assert_eq!(again.chat_template(), Some("{{ messages }}"));
        assert_eq!(again.special_tokens(), tokenizer.special_tokens());
        assert_eq!((again.bos(), again.eos()), (tokenizer.bos(), tokenizer.eos()), "{name}");
        for text in texts() {
            assert_eq!(again.encode(&text, true), tokenizer.encode(&text, true), "{name} {text:?}");
        }
        // And once more, as a directory is saved: files as they are.
        let copy = tempfile::tempdir().expect("directory");
        again.save_to(copy.path(), None).expect("saves");
        for file in
            ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"]
        {
            let read = |dir: &Path| std::fs::read(dir.join(file)).expect(file);
            assert_eq!(read(copy.path()), read(dir.path()), "{file}");
        }
    }
}

#[test]
fn a_directory_gives_template_specials_and_ends() {
    let dir = tempfile::tempdir().expect("directory");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("writes");
    std::fs::copy(goldens().join("smollm2.tokenizer.json"), dir.path().join("tokenizer.json"))
        .expect("copies");
    let missing = Tokenizer::from_dir(&dir.path().join("nowhere")).expect_err("nothing there").to_string();
    assert!(missing.contains("no `tokenizer.json`"), "{missing}");
    write(
        "tokenizer_config.json",
        r#"{"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>", "pad_token": null,
            "chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]}"#,
    );
    write("special_tokens_map.json", r#"{"unk_token": "<|endoftext|>"}"#);
    write("generation_config.json", r#"{"eos_token_id": [0, 2]}"#);
    let tokenizer = Tokenizer::from_dir(dir.path()).expect("loads");
    assert_eq!(tokenizer.chat_template(), Some("D"));
    let named: Vec<(&str, &str)> =
        tokenizer.special_tokens().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expected =
        [("bos_token", "<|im_start|>"), ("eos_token", "<|im_end|>"), ("unk_token", "<|endoftext|>")];
    assert_eq!(named, expected);
    assert_eq!(tokenizer.eos_ids(), [tokenizer.token_id("<|im_end|>").expect("has one"), 0]);
    write("chat_template.jinja", "J");
    assert_eq!(Tokenizer::from_dir(dir.path()).expect("loads").chat_template(), Some("J"));
    write("tokenizer_config.json", "{");
    assert!(Tokenizer::from_dir(dir.path()).is_err());
}

/// Metadata made by hand.
#[derive(Default, Clone)]
struct Fake {
    model: Option<&'static str>,
    pre: Option<&'static str>,
    tokens: Vec<&'static str>,
    types: Option<Vec<f64>>,
    scores: Option<Vec<f64>>,
    merges: Option<Vec<&'static str>>,
    eos: Option<u64>,
}

impl GgufMetadata for Fake {
    fn text(&self, key: &str) -> Option<&str> {
        match key {
            "tokenizer.ggml.model" => self.model,
            "tokenizer.ggml.pre" => self.pre,
            _ => None,
        }
    }

    fn unsigned(&self, key: &str) -> Option<u64> {
        self.eos.filter(|_| key == "tokenizer.ggml.eos_token_id")
    }

    fn flag(&self, _: &str) -> Option<bool> {
        None
    }

    fn texts(&self, key: &str) -> Option<Vec<&str>> {
        match key {
            "tokenizer.ggml.tokens" => Some(self.tokens.clone()),
            "tokenizer.ggml.merges" => self.merges.clone(),
            _ => None,
        }
    }

    fn numbers(&self, key: &str) -> Option<Vec<f64>> {
        match key {
            "tokenizer.ggml.token_type" => self.types.clone(),
            "tokenizer.ggml.scores" => self.scores.clone(),
            _ => None,
        }
    }
}

#[test]
fn bad_metadata_is_refused_by_name() {
    let good = Fake {
        model: Some("gpt2"),
        pre: Some("gpt-2"),
        tokens: vec!["a", "b", "ab"],
        merges: Some(vec!["a b"]),
        ..Fake::default()
    };
    assert!(Tokenizer::from_gguf_metadata(&good).is_ok());
    let spm = Fake { model: Some("llama"), scores: Some(vec![0.0; 3]), ..good.clone() };
    assert!(Tokenizer::from_gguf_metadata(&spm).is_ok());
    let cases: [(Fake, &str); 11] = [
        (Fake { model: Some("bert"), ..good.clone() }, "`bert`"),
        (Fake { model: Some("t5"), ..good.clone() }, "`t5`"),
        (Fake { model: None, ..good.clone() }, "`(none)`"),
        (Fake { pre: Some("klingon"), ..good.clone() }, "`klingon`"),
        (Fake { pre: None, ..good.clone() }, "tokenizer.ggml.pre"),
        (Fake { tokens: vec![], ..good.clone() }, "no list of tokens"),
        (Fake { types: Some(vec![1.0]), ..good.clone() }, "`1` types for `3` tokens"),
        (Fake { merges: Some(vec!["ab"]), ..good.clone() }, "`ab` is no pair"),
        (Fake { merges: Some(vec!["a c"]), ..good.clone() }, "tokenizer.ggml.merges"),
        (Fake { eos: Some(3), ..good }, "`3` is not below the `3` tokens"),
        (Fake { scores: Some(vec![0.0]), ..spm }, "`1` scores for `3` tokens"),
    ];
    for (metadata, expected) in cases {
        let error = Tokenizer::from_gguf_metadata(&metadata).expect_err(expected).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// The full vocabularies, where `GALEN_TEST_MODELS` names a folder with the two GGUF files of the goldens.
#[test]
fn full_vocabularies() {
    let Some(folder) = std::env::var_os("GALEN_TEST_MODELS").map(PathBuf::from) else {
        println!("skipped: GALEN_TEST_MODELS is not set");
        return;
    };
    for (name, file) in
        [("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"), ("gemma3", "gemma-3-270m-Q4_K_M.gguf")]
    {
        let path = folder.join(file);
        if !path.exists() {
            println!("skipped: no {file}");
            continue;
        }
        let start = std::time::Instant::now();
        let tokenizer = Tokenizer::open(&path).expect("builds");
        println!("{name}: {} ids, built in {:.2} s", tokenizer.vocab_size(), start.elapsed().as_secs_f64());
        check(name, &tokenizer, false);
    }
}

/// llama.cpp's own goldens, where `GALEN_TEST_VOCABS` names its folder of `ggml-vocab-*.gguf` with `.inp` and `.out`.
#[test]
fn llama_cpp_goldens() {
    let Some(folder) = std::env::var_os("GALEN_TEST_VOCABS").map(PathBuf::from) else {
        println!("skipped: GALEN_TEST_VOCABS is not set");
        return;
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("folder")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
        .collect();
    files.sort();
    let mut wrong = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let (Ok(texts), Ok(outs)) =
            (std::fs::read_to_string(format!("{name}.inp")), std::fs::read_to_string(format!("{name}.out")))
        else {
            continue;
        };
        let tokenizer = match Tokenizer::open(&path) {
            Ok(tokenizer) => tokenizer,
            Err(e) => {
                println!("refused: {e}");
                continue;
            }
        };
        let mut equal = 0;
        for (text, out) in texts.split("\n__ggml_vocab_test__\n").zip(outs.lines()) {
            let want: Vec<u32> = out.split_whitespace().map(|id| id.parse().expect("id")).collect();
            let got = ids(&tokenizer, text);
            if got == want {
                equal += 1;
            } else {
                wrong.push(format!("{name}: {text:?}\n  got {got:?}\n want {want:?}"));
            }
        }
        println!("{name}: {equal} equal");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn streamed(mut stream: galen_model::tokenizer::TextStream<&Tokenizer>, ids: &[u32]) -> Vec<String> {
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).expect("decodes")).collect();
    pieces.push(stream.finish().expect("decodes"));
    pieces
}

/// A byte that begins a character which never comes turns those before it into what is no text; what follows is there all
/// the same.
#[test]
fn a_stream_goes_on_after_bytes_that_are_no_text() {
    let tokenizer = small("llama-spm");
    let byte = |b: u8| {
        (0..tokenizer.vocab_size() as u32).find(|id| tokenizer.token(*id) == Some(format!("<0x{b:02X}>")))
    };
    let [line, lead] = [b'\n', 0xf0].map(|b| byte(b).expect("a token for each byte"));
    let tail = ids(&tokenizer, "Hello there");
    let all: Vec<u32> = [line, lead].into_iter().chain(tail.iter().copied()).collect();
    let text = streamed(tokenizer.stream(false), &all).concat();
    assert!(text.starts_with('\n') && text.ends_with("Hello there"), "{text:?}");
}

/// SentencePiece drops the first space of a text; a text that goes on is not at its beginning.
#[test]
fn a_stream_after_a_prompt_keeps_its_leading_space() {
    for name in ["llama-spm", "gemma3", "smollm2"] {
        let tokenizer = small(name);
        let (prompt, all) = (ids(&tokenizer, "The cat"), ids(&tokenizer, "The cat has it"));
        assert_eq!(all[..prompt.len()], prompt, "{name}");
        let stream = galen_model::tokenizer::TextStream::after(&tokenizer, true, &prompt);
        assert_eq!(streamed(stream, &all[prompt.len()..]).concat(), " has it", "{name}");
    }
}

/// What a token's bytes are said to be is what it adds to a text: Gemma's runs of spaces too, which are added tokens.
#[test]
fn bytes_of_tokens_are_those_of_the_text() {
    for name in ["gemma3", "llama-spm", "smollm2", "gpt-2"] {
        let tokenizer = small(name);
        for text in texts().into_iter().filter(|t| !t.contains('\u{2581}')) {
            let ids = ids(&tokenizer, &text);
            let bytes: Vec<u8> =
                ids.iter().flat_map(|id| tokenizer.token_bytes(*id).expect("a token")).collect();
            let said = String::from_utf8(bytes).expect("whole characters");
            // SentencePiece's own first space.
            let said = if name == "llama-spm" { said.replace(' ', "") } else { said };
            let text = if name == "llama-spm" { text.replace(' ', "") } else { text };
            assert_eq!(said, text, "{name}");
        }
    }
}

//! Preference rows against TRL's own data functions (`tests/goldens/preference.py`): from a row as a file holds it to
//! token ids and completion masks.

use galen_data::dataset::DatasetSpec;
use galen_data::preference::{
    LengthLimits, RankedPairs, into_labelled, into_pairs, mismatched, tokenize_labelled, tokenize_pairs,
};
use galen_data::template::{ChatTemplate, RenderOptions, SpecialTokens, render_labelled, render_pair};
use galen_data::tokenize::ExcessLength;
use galen_types::{Origin, Preference, RawRow, TextEncoder, TokenizedAnswer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens")
}

struct Encoder {
    tokenizer: Tokenizer,
    eos: u32,
}

const EOS: &str = "<|im_end|>";

impl TextEncoder for Encoder {
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<(u32, Range<usize>)>, String> {
        let encoding = self.tokenizer.encode(text, add_special_tokens).map_err(|e| e.to_string())?;
        Ok(encoding.get_ids().iter().zip(encoding.get_offsets()).map(|(id, (a, b))| (*id, *a..*b)).collect())
    }
    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, String> {
        self.tokenizer.decode(ids, skip_special).map_err(|e| e.to_string())
    }
    fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }
    fn bos(&self) -> Option<(u32, &str)> {
        None
    }
    fn eos(&self) -> Option<(u32, &str)> {
        Some((self.eos, EOS))
    }
    fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|v| v.as_u64().expect("id") as u32).collect()
}

/// What galen makes of a case's rows: (row, half) to sequence.
fn ours(case: &Value, encoder: &Encoder) -> BTreeMap<(u64, &'static str), TokenizedAnswer> {
    let source = std::fs::read_to_string(
        goldens().join(format!("templates/{}.jinja", case["template"].as_str().expect("template"))),
    );
    let special = SpecialTokens {
        named: BTreeMap::from([
            ("bos_token".into(), "<|im_start|>".into()),
            ("eos_token".into(), EOS.into()),
        ]),
        control: ["<|im_start|>", "<|im_end|>", "<|endoftext|>"].map(str::to_owned).to_vec(),
        eot: Vec::new(),
    };
    let template = ChatTemplate::new(&source.expect("a template"), special).expect("compiles");
    let (template, options) = (Some(&template), RenderOptions::default());
    let spec = DatasetSpec {
        kind: Some(serde_json::from_value("preference".into()).expect("a type")),
        ..DatasetSpec::default()
    };
    let spec = if case["rows"][0]["label"].is_null() {
        spec
    } else {
        DatasetSpec { kind: Some(serde_json::from_value("unpaired".into()).expect("a type")), ..spec }
    };
    let (_, reader) = galen_data::format::preference::build(&spec).expect("known").expect("named");
    let rows: Vec<Preference> = case["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .enumerate()
        .map(|(i, row)| {
            let fields = row.as_object().expect("a row").clone();
            reader.preference(RawRow { origin: Origin::new("rows", i as u64 + 1), fields }).expect("readable")
        })
        .collect();
    let max = case["max_length"].as_u64().map_or(1 << 20, |m| m as usize);
    let limits = LengthLimits {
        sequence_len: max,
        max_prompt_length: None,
        max_completion_length: None,
        excess: ExcessLength::Truncate,
    };
    let mut out = BTreeMap::new();
    if case["trainer"] == "dpo" {
        let pairs = into_pairs(rows, RankedPairs::default()).expect("pairs").pairs;
        let rendered: Vec<_> = pairs
            .iter()
            .map(|p| render_pair(p, template, &options).unwrap_or_else(|e| panic!("{e}")))
            .collect();
        for pair in tokenize_pairs(&rendered, encoder, limits).expect("tokens").0 {
            out.insert((pair.row(), "chosen"), pair.chosen().clone());
            out.insert((pair.row(), "rejected"), pair.rejected().clone());
        }
        return out;
    }
    let (labelled, _) = into_labelled(rows).expect("labelled");
    let labels: Vec<bool> = labelled.iter().map(|l| l.label).collect();
    assert_eq!(Value::from(labels), case["labels"], "{}", case["name"]);
    let rendered: Vec<_> = labelled
        .iter()
        .map(|l| render_labelled(l, template, &options).unwrap_or_else(|e| panic!("{e}")))
        .collect();
    let (rows, _) = tokenize_labelled(&rendered, encoder, limits).expect("tokens");
    let batch = case["kl_batch"].as_u64().expect("kl_batch") as usize;
    let others = mismatched(&rows, batch, max).expect("answers");
    for (row, other) in rows.into_iter().zip(others) {
        out.insert((row.answer.tokens().row(), "mismatched"), other);
        out.insert((row.answer.tokens().row(), "completion"), row.answer);
    }
    out
}

#[test]
fn ids_and_masks_equal_trl() {
    let text = std::fs::read_to_string(goldens().join("preference.json")).expect("goldens");
    let cases: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let (mut equal, mut cut) = (0, 0);
    for case in &cases {
        let name = case["name"].as_str().expect("name");
        let file = goldens()
            .join(format!("tokens/{}.tokenizer.json", case["tokenizer"].as_str().expect("tokenizer")));
        let tokenizer = Tokenizer::from_file(file).expect("a tokenizer");
        let encoder = Encoder { eos: tokenizer.token_to_id(EOS).expect("eos"), tokenizer };
        let mut ours = ours(case, &encoder);
        let straddles: Vec<u64> =
            case["straddles"].as_array().expect("list").iter().filter_map(Value::as_u64).collect();
        for sequence in case["sequences"].as_array().expect("sequences") {
            let row = sequence["row"].as_u64().expect("row");
            let half = sequence["half"].as_str().expect("half");
            let found =
                ours.remove(&(row, half)).unwrap_or_else(|| panic!("{name}: row {row} has no {half}"));
            let (want, mask) = (ids(&sequence["ids"]), ids(&sequence["mask"]));
            let implicit_text = name.ends_with("implicit texts");
            if straddles.contains(&row) && !implicit_text {
                // TRL merges the prompt's end with the answer; here the prompt is what it is at inference.
                assert_eq!(found.prompt_ids(), ids(&case["prompts"][row.to_string()]), "{name}, row {row}");
                let text = |ids: &[u32]| encoder.decode(ids, false).expect("text");
                assert_eq!(text(found.tokens().ids()), text(&want), "{name}, row {row}");
                cut += 1;
                continue;
            }
            assert_eq!(found.tokens().ids(), want, "{name}, row {row}, {half}");
            let mask: Vec<bool> = mask.into_iter().map(|m| m == 1).collect();
            assert_eq!(found.tokens().mask(), mask, "{name}, row {row}, {half}");
            equal += 1;
        }
        assert!(ours.is_empty(), "{name}: TRL has not {:?}", ours.keys());
    }
    println!("{equal} sequences equal, {cut} cut at the prompt's end");
    assert!(equal > 400 && cut > 0, "{equal} {cut}");
}

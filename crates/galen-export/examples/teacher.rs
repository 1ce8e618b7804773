//! Logits after every token of given texts, for other programs to be held against:
//! `teacher MODEL [ADAPTER] IDS.json OUT.safetensors`. IDS is a list of lists of token ids; OUT holds `0`, `1` ... f32 [n, V].

use galen_adapter::load_peft;
use galen_model::{LoadOptions, Model, Session, Weights};
use galen_ops::hook::ProjectionHook;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (base, adapter, ids, out) = match &args[..] {
        [base, ids, out] => (base, None, ids, out),
        [base, adapter, ids, out] => (base, Some(adapter), ids, out),
        _ => return Err("teacher MODEL [ADAPTER] IDS.json OUT.safetensors".into()),
    };
    let weights = Weights::open(Path::new(base))?;
    let model = Model::load(&weights, LoadOptions::default())?;
    let shapes = galen_export::module_shapes(weights.config());
    let adapter = adapter.map(|a| load_peft(Path::new(a), &shapes, 0)).transpose()?.map(|(a, _)| a);
    let hook = adapter.as_ref().map(|a| a as &dyn ProjectionHook);
    let texts: Vec<Vec<u32>> = serde_json::from_slice(&std::fs::read(ids)?)?;
    let mut rows: Vec<(usize, Vec<u8>)> = Vec::new();
    for text in &texts {
        let mut session = Session::new(&model, hook);
        let mut bytes = Vec::new();
        for id in text {
            bytes.extend(session.feed(&[*id])?.iter().flat_map(|v| v.to_le_bytes()));
        }
        rows.push((text.len(), bytes));
    }
    let mut views = BTreeMap::new();
    for (i, (n, bytes)) in rows.iter().enumerate() {
        views.insert(
            i.to_string(),
            TensorView::new(Dtype::F32, vec![*n, weights.config().vocab_size], bytes)?,
        );
    }
    std::fs::write(out, safetensors::serialize(views, None)?)?;
    Ok(())
}

//! Every shipped template gives what Jinja2 gives (`goldens/prompts.py`), and none is without a golden.

use galen_data::template::prompt::Prompts;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn shipped_templates_give_their_golden_text() {
    let goldens: Value = serde_json::from_str(include_str!("goldens/prompts.json")).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut own = Prompts::new(|_| ());
    for (name, source) in galen_synth::PROMPTS {
        own.add(name, source);
    }
    let mut clinical = Prompts::new(|_| ());
    clinical.add_folder(&root.join("recipes/clinical/synth/prompts")).unwrap();
    let mut seen = BTreeSet::new();
    for golden in goldens["rendered"].as_array().unwrap() {
        let (full, case) = (golden["template"].as_str().unwrap(), golden["case"].as_str().unwrap());
        let (prompts, name) = match full.strip_prefix("clinical:") {
            Some(name) => (&clinical, name),
            None => (&own, full),
        };
        let variables = goldens["cases"][case].as_object().unwrap();
        let text = prompts.render(&prompts.find(name).unwrap(), variables).unwrap();
        assert_eq!(text, golden["text"].as_str().unwrap(), "{full}, {case}");
        seen.insert(full.to_owned());
    }
    // The folder and the program hold the same, and each has a golden.
    let mut folder = Prompts::new(|_| ());
    folder.add_folder(&root.join("prompts/synth")).unwrap();
    assert_eq!(folder.names().collect::<Vec<_>>(), own.names().collect::<Vec<_>>());
    let all = own.names().map(str::to_owned).chain(clinical.names().map(|n| format!("clinical:{n}")));
    assert_eq!(all.collect::<BTreeSet<_>>(), seen);
}

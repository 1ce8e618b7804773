//! Mutated configurations: complaints or a configuration, never a panic. `GALEN_FUZZ_SECONDS` (default 2) or
//! `GALEN_FUZZ_INPUTS`; corpus in `tests/fuzz`.

use super::*;
use galen_testkit::fuzz;

#[test]
fn config() {
    let mut sound = 0;
    let inputs = fuzz::run("yaml", &fuzz::corpus("yaml"), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (config, report) = check_text("c.yaml", &text, &[]);
        for error in &report.errors {
            assert!(error.to_string().starts_with("c.yaml"), "{error}");
        }
        if !report.errors.is_empty() {
            return;
        }
        // What a run directory's `config.yaml` says is the run.
        let written = config.to_yaml();
        let (again, report) = check_text("w.yaml", &written, &[]);
        assert!(report.errors.is_empty(), "{}\n{written}", ConfigErrors(report.errors));
        assert!(again.to_json() == config.to_json(), "{}\n{}", again.to_json(), config.to_json());
        sound += 1;
    });
    println!("config: {inputs} inputs, {sound} of them still configurations");
    assert!(sound > 0);
}

/// A line of the corpus as `--set`.
#[test]
fn overrides() {
    let corpus: Vec<Vec<u8>> = [
        "lora_r=8",
        "datasets[0].path=x.jsonl",
        "datasets.0.roles.user=[human, user]",
        "max_memory={cpu: 8GiB}",
        "chat_template_kwargs.a.b.c=1",
    ]
    .map(|s| s.as_bytes().to_vec())
    .to_vec();
    let base = "base_model: m.gguf\nadapter: lora\nlearning_rate: 1e-4\ndatasets:\n  - path: d.jsonl\n";
    let mut sound = 0;
    let inputs = fuzz::run("overrides", &corpus, |bytes| {
        let set = String::from_utf8_lossy(bytes).into_owned();
        let (_, report) = check_text("c.yaml", base, &[set]);
        sound += u64::from(report.errors.is_empty());
    });
    println!("overrides: {inputs} inputs, {sound} of them accepted");
    assert!(sound > 0);
}

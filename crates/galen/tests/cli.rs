//! The binary from outside: exit codes, stdout against stderr.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::path::Path;
use std::process::{Command, Output};

const SOUND: &str = "base_model: m.gguf\nadapter: qlora\nlearning_rate: 2e-4\ndatasets:\n  - path: d.jsonl\n";

fn galen(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_galen")).args(args).current_dir(dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_sound_configuration_exits_0_and_a_refused_one_2() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), format!("{SOUND}tf32: true\nwandb_project: x\n")).unwrap();
    std::fs::write(dir.path().join("b.yaml"), format!("{SOUND}lora_rank: 8\n")).unwrap();
    let out = galen(&["plan", "a.yaml", "--check-config"], dir.path());
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("no effect: tf32: sums are f32"), "{}", text(&out.stdout));
    assert_eq!(text(&out.stderr), "");

    let out = galen(&["plan", "b.yaml", "--check-config"], dir.path());
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(text(&out.stderr), "error: b.yaml:6: unknown key `lora_rank`\nhint: did you mean `lora_r`?\n");

    let out = galen(&["plan", ".", "--check-config", "--json"], dir.path());
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((value["sound"].as_u64(), value["of"].as_u64()), (Some(1), Some(2)));
    assert_eq!(value["refused"]["lora_rank"], 1);
}

#[test]
fn json_is_one_document() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), SOUND).unwrap();
    let out = galen(&["plan", "a.yaml", "--check-config", "--json", "--set", "lora_r=4"], dir.path());
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((value["ok"].as_bool(), value["config"]["lora_r"].as_u64()), (Some(true), Some(4)));
}

#[test]
fn usage_help_and_scripts() {
    let dir = tempfile::tempdir().unwrap();
    for (args, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["completions", "bash"], 0),
        (&["man"], 0),
        (&["man", "train"], 0),
        (&["man", "nothing"], 2),
        (&[], 2),
        (&["trian"], 2),
        (&["plan", "none.yaml"], 2),
        (&["plan", "--list-keys"], 0),
    ] {
        let out = galen(args, dir.path());
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out.stderr));
        // Only failures write to stderr, and failures write nothing to stdout.
        assert_eq!(out.stderr.is_empty(), code == 0, "{args:?}");
    }
}

#[test]
fn init_writes_what_plan_takes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("d.jsonl"), "{\"instruction\": \"a\", \"output\": \"b\"}\n").unwrap();
    let init = ["init", "--model", "m.gguf", "--data", "d.jsonl", "-o", "c.yaml"];
    assert_eq!(galen(&init, dir.path()).status.code(), Some(0));
    assert_eq!(galen(&["plan", "c.yaml", "--check-config"], dir.path()).status.code(), Some(0));
    let again = galen(&init, dir.path());
    assert_eq!(again.status.code(), Some(2), "{}", text(&again.stderr));
    let to_stdout = galen(&init[..5], dir.path());
    assert!(text(&to_stdout.stdout).contains("base_model: m.gguf"));
}

#[test]
fn a_batch_s_requests_are_read_before_its_model() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in.jsonl"), "{\"custom_id\": \"a\"\n").unwrap();
    let batch = ["run-batch", "-m", "none.gguf", "-i", "in.jsonl", "-o", "out.jsonl"];
    let out = galen(&batch, dir.path());
    assert!(!out.status.success() && text(&out.stderr).contains("in.jsonl:1"), "{}", text(&out.stderr));
}

#[test]
fn an_adapter_is_not_written_under_the_name_of_a_gguf_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = galen(&["merge", "--adapter", "a", "--adapter", "b", "--out", "k.gguf"], dir.path());
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    let said = text(&out.stderr);
    assert!(said.contains("k.gguf: an adapter is written as a folder\nhint: `--into base`"), "{said}");
}

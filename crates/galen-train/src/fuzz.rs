//! What a resumed run reads, mutated: it may be refused, it may not panic nor make us allocate without bound.
//! `GALEN_FUZZ_SECONDS` (default 2) or `GALEN_FUZZ_INPUTS` a file; corpus in `tests/fuzz`.

use crate::checkpoint::{RunState, load, load_state};
use crate::log::Log;
use cap::Cap;
use galen_optim::{AdamW, AdamWConfig};
use galen_testkit::fuzz;
use std::alloc::System;

/// Bytes the test binary may hold.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 256 << 20);

#[test]
fn trainer_state() {
    let dir = fuzz::folder();
    let path = dir.path().join("trainer_state.json");
    let mut sound = 0;
    let inputs = fuzz::run("trainer_state", &fuzz::corpus("trainer_state"), |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let Ok(state) = load_state(dir.path()) else { return };
        let again: RunState = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
        assert_eq!(again, state);
        sound += 1;
    });
    println!("trainer_state: {inputs} inputs, {sound} of them still states");
    assert!(sound > 0);
}

#[test]
fn optimizer() {
    let dir = fuzz::folder();
    std::fs::write(dir.path().join("trainer_state.json"), &fuzz::corpus("trainer_state")[0]).unwrap();
    let path = dir.path().join("optimizer.safetensors");
    let mut sound = 0;
    let inputs = fuzz::run("optimizer", &fuzz::corpus("optimizer"), |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let mut optimizer = AdamW::new(AdamWConfig::default(), [3, 2]);
        let Ok(state) = load(dir.path(), &mut optimizer) else { return };
        assert_eq!(optimizer.steps, state.step);
        sound += 1;
    });
    println!("optimizer: {inputs} inputs, {sound} of them still states");
    assert!(sound > 0);
}

#[test]
fn log() {
    let dir = fuzz::folder();
    let path = dir.path().join("log.jsonl");
    let (mut sound, mut kept) = (0, 0);
    let inputs = fuzz::run("log", &fuzz::corpus("log"), |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let Ok(mut log) = Log::open(&path, 2) else { return };
        log.write(&serde_json::json!({"step": 3})).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(row["step"].as_u64().is_some_and(|s| s <= 3), "{text}");
            kept += 1;
        }
        sound += 1;
    });
    println!("log: {inputs} inputs, {sound} opened, {kept} rows kept");
    assert!(kept > sound);
}

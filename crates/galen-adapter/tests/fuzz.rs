//! PEFT's two files, mutated: they may be refused, they may not panic nor make us allocate without bound. A binary of
//! its own because its allocator refuses large allocations.
//!
//! `GALEN_FUZZ_SECONDS` (default 2) or `GALEN_FUZZ_INPUTS` a file; corpus in `tests/fuzz`.
#![expect(clippy::unwrap_used, reason = "a test")]

use cap::Cap;
use galen_adapter::{ModuleShape, load_peft, save_peft};
use galen_testkit::fuzz;
use std::alloc::System;

/// Bytes the whole binary may hold; every input is below 4 kB.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 64 << 20);

const FILES: [(&str, &str); 2] =
    [("adapter_config", "adapter_config.json"), ("adapter_model", "adapter_model.safetensors")];

fn modules() -> Vec<ModuleShape> {
    let of = |layer| {
        ["self_attn.q_proj", "mlp.down_proj"].map(|module| ModuleShape {
            layer,
            module,
            inputs: 6,
            outputs: 4,
        })
    };
    (0..2).flat_map(of).collect()
}

/// Mutates one of the two files beside a sound other.
fn run(name: &str) {
    let (dir, out) = (fuzz::folder(), fuzz::folder());
    let mut mutated = None;
    for (corpus, file) in FILES {
        let path = dir.path().join(file);
        std::fs::write(&path, &fuzz::corpus(corpus)[0]).unwrap();
        mutated = mutated.or((corpus == name).then_some(path));
    }
    let path = mutated.unwrap();
    let mut sound = 0_u64;
    let inputs = fuzz::run(name, &fuzz::corpus(name), |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let Ok((adapter, base)) = load_peft(dir.path(), &modules(), 1) else { return };
        assert!(adapter.n_parameters() > 0 && adapter.n_parameters() < 10_000);
        // What was read can be written; now and then, because writing waits for the disk.
        if sound.is_power_of_two() {
            save_peft(&adapter, &base, out.path()).unwrap();
        }
        sound += 1;
    });
    println!("{name}: {inputs} inputs, {sound} of them still adapters");
    assert!(sound > 0);
}

#[test]
fn adapter_config() {
    run("adapter_config");
}

#[test]
fn adapter_model() {
    run("adapter_model");
}

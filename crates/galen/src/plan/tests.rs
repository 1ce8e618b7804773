use super::*;
use crate::config::check_text;
use galen_adapter::AdapterConfig;
use galen_model::weights::HeldBytes;
use galen_model::{LoadOptions, Precision, WeightCache};
use galen_ops::ops::Compute;

/// SmolLM2-135M: its parameter count is published.
const SMOL: ModelShape = ModelShape {
    layers: 30,
    hidden: 576,
    ffn: 1536,
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
    vocab: 49152,
    tied_head: true,
    qk_norm: false,
    sandwich_norms: false,
};

/// Q4_1: 5 bits a weight; q and k are turned.
const HELD: HeldBytes = HeldBytes { mapped: 58_060_800, heap: 8_294_400, embedding: 17_694_720 };

fn wanted(method: &str, r: usize, dropout: f32) -> AdapterConfig {
    let text = "base_model: m\nadapter: lora\nlearning_rate: 3e-4\ndatasets: [{path: d.jsonl}]\n";
    let (config, _) = check_text("c.yaml", text, &[]);
    AdapterConfig { method: method.into(), r, dropout, ..config.adapter_config() }
}

fn adapter(r: usize) -> AdapterShape {
    AdapterShape::new(&SMOL.modules(), &wanted("lora", r, 0.0), SMOL.layers)
}

fn mode(compute: Compute, weight_cache: WeightCache, recompute: bool) -> Mode {
    Mode {
        load: LoadOptions { precision: Precision::Stored, compute, weight_cache, ..LoadOptions::default() },
        recompute,
    }
}

fn run(recompute: bool) -> WorkShape {
    WorkShape {
        adapter_params: adapter(16).params,
        tokens_per_pass: 1024,
        row_tokens: 256,
        supervised_per_pass: 1024,
        accumulation: 1,
        steps: 100,
        recompute,
        flops_per_second: 100e9,
    }
}

const PASS: PassShape = PassShape { tokens: 1024, predicting: 1024, ids: 1024, cached: 0 };

#[test]
fn parameters_are_the_published_ones() {
    // 134,515,008 with norms; norms are 61 x 576.
    assert_eq!(SMOL.params() + 61 * 576, 134_515_008);
    // PEFT reports 4,884,480 trainable parameters for r = 16 on all linear layers of SmolLM2-135M.
    assert_eq!(adapter(16).params, 4_884_480);
}

#[test]
fn work_is_4n_and_6n_when_recomputed() {
    // 4N of the measured step (N with the head) is 551 GFLOP; adapters and attention add about 60.
    let step = work(&SMOL, &run(false));
    assert!((step.step_flops / 1e9 - 613.0).abs() < 613.0 * 0.05, "{}", step.step_flops / 1e9);
    let again = work(&SMOL, &run(true));
    assert!(again.step_flops > 1.3 * step.step_flops && again.step_flops < 1.5 * step.step_flops);
    assert!((step.total_seconds - 100.0 * step.step_flops / 100e9).abs() < 1e-6);
}

#[test]
fn items_are_those_worked_out_by_hand() {
    let packed = memory(&SMOL, HELD, adapter(16), PASS, mode(Compute::Bf16, WeightCache::Packed, false));
    // Two bytes for each of 106,168,320 + 28,311,552 weights: all sizes are whole panels.
    assert_eq!(packed.packed_bytes, 2 * (106_168_320 + 28_311_552));
    // f32: values, gradient, two moments and the tape's copy.
    assert_eq!(packed.adapter_bytes, 20 * 4_884_480);
    // A token and block: two f32 inputs of 576 (4,608), bf16 q, k, v, output (2 x (576 + 384 + 576) = 3,072), gate and
    // up (6,144), norms of 9 heads (72), seven f32 rows of rank 16 (448). And the last block's output.
    assert_eq!(packed.activations_bytes, 1024 * (30 * (4608 + 3072 + 6144 + 72 + 448) + 4 * 576));
    // The gated product's backward: five f32 buffers of 1,536; 14 bytes of 576.
    assert_eq!(packed.workspace_bytes, 1024 * (20 * 1536 + 14 * 576));
    let streamed = memory(&SMOL, HELD, adapter(16), PASS, mode(Compute::Bf16, WeightCache::Stream, false));
    assert_eq!((streamed.packed_bytes, streamed.weights_bytes), (0, 58_060_800 + 8_294_400 + 17_694_720));
    assert_eq!(streamed.activations_bytes, packed.activations_bytes);

    let again = memory(&SMOL, HELD, adapter(16), PASS, mode(Compute::Bf16, WeightCache::Packed, true));
    // 31 inputs, and one block of what is kept.
    assert_eq!(again.activations_bytes, 1024 * (31 * 4 * 576 + 4608 + 3072 + 6144 + 72 + 448));
    assert_eq!(again.adapter_bytes, 16 * 4_884_480 + 4 * 4_884_480 / 30);

    let exact = memory(&SMOL, HELD, adapter(16), PASS, mode(Compute::F32, WeightCache::Stream, false));
    let kept = 4608 + 4 * (576 + 384 + 576 + 2 * 1536) + 72 + 448;
    assert_eq!(exact.activations_bytes, 1024 * (30 * kept + 4 * 576));
    for m in [packed, streamed, again, exact] {
        let items =
            [m.weights_bytes, m.packed_bytes, m.adapter_bytes, m.activations_bytes, m.workspace_bytes];
        let sum: u64 = items.iter().sum::<u64>() + m.process_bytes;
        assert!(m.total_bytes.abs_diff(sum) < 8, "{m:?}");
    }
}

#[test]
fn few_predicting_tokens_and_few_adapted_projections_take_less() {
    let modules = SMOL.modules();
    let upper = |m: &&ModuleShape| m.layer >= 20 && m.module == "self_attn.q_proj";
    let some: Vec<ModuleShape> = modules.iter().filter(upper).cloned().collect();
    let some = AdapterShape::new(&some, &wanted("lora", 16, 0.0), 30);
    assert_eq!(
        some,
        AdapterShape {
            params: 10 * 16 * 1152,
            blocks: 10,
            ranks: 160,
            outputs: 0,
            magnitudes: 0,
            dropout: false
        }
    );
    let bf16 = mode(Compute::Bf16, WeightCache::Packed, false);
    let kept = memory(&SMOL, HELD, some, PASS, bf16).activations_bytes;
    assert_eq!(kept, 1024 * (10 * (4608 + 2 * (576 + 384) + 6144 + 72) + 160 * 4 + 4 * 576));
    // A large vocabulary's logits are the largest buffer only where many rows predict.
    let wide = ModelShape { vocab: 262_144, ffn: 512, ..SMOL };
    let many = memory(&wide, HELD, adapter(16), PASS, bf16).workspace_bytes;
    assert_eq!(many, 1024 * (6 * 4096 + 14 * 576 + 4 * 576));
    let few = memory(&wide, HELD, adapter(16), PassShape { predicting: 16, ..PASS }, bf16).workspace_bytes;
    // Then it is attention's backward: six widths of queries and four of keys one of hidden states, in f32.
    assert_eq!(few, 1024 * 4 * (6 * 576 + 4 * 192 + 576));
}

#[test]
fn magnitudes_keep_what_they_multiply() {
    let bf16 = mode(Compute::Bf16, WeightCache::Packed, false);
    let of = |method: &str, dropout: f32| {
        let adapter = AdapterShape::new(&SMOL.modules(), &wanted(method, 16, dropout), SMOL.layers);
        (adapter, memory(&SMOL, HELD, adapter, PASS, bf16).activations_bytes)
    };
    let ((lora, plain), (dora, more), (_, dropped)) = (of("lora", 0.0), of("dora", 0.0), of("dora", 0.1));
    // Outputs of q, k, v, o, gate, up and down.
    let outputs = 30 * (576 + 2 * 192 + 576 + 2 * 1536 + 576);
    assert_eq!((dora.magnitudes, dora.params - lora.params), (outputs, outputs));
    assert_eq!(more - plain, 1024 * 2 * outputs);
    assert_eq!(dropped - more, 1024 * 30 * 2 * 2 * 1536);
}

#[test]
fn auto_takes_the_fastest_that_fits() {
    let text = "base_model: m\nadapter: lora\nlearning_rate: 3e-4\ndatasets: [{path: d.jsonl}]\nbf16: true\n\
                gradient_checkpointing: auto\nweight_cache: auto\n";
    let (config, report) = check_text("c.yaml", text, &[]);
    assert_eq!(report.errors, []);
    let choose = |bytes: u64| choose(&config, &SMOL, HELD, adapter(16), PASS, Limit { bytes, set: true });
    let order = [(WeightCache::Packed, false), (WeightCache::Stream, false), (WeightCache::Packed, true)];
    for (i, (cache, recompute)) in order.into_iter().enumerate() {
        let total = memory(&SMOL, HELD, adapter(16), PASS, mode(Compute::Bf16, cache, recompute)).total_bytes;
        let taken = choose(total);
        let found = |c: &Choice| (c.mode.load.weight_cache, c.mode.recompute);
        assert_eq!((found(&taken), taken.memory.total_bytes), ((cache, recompute), total), "{i}");
        assert!(taken.warning.is_none() && taken.why.is_some());
        // A byte less, and the next is taken.
        let next = order.get(i + 1).copied().unwrap_or((WeightCache::Stream, true));
        assert_eq!(found(&choose(total - 1)), next, "{i}");
    }
    let none = choose(1 << 20);
    assert_eq!((none.mode.load.weight_cache, none.mode.recompute), (WeightCache::Stream, true));
    let warning = none.warning.unwrap_or_default();
    assert!(warning.contains("`micro_batch_size`") && warning.contains("`sequence_len`"), "{warning}");
    assert!(!warning.contains("`gradient_checkpointing"), "{warning}");
}

#[test]
fn keys_that_are_set_leave_nothing_to_auto() {
    let text = "base_model: m\nadapter: lora\nlearning_rate: 3e-4\ndatasets: [{path: d.jsonl}]\nbf16: true\n\
                gradient_checkpointing: false\nweight_cache: bf16\n";
    let (config, _) = check_text("c.yaml", text, &[]);
    let choice = choose(&config, &SMOL, HELD, adapter(16), PASS, Limit { bytes: 1 << 20, set: true });
    assert_eq!((choice.mode.load.weight_cache, choice.mode.recompute), (WeightCache::Packed, false));
    let warning = choice.warning.unwrap_or_default();
    assert!(choice.why.is_none() && warning.contains("`weight_cache: stream`"), "{warning}");
}

#[test]
fn absurd_shapes_do_not_overflow() {
    let big = 1 << 40;
    let shape = ModelShape { layers: big, hidden: big, ffn: big, vocab: big, ..SMOL };
    assert_eq!(shape.params(), u64::MAX);
    let held = HeldBytes { mapped: u64::MAX, ..HELD };
    let pass = PassShape { tokens: u64::MAX, predicting: u64::MAX, ids: u64::MAX, cached: u64::MAX };
    let sum = memory(&shape, held, adapter(16), pass, mode(Compute::Bf16, WeightCache::Packed, false));
    assert_eq!(sum.total_bytes, u64::MAX);
}

//! Reward models on a device: hidden states of last tokens come to the host, where the head is, and their gradients go back.

use crate::dora::{copy_checkpoint, layout};
use crate::tiny::llama;
use crate::training::{
    adapter, bits, check_gradients, device, furthest, gradients, lora, of_runs, pairs, run, settings,
};
use galen_adapter::{Adapter, AdapterConfig};
use galen_data::pack::Sharing;
use galen_kernels::place::OnHost;
use galen_loss::Reward;
use galen_model::{Model, Precision};
use galen_ops::device::{Accelerator, Group};
use galen_ops::ops::Compute;
use galen_ops::quant::WeightDtype;
use galen_optim::{AdamW, global_norm};
use galen_train::preference::{PairRows, RewardPairs, rewards};
use galen_train::{Objective as _, OnDevice, Outcome, Place, StepGradient, TrainSettings};
use galen_types::{Tokenized, TokenizedPair};
use std::path::Path;

const HIDDEN: usize = 128;

fn model(compute: Compute) -> Model {
    llama(WeightDtype::BF16, Precision::Stored, compute)
}

fn scorer(model: &Model) -> Adapter {
    adapter(model, lora(8)).with_score_head(HIDDEN, 0.1)
}

fn step(at: &Place, rows: &[TokenizedPair]) -> StepGradient {
    let rows = PairRows { train: rows, validation: &[] };
    let loss = Reward { center_rewards_coefficient: Some(0.1) };
    RewardPairs { rows, loss, sharing: Sharing::AcrossRows }.step(at, &[vec![0], vec![1]]).unwrap()
}

#[test]
fn a_step_of_a_reward_model() {
    let (rows, settings) = (pairs(), settings());
    let on = device();
    let [exact, rounded] = [Compute::F32, Compute::Bf16].map(model);
    let placed = model(Compute::Bf16).onto(&on).unwrap();
    let here = scorer(&exact);
    let mut there = here.clone();
    there.place(&on).unwrap();
    let of = |model: &Model, adapter: &Adapter| step(&Place::new(model, adapter, &settings), &rows);
    let (want, near, got) = (of(&exact, &here), of(&rounded, &here), of(&placed, &there));
    let off = |g: &StepGradient| (g.loss - want.loss).abs();
    assert!(off(&got) <= 3.0 * off(&near) + 1e-2 * want.loss, "loss {} for {}", got.loss, want.loss);
    let head = |g: &StepGradient| g.gradients.last().unwrap().clone();
    assert_eq!(got.gradients.len(), 1, "the head's gradient alone is the host's");
    let (device, cpu) = (furthest(&head(&got), &head(&want)), furthest(&head(&near), &head(&want)));
    assert!(device <= 0.1 && device <= 3.0 * cpu + 3e-3, "head: {device:.1e}, the CPU's {cpu:.1e}");
    let found = gradients(&there);
    check_gradients("reward", &here, &found, &near.gradients, &want.gradients);
}

/// The head moves as on one device, and is the same for both.
#[test]
fn devices_share_a_reward_model() {
    let (rows, settings) = (pairs(), settings());
    let run = |n: usize| -> (f64, Vec<f32>, Vec<f32>) {
        let device = |i| Accelerator::new(&format!("cuda:{i}"), OnHost::default());
        let group = Group::by_host((0..n).map(device).collect()).unwrap();
        let models: Vec<Model> =
            group.members().iter().map(|on| model(Compute::Bf16).onto(on).unwrap()).collect();
        let mut own = scorer(&models[0]);
        own.place(models[0].device().unwrap()).unwrap();
        let mut moments = AdamW::new(settings.adamw, own.buffers().map(<[f32]>::len));
        let mut together = OnDevice::over(&own, &moments, &models[1..], Some(&group)).unwrap();
        let at = Place { others: together.others(), ..Place::new(&models[0], &own, &settings) };
        let made = step(&at, &rows);
        let norm = together.norm(&own).unwrap().hypot(global_norm(&made.gradients));
        let numbers = together.step(&own, &mut moments, 1e-2, 1.0).unwrap();
        together.step_head(&mut own, &mut moments, &made.gradients[0], numbers);
        let head = own.score_head().unwrap().to_vec();
        for other in together.others() {
            assert_eq!(other.adapter.score_head().unwrap(), head, "the devices' heads differ");
        }
        assert!(head != scorer(&models[0]).score_head().unwrap(), "the head has not moved");
        (norm, made.gradients[0].clone(), head)
    };
    let (one, two) = (run(1), run(2));
    assert!((one.0 - two.0).abs() <= 1e-5 * one.0, "norm {} for {}", two.0, one.0);
    assert!(furthest(&two.1, &one.1) <= 2e-6 && furthest(&two.2, &one.2) <= 1e-4);
}

/// With magnitudes and dropout. The head and its moments are in the checkpoints as the processor writes them.
#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bits() {
    let rows = pairs();
    let settings = TrainSettings { micro_batch_size: 1, gradient_accumulation_steps: 1, ..of_runs().1 };
    let [exact, cpu] = [Compute::F32, Compute::Bf16].map(model);
    let placed = model(Compute::Bf16).onto(&device()).unwrap();
    let config = AdapterConfig { method: "dora".into(), dropout: 0.25, ..lora(5) };
    let start = adapter(&exact, config).with_score_head(HIDDEN, 0.1);
    let go = |model: &Model, dir: &Path, settings: &TrainSettings, stop| -> Outcome {
        let mut objective = RewardPairs {
            rows: PairRows { train: &rows, validation: &rows },
            loss: Reward::default(),
            sharing: Sharing::WithinRow,
        };
        run((model, start.clone()), &mut objective, dir, settings.clone(), stop)
    };
    let [whole, parts, here, there] = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let want = go(&placed, whole.path(), &settings, None);
    assert!(want.reports.len() == 3 && want.adapter.placed().is_none());
    let stopped = go(&placed, parts.path(), &settings, Some(1));
    assert!(stopped.interrupted && bits(&stopped) != bits(&want));
    let first = parts.path().join("checkpoint-1");
    copy_checkpoint(&first, there.path());
    assert!(bits(&go(&placed, parts.path(), &settings, None)) == bits(&want), "resuming gives other bits");
    go(&cpu, here.path(), &settings, Some(1));
    assert_eq!(layout(&first), layout(&here.path().join("checkpoint-1")));
    let on_cpu = go(&cpu, there.path(), &settings, None);
    let head = |o: &Outcome| o.adapter.score_head().unwrap().to_vec();
    let far = furthest(&head(&on_cpu), &head(&want));
    assert!(far <= 3e-2, "the processor goes on to a head {far:.1e} from the device's");
    assert!(furthest(&head(&want), start.score_head().unwrap()) > 1e-3, "the head has not moved");

    // Rewards of the trained model, as another run asks for them.
    let sequences: Vec<&Tokenized> = rows.iter().flat_map(TokenizedPair::sequences).collect();
    let mut trained = want.adapter.clone();
    let exact = rewards(&exact, &trained, &sequences).unwrap();
    trained.place_frozen(placed.device().unwrap()).unwrap();
    let far = furthest(&rewards(&placed, &trained, &sequences).unwrap(), &exact);
    assert!(far <= 2e-2, "rewards {far:.1e} from the processor's");
    let margins = |r: &[f32]| r.chunks(2).map(|pair| f64::from(pair[0] - pair[1])).collect::<Vec<_>>();
    let loss = margins(&exact).iter().map(|m| (-m).exp().ln_1p()).sum::<f64>() / rows.len() as f64;
    let validated = want.state.last.unwrap().eval_loss;
    assert!((validated - loss).abs() <= 2e-2 * loss, "eval_loss {validated} for {loss}");
}

//! Reward models: the gradient is that of the loss by the f64 twin, what must not change a result does not, a run goes on to the
//! same bits, and what is saved is what was trained.

use crate::goldens::path;
use crate::preference::{ALL, assert_close, bits, pairs, run_on};
use crate::random::{Random, direction, dot, widen};
use crate::support::{TINY, adapter, lora, settings, tiny};
use galen_adapter::{Adapter, AdapterConfig, BaseRecord, load_peft, save_peft};
use galen_data::pack::Sharing;
use galen_loss::Reward;
use galen_model::{Model, Weights};
use galen_testkit::reference::{ModelRef, directional};
use galen_train::preference::{PairRows, RewardPairs, rewards, sharing};
use galen_train::{Objective, Place, StepGradient, TrainSettings, checkpoint, module_shapes};
use galen_types::{Tokenized, TokenizedPair};
use tempfile::tempdir;

const LOSS: Reward = Reward { center_rewards_coefficient: Some(0.05) };

struct Lab {
    model: Model,
    train: Vec<TokenizedPair>,
    validation: Vec<TokenizedPair>,
}

impl Lab {
    /// Every other pair has a margin.
    fn new(name: &str) -> Self {
        let model = tiny(name);
        let r = &mut Random::new(78);
        let margins = |pairs: Vec<TokenizedPair>| -> Vec<TokenizedPair> {
            let with = |(i, pair): (usize, TokenizedPair)| {
                let margin = (i % 2 == 0).then_some(0.1 * i as f64);
                TokenizedPair::new(pair.chosen().clone(), pair.rejected().clone(), margin).expect("a pair")
            };
            pairs.into_iter().enumerate().map(with).collect()
        };
        let train = margins(pairs(r, 8, model.config.vocab_size));
        let validation = margins(pairs(r, 3, model.config.vocab_size));
        Self { model, train, validation }
    }

    fn adapter(&self, dropout: f32) -> Adapter {
        let config = AdapterConfig { dropout, ..lora(3, 5.0) };
        adapter(&self.model, config).with_score_head(self.model.config.hidden_size, 0.3)
    }

    fn objective(&self, sharing: Sharing) -> RewardPairs<'_> {
        RewardPairs {
            rows: PairRows { train: &self.train, validation: &self.validation },
            loss: LOSS,
            sharing,
        }
    }

    fn step(
        &self,
        sharing: Sharing,
        adapter: &Adapter,
        settings: &TrainSettings,
        batches: &[Vec<usize>],
    ) -> StepGradient {
        let at = Place::new(&self.model, adapter, settings);
        self.objective(sharing).step(&at, batches).expect("a step")
    }
}

#[test]
fn loss_and_gradients_of_every_architecture_equal_the_f64_twin() {
    for name in TINY {
        let lab = Lab::new(name);
        let weights = Weights::open(&path(&format!("tiny/{name}"))).expect("the model opens");
        let twin = ModelRef::new(&weights).expect("every tensor is there");
        let adapter = lab.adapter(0.0);
        let width = lab.model.config.hidden_size;
        let values: Vec<f64> = adapter.buffers().flat_map(widen).collect();
        let n = values.len();
        let loss_ref = |x: &[f64]| {
            let (low_rank, head) = x.split_at(n - width);
            let branches = crate::arch_gradients::branches(&adapter, low_rank);
            let reward = |row: &Tokenized| {
                let hidden = twin.hidden(&branches, row.ids());
                dot(&hidden[hidden.len() - width..], head)
            };
            let of = |pair: &TokenizedPair| {
                let [c, r] = pair.sequences().map(reward);
                (1.0 + (-(c - r - pair.margin().unwrap_or(0.0))).exp()).ln() + 0.05 * (c + r).powi(2)
            };
            lab.train.iter().map(of).sum::<f64>() / lab.train.len() as f64
        };
        for checkpointing in [false, true] {
            let settings = TrainSettings { gradient_checkpointing: checkpointing, ..settings() };
            let step = lab.step(Sharing::AcrossRows, &adapter, &settings, &[ALL.to_vec()]);
            let want = loss_ref(&values);
            assert!((step.loss - want).abs() <= 1e-5 * want, "{name}: loss {} for {want}", step.loss);
            let gradient = widen(&step.gradients.concat());
            let norm = dot(&gradient, &gradient).sqrt();
            let r = &mut Random::new(12);
            let mut worst = 0f64;
            for i in 0..6 {
                // Along everything, along the head, along what lies below it.
                let mut d = direction(r, n);
                let inside = |at: usize| match i % 3 {
                    0 => true,
                    1 => at >= n - width,
                    _ => at < n - width,
                };
                d.iter_mut().enumerate().filter(|(at, _)| !inside(*at)).for_each(|(_, d)| *d = 0.0);
                let (got, want) = (dot(&gradient, &d), directional(loss_ref, &values, &d));
                let error = (got - want).abs() / want.abs().max(1e-3 * norm);
                assert!(error <= 1e-3, "{name}: derivative {i} is {got} for {want}");
                worst = worst.max(error);
            }
            println!("{name}: loss {want}, derivatives within {worst:.1e}");
        }
    }
}

#[test]
fn sharing_and_accumulation_change_nothing() {
    for name in ["llama_tied", "gemma3"] {
        let lab = Lab::new(name);
        let adapter = lab.adapter(0.0);
        let step = |sharing, batches: &[Vec<usize>]| lab.step(sharing, &adapter, &settings(), batches);
        let apart = step(Sharing::Apart, &[ALL.to_vec()]);
        assert_close(&format!("{name}, within pairs"), &step(Sharing::WithinRow, &[ALL.to_vec()]), &apart);
        let divided = [vec![0, 1, 2], vec![3], vec![4, 5, 6, 7]];
        assert_close(&format!("{name}, divided"), &step(Sharing::AcrossRows, &divided), &apart);
        assert_eq!((apart.judged_tokens, apart.correct), (0, 0), "no token is predicted");
    }
}

#[test]
fn a_run_interrupted_after_any_step_goes_on_to_the_same_bits() {
    let lab = Lab::new("llama_tied");
    let run = |dir: &std::path::Path, stop_after: Option<u64>| {
        let start = lab.adapter(0.2);
        let mut objective = lab.objective(sharing(&start));
        run_on(&lab.model, start, &mut objective, dir, stop_after)
    };
    let want_dir = tempdir().expect("a directory");
    let want = run(want_dir.path(), None);
    let start = lab.adapter(0.2);
    assert!(want.adapter.score_head() != start.score_head(), "the head is trained");
    let losses: Vec<f64> = want.reports.iter().map(|r| r.loss).collect();
    assert!(losses[4] < losses[0], "it learns: {losses:?}");
    let v = want.state.last.as_ref().expect("a validation");
    assert!(v.metrics.contains_key("eval_accuracy") && v.metrics.contains_key("eval_margin"), "{v:?}");
    assert_eq!(v.eval_mean_token_accuracy, None);
    for step in 1..5 {
        let dir = tempdir().expect("a directory");
        assert!(run(dir.path(), Some(step)).interrupted);
        let got = run(dir.path(), None);
        assert!(bits(&got) == bits(&want), "after step {step}: adapter or head differ");
        assert_eq!(got.state, want.state, "after step {step}");
    }
    // What a checkpoint holds scores as what was trained.
    let (_, newest) = checkpoint::list(want_dir.path()).pop().expect("a checkpoint");
    let (saved, _) = load_peft(&newest, &module_shapes(&lab.model), 0).expect("it loads");
    let sequences: Vec<&Tokenized> = lab.validation.iter().flat_map(TokenizedPair::sequences).collect();
    let [of_saved, of_trained] =
        [&saved, &want.adapter].map(|a| rewards(&lab.model, a, &sequences).expect("rewards"));
    assert_eq!(of_saved, of_trained);
    let alone: Vec<f32> =
        sequences.iter().map(|s| rewards(&lab.model, &saved, &[s]).expect("a reward")[0]).collect();
    for (alone, together) in alone.iter().zip(&of_saved) {
        assert!((alone - together).abs() <= 1e-5, "{alone} alone, {together} among others");
    }
}

#[test]
fn an_adapter_without_a_fitting_head_scores_nothing() {
    let lab = Lab::new("llama_tied");
    let row = lab.train[0].chosen().tokens();
    let headless = adapter(&lab.model, lora(3, 5.0));
    let e = rewards(&lab.model, &headless, &[row]).expect_err("no head").to_string();
    assert!(e.contains("rl: reward"), "{e}");
    let narrow = adapter(&lab.model, lora(3, 5.0)).with_score_head(7, 0.1);
    let e = rewards(&lab.model, &narrow, &[row]).expect_err("too narrow").to_string();
    assert!(e.contains("`7` values for hidden states of `64`"), "{e}");
    // Saved and read: the two forms of PEFT's configuration, and a head of several classes.
    let dir = tempdir().expect("a directory");
    save_peft(&lab.adapter(0.0), &BaseRecord::default(), dir.path()).expect("saved");
    let config = dir.path().join("adapter_config.json");
    let text = std::fs::read_to_string(&config).expect("a configuration");
    assert!(text.contains("\"SEQ_CLS\"") && text.contains("\"score\""), "{text}");
    let read = || load_peft(dir.path(), &module_shapes(&lab.model), 0);
    assert_eq!(read().expect("it loads").0.score_head(), lab.adapter(0.0).score_head());
    std::fs::write(&config, text.replace("\"score\"", "\"lm_head\"")).expect("written");
    let Err(e) = read() else { panic!("another module was accepted") };
    assert!(e.to_string().contains("`modules_to_save` names `\"lm_head\"`"), "{e}");
}

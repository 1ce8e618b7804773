use super::*;
use crate::config;
use crate::session::{Preparer, Rows, Start, train};
use crate::signals::Stop;
use galen_data::template::render_pair;
use galen_model::LoadOptions;
use galen_reward::{Network, parse};
use galen_types::TokenizedPair;
use std::path::PathBuf;

#[test]
fn its_parameters_are_checked() {
    let of = |value: Value| path_of(value.as_object().unwrap());
    assert_eq!(of(json!({"path": "run"})).as_deref(), Ok("run"));
    for wrong in [json!({}), json!({"path": ""}), json!({"path": 3}), json!({"path": "run", "weight": 1})] {
        assert!(of(wrong.clone()).is_err(), "{wrong}");
        let funcs = json!([{"reward_model": wrong}]);
        let e = parse(&funcs, &Value::Null, Network::Offline, &mut [outside_unopened()]).unwrap_err();
        assert!(e.to_string().starts_with("`reward_funcs[0]`: `reward_model` "), "{e}");
    }
    let funcs = json!([{"reward_model": {"path": "nowhere"}}]);
    assert!(parse(&funcs, &Value::Null, Network::Offline, &mut [outside_unopened()]).is_ok());
}

/// A folder with a base and two data sets: `chats.jsonl` of turns, `texts.jsonl` of text.
fn lab() -> (tempfile::TempDir, impl Fn(&str, &str, &str) -> config::Config) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("m.gguf"), galen_testkit::tiny_gguf::tiny_gguf(5)).unwrap();
    let turn = |role: &str, text: String| json!([{"role": role, "content": text}]);
    let (mut chats, mut texts) = (String::new(), String::new());
    for i in 0..8 {
        let (q, a, b) = (format!("Say {}.", i % 4), format!("It is {}.", i % 3), format!("No {i}"));
        let row = json!({"prompt": q, "chosen": a, "rejected": b});
        texts.push_str(&format!("{row}\n"));
        let [q, a, b] = [turn("user", q), turn("assistant", a), turn("assistant", b)];
        chats.push_str(&format!("{}\n", json!({"prompt": q, "chosen": a, "rejected": b})));
    }
    std::fs::write(dir.path().join("chats.jsonl"), chats).unwrap();
    std::fs::write(dir.path().join("texts.jsonl"), texts).unwrap();
    let root = dir.path().to_owned();
    let config = move |rl: &str, data: &str, out: &str| {
        let path = |name: &str| root.join(name).display().to_string();
        let text = format!(
            "base_model: {}\nadapter: lora\nlora_r: 2\nlearning_rate: 0.01\nrl: {rl}\ndatasets: [{{path: {}}}]\n\
             max_steps: 2\nmicro_batch_size: 2\nsequence_len: 128\noutput_dir: {}\n",
            path("m.gguf"),
            path(data),
            path(out)
        );
        let (config, report) = config::check_text("c.yaml", &text, &[]);
        assert_eq!(report.errors, []);
        let folder = PathBuf::from(&config.output_dir);
        train(&config, &report, Start::New, true, &Stop::default()).unwrap();
        assert!(folder.join("adapter_model.safetensors").is_file());
        config
    };
    (dir, config)
}

fn opened(config: &config::Config) -> (Base, Model, String) {
    let base = Base::open(&config.base_model, true).unwrap();
    let options = LoadOptions { compute: config.compute(), ..LoadOptions::default() };
    let model = base.model(options).unwrap();
    let run = std::fs::read_to_string(Path::new(&config.output_dir).join("run.json")).unwrap();
    let run: Value = serde_json::from_str(&run).unwrap();
    (base, model, run["sha256"]["model"].as_str().unwrap().to_owned())
}

fn answers_of(pairs: &[TokenizedPair]) -> Vec<(&[u32], &[u32])> {
    pairs.iter().map(|p| (p.chosen().prompt_ids(), p.chosen().answer_ids())).collect()
}

/// As a reward function a model sees completions as it saw answers in training, turns and text alike.
#[test]
fn completions_are_scored_as_answers_were() {
    let (_dir, trained) = lab();
    for data in ["chats.jsonl", "texts.jsonl"] {
        let config = trained("reward", data, &format!("run-{data}"));
        let (base, model, sha256) = opened(&config);
        let shared = SharedBase { base: &base, model: &model, sha256: &sha256, offline: true };
        let date = date_of(Path::new(&config.output_dir));
        let preparer = Preparer { base: &base, config: &config, offline: true, date };
        let Rows::Pairs(parts) = preparer.prepare().unwrap().rows else { panic!("pairs") };
        let reward_model = RewardModel::open(&config.output_dir, shared).unwrap();
        let want = reward_model.score_tokens(&answers_of(&parts.train)).unwrap();
        assert!(want.iter().any(|r| (r - want[0]).abs() > 1e-6), "{want:?}");

        let spec = &config.dataset_specs().unwrap().0[0];
        let loaded = preparer.load_preferences(spec, config.bad_rows()).unwrap().rows;
        let pairs = galen_data::preference::into_pairs(loaded, config.ranked()).unwrap().pairs;
        let row = Map::new();
        let completions: Vec<Completion<'_>> = pairs
            .iter()
            .map(|pair| Completion {
                prompt: match &pair.prompt {
                    galen_types::Prompt::Chat { messages, .. } => Prompt::Messages(messages),
                    galen_types::Prompt::Text { text, .. } => Prompt::Text(text),
                },
                text: match &pair.chosen {
                    Answer::Text(text) => text,
                    Answer::Turns(turns) => turns[0].fields["content"].as_str().unwrap(),
                },
                token_ids: &[],
                finish: Finish::Stop,
                origin: &pair.origin,
                row: &row,
            })
            .collect();
        let funcs = json!([{"reward_model": {"path": config.output_dir}}]);
        let set = parse(&funcs, &Value::Null, Network::Offline, &mut [outside(shared)]).unwrap();
        let got = set.score(&completions).unwrap().total;
        let want: Vec<_> = want.iter().map(|r| Some(f64::from(*r))).collect();
        for (got, want) in got.iter().zip(&want) {
            let difference = (got.unwrap() - want.unwrap()).abs();
            assert!(difference <= 1e-5, "{data}: {got:?} for {want:?}");
        }
        // A completion that was cut has no end of its own.
        let cut: Vec<_> = completions.iter().map(|c| Completion { finish: Finish::Length, ..*c }).collect();
        let same = set.score(&cut).unwrap().total == got;
        assert_eq!(same, data == "chats.jsonl");
        let rendered = render_pair(&pairs[0], reward_model.template.as_ref(), &reward_model.options).unwrap();
        assert_eq!(reward_model.score_answers(&[rendered.rejected]).unwrap().len(), 1);
    }
}

#[test]
fn another_base_and_another_adapter_are_refused() {
    let (dir, trained) = lab();
    let policy = trained("orpo", "chats.jsonl", "policy");
    let reward = trained("reward", "chats.jsonl", "reward");
    let (base, model, sha256) = opened(&reward);
    let shared = SharedBase { base: &base, model: &model, sha256: &sha256, offline: true };
    let refused = |name: &str, shared: SharedBase<'_>| match RewardModel::open(name, shared) {
        Ok(_) => panic!("{name} was opened"),
        Err(e) => format!("{e:#}"),
    };
    let e = refused(&policy.output_dir, shared);
    assert!(e.contains("no score head") && e.contains("hint: train one with `rl: reward`"), "{e}");
    let e = refused(&reward.output_dir, SharedBase { sha256: "another", ..shared });
    assert!(e.contains("another than the policy's") && e.contains("\nhint: "), "{e}");
    let nf4 =
        base.model(LoadOptions { precision: galen_model::Precision::Nf4, ..LoadOptions::default() }).unwrap();
    let e = refused(&reward.output_dir, SharedBase { model: &nf4, ..shared });
    assert!(e.contains("held as `stored`, the policy holds it as `nf4`"), "{e}");
    // A reward model writes nothing, and no policy goes on from it.
    let Err(e) = crate::session::open_adapter(&reward.output_dir, &model, 0, true) else { panic!("opened") };
    assert!(e.to_string().contains("it scores answers and writes none"), "{e}");
    let text = std::fs::read_to_string(Path::new(&policy.output_dir).join("config.yaml")).unwrap();
    let set = [
        format!("lora_model_dir={}", reward.output_dir),
        format!("output_dir={}", dir.path().join("on").display()),
    ];
    let (on, report) = config::check_text("c.yaml", &text, &set);
    let Err(e) = train(&on, &report, Start::New, true, &Stop::default()) else { panic!("trained") };
    assert!(e.to_string().contains("it scores answers and writes none"), "{e}");
    // A reward model goes on from either.
    let text = std::fs::read_to_string(Path::new(&reward.output_dir).join("config.yaml")).unwrap();
    for (from, out) in [(&policy, "from-policy"), (&reward, "from-reward")] {
        let set = [
            format!("lora_model_dir={}", from.output_dir),
            format!("output_dir={}", dir.path().join(out).display()),
        ];
        let (on, report) = config::check_text("c.yaml", &text, &set);
        let made = train(&on, &report, Start::New, true, &Stop::default()).unwrap();
        assert!(made.outcome.adapter.score_head().is_some(), "{out}");
    }
}

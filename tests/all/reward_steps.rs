//! Ten steps of a reward model on SmolLM2 against TRL: `goldens/reward_steps.py` states the setting and made the figures.

use crate::align_steps::{follow, pair_rows};
use crate::goldens::path;
use crate::support::real;
use galen_data::pack::Sharing;
use galen_loss::Reward;
use galen_model::{Model, Precision, Weights};
use galen_train::preference::{PairRows, RewardPairs};
use serde_json::Value;

#[test]
fn ten_steps_of_a_reward_model_follow_trl() {
    let Some(file) = real("smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let text = std::fs::read_to_string(path("reward_steps.json")).expect("the golden file");
    let golden: Value = serde_json::from_str(&text).expect("the golden file is JSON");
    let weights = Weights::open(&file).expect("the model opens");
    let model = Model::load(&weights, Precision::Stored).expect("the model loads");
    for name in ["plain", "centred"] {
        let train = pair_rows(&golden[name]);
        assert_eq!(train[3].margin(), golden[name]["rows"][3]["margin"].as_f64());
        let mut objective = RewardPairs {
            rows: PairRows { train: &train, validation: &[] },
            loss: Reward { center_rewards_coefficient: golden[name]["center"].as_f64() },
            sharing: Sharing::AcrossRows,
        };
        follow(&model, &golden, name, &mut objective);
    }
}

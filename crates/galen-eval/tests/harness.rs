//! Every prompt, score and error bar as lm-evaluation-harness itself has them (`goldens/harness.py`): a model that
//! answers by hash is asked by both.

use galen_eval::{
    ChatMessage, ChoiceRequest, ChoiceScore, EvalOptions, GenerateRequest, Generation, PromptOptions,
    QuestionScore, ScoreError, Scorer, Task, evaluate,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Answers as the script's `Hash` does.
#[derive(Default)]
struct Hash {
    asked: Vec<Value>,
}

fn number(text: &str) -> u32 {
    let hash = Sha256::digest(text.as_bytes());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

impl Scorer for Hash {
    fn score_choices(&mut self, requests: &[ChoiceRequest]) -> Result<Vec<QuestionScore>, ScoreError> {
        let mut out = Vec::new();
        for request in requests {
            let mut choices = Vec::new();
            for choice in &request.choices {
                let n = number(&format!("{}\0{choice}", request.prompt.text()));
                self.asked.push(json!([request.prompt.text(), choice]));
                let logprob = -10.0 * f64::from(n) / 4_294_967_296.0;
                choices.push(ChoiceScore { logprob, n_tokens: 1, is_greedy: n.is_multiple_of(2) });
            }
            out.push(QuestionScore { choices, tokens: None });
        }
        Ok(out)
    }

    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<Generation>, ScoreError> {
        let answer = |request: &GenerateRequest| {
            let n = number(request.prompt.text());
            self.asked.push(json!([request.prompt.text()]));
            Generation { text: format!("so the ANSWER is {}, or {}.", n % 3, n % 5), ..Generation::default() }
        };
        Ok(requests.iter().map(answer).collect())
    }

    fn apply_chat_template(&mut self, messages: &[ChatMessage], header: bool) -> Result<String, ScoreError> {
        let turns: Vec<_> = messages.iter().map(|m| format!("<{}>{}", m.role, m.content)).collect();
        Ok(turns.concat() + if header { "<assistant>" } else { "" })
    }
}

#[test]
fn galen_asks_and_judges_as_the_harness_does() {
    let golden: Value = serde_json::from_str(include_str!("goldens/harness.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for split in ["test", "dev"] {
        let rows: Vec<_> = golden[split].as_array().unwrap().iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(folder.path().join(format!("{split}.jsonl")), rows.concat()).unwrap();
    }
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 20);
    for case in cases {
        let name = case["config"]["task"].as_str().unwrap();
        let mut config = case["config"].clone();
        config["dataset_kwargs"] = json!({"data_files": {"test": "test.jsonl", "dev": "dev.jsonl"}});
        let flag = |key: &str, default| case["options"][key].as_bool().unwrap_or(default);
        let options = EvalOptions {
            prompt: PromptOptions {
                apply_chat_template: flag("apply_chat_template", false),
                fewshot_as_multiturn: flag("fewshot_as_multiturn", false),
                system_instruction: case["options"]["system_instruction"].as_str().map(str::to_owned),
                ..PromptOptions::default()
            },
            ..EvalOptions::default()
        };
        // JSON is YAML.
        let task = Task::from_yaml(&config.to_string(), name, folder.path()).unwrap();
        let mut model = Hash::default();
        let result = evaluate(&task, &mut model, &options, &mut |_| ()).unwrap();

        let asked = case["asked"].as_array().unwrap();
        for (i, (found, expect)) in model.asked.iter().zip(asked).enumerate() {
            assert_eq!(found, expect, "{name}, request {i}");
        }
        assert_eq!(model.asked.len(), asked.len(), "{name}");
        assert_eq!(result.samples[0].doc_hash, case["doc_hash"].as_str().unwrap(), "{name}");
        let expected = case["results"].as_object().unwrap();
        assert_eq!(expected.len(), 2 * result.metrics.len(), "{name}: {expected:?}");
        for metric in &result.metrics {
            let (value, stderr) = (metric.value, metric.stderr.unwrap());
            let key = |suffix: &str| format!("{}{suffix},{}", metric.metric, metric.filter);
            for (key, found) in [(key(""), value), (key("_stderr"), stderr)] {
                let expect = expected.get(&key).and_then(Value::as_f64).unwrap_or(f64::NAN);
                assert!(
                    (found - expect).abs() <= 1e-12,
                    "{name}: {key} is {found}, the harness has {expect}"
                );
            }
        }
    }
}

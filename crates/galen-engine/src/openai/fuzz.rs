//! Mutated requests: an error in OpenAI's shape or a request, never a panic. `GALEN_FUZZ_SECONDS` (default 2) or
//! `GALEN_FUZZ_INPUTS`.

use super::{Kind, read};
use crate::batch::Line;
use galen_testkit::fuzz;

#[test]
fn requests() {
    let corpus: Vec<Vec<u8>> = [
        r#"{"model":"m","messages":[{"role":"system","content":"a"},{"role":"user","content":[{"type":"text","text":"b"}]}],"seed":-1,"n":2,"stop":["x"],"logprobs":true,"top_logprobs":2,"stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"b","name":"c"}],"max_completion_tokens":5,"logit_bias":{"3":-1.5},"temperature":0.5,"top_p":1,"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"}}},"tools":[]}"#,
        r#"{"model":"m","prompt":["a",[1,2]],"max_tokens":3,"logprobs":4,"top_k":-1,"min_p":0.1,"repetition_penalty":1.1,"suffix":"","echo":false,"best_of":1}"#,
        r#"{"model":"m","prompt":[1,2,3],"frequency_penalty":1,"presence_penalty":-2,"user":null}"#,
        r#"{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"model":"m","prompt":"x"}}"#,
    ]
    .map(|s| s.as_bytes().to_vec())
    .to_vec();
    let (mut sound, mut lines) = (0, 0);
    let inputs = fuzz::run("requests", &corpus, |bytes| {
        lines += u64::from(Line::parse(&String::from_utf8_lossy(bytes)).is_ok());
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
        for kind in [Kind::Chat, Kind::Text] {
            match read(kind, value.clone()) {
                Err(e) => assert!((400..500).contains(&e.status) && !e.message.is_empty(), "{e:?}"),
                Ok(call) => {
                    let options = &call.request.options;
                    assert!(!call.request.inputs.is_empty() && options.n > 0, "{call:?}");
                    assert!((0.0..=2.0).contains(&options.sampling.temperature), "{call:?}");
                    sound += 1;
                }
            }
        }
    });
    println!("requests: {inputs} inputs, {sound} of them requests, {lines} lines of a batch");
    assert!(sound > 0 && lines > 0);
}

//! A request in OpenAI's words.

use crate::request::{Input, Options};
use serde_json::{Map, Value, json};

/// The path, and what is posted to it. What is at its default is left out, so that a service that knows fewer options
/// is asked for no more than it must know. `place`: of the input in its request; its seed follows from it.
pub(super) fn of(model: &str, input: &Input, options: &Options, place: usize) -> (&'static str, Value) {
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| _ = body.insert(key.to_owned(), value);
    put("model", model.into());
    let path = match input {
        Input::Chat(messages) => {
            put("messages", messages.clone().into());
            "/chat/completions"
        }
        Input::Text(text) => {
            put("prompt", text.as_str().into());
            "/completions"
        }
        Input::Tokens(ids) => {
            put("prompt", ids.clone().into());
            "/completions"
        }
    };
    let Options {
        sampling,
        frequency_penalty,
        presence_penalty,
        logit_bias,
        max_tokens,
        stop,
        n,
        schema,
        ..
    } = options;
    put("temperature", json!(rounded(sampling.temperature)));
    if sampling.temperature > 0.0 {
        // Fifty-three bits: what every JSON reader keeps.
        let seed = sampling.seed.wrapping_add(place as u64) & ((1 << 53) - 1);
        put("seed", seed.into());
    }
    if sampling.top_p < 1.0 {
        put("top_p", json!(rounded(sampling.top_p)));
    }
    // Not OpenAI's, but what other servers of this interface call them.
    if sampling.top_k > 0 {
        put("top_k", sampling.top_k.into());
    }
    if sampling.min_p > 0.0 {
        put("min_p", json!(rounded(sampling.min_p)));
    }
    if sampling.repeat_penalty != 1.0 {
        put("repetition_penalty", json!(rounded(sampling.repeat_penalty)));
    }
    if *frequency_penalty != 0.0 {
        put("frequency_penalty", json!(rounded(*frequency_penalty)));
    }
    if *presence_penalty != 0.0 {
        put("presence_penalty", json!(rounded(*presence_penalty)));
    }
    if !logit_bias.is_empty() {
        put("logit_bias", logit_bias.iter().map(|(id, b)| (id.to_string(), json!(rounded(*b)))).collect());
    }
    if let Some(most) = max_tokens {
        put("max_tokens", (*most).into());
    }
    if !stop.is_empty() {
        put("stop", stop.clone().into());
    }
    if *n > 1 {
        put("n", (*n).into());
    }
    if let Some(schema) = schema {
        let named = json!({"name": "answer", "strict": true, "schema": schema});
        put("response_format", json!({"type": "json_schema", "json_schema": named}));
    }
    (path, Value::Object(body))
}

/// 0.7, not 0.699999988: what the user wrote.
fn rounded(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use galen_model::Sampling;

    #[test]
    fn only_what_is_asked_for() {
        let chat = Input::Chat(vec![json!({"role": "user", "content": "hi"})]);
        let (path, body) = of("m", &chat, &Options::default(), 0);
        assert_eq!(path, "/chat/completions");
        let expect =
            json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.0});
        assert_eq!(body, expect);
        let sampling = Sampling {
            temperature: 0.7,
            top_k: 5,
            top_p: 0.9,
            min_p: 0.1,
            repeat_penalty: 1.1,
            seed: u64::MAX,
        };
        let options = Options {
            sampling,
            frequency_penalty: 0.5,
            presence_penalty: -0.5,
            logit_bias: vec![(3, -1.0)],
            max_tokens: Some(9),
            stop: vec!["\n".into()],
            n: 2,
            schema: Some(json!({"type": "object"})),
            ..Options::default()
        };
        let (path, body) = of("m", &Input::Text("a".into()), &options, 1);
        assert_eq!(path, "/completions");
        let expect = json!({
            "model": "m", "prompt": "a", "temperature": 0.7, "seed": 0, "top_p": 0.9, "top_k": 5, "min_p": 0.1,
            "repetition_penalty": 1.1, "frequency_penalty": 0.5, "presence_penalty": -0.5, "logit_bias": {"3": -1.0},
            "max_tokens": 9, "stop": ["\n"], "n": 2,
            "response_format": {"type": "json_schema",
                                "json_schema": {"name": "answer", "strict": true, "schema": {"type": "object"}}},
        });
        assert_eq!(body, expect);
    }
}

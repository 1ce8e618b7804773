//! An endpoint judges: a JSON batch posted, a JSON list answered.

use super::answers::{self, Answers};
use crate::error::{shorten, shown};
use crate::options::{Kind, Network, Param};
use crate::{Completion, ConfigError, Options, Reward, RewardEntry, RewardError, Turn};
use galen_endpoint::{Address, Client, ClientOptions, Failure, Schedule, key_from_env};
use serde_json::{Value, json};
use std::time::Duration;

/// Largest answer read.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

pub(crate) const ENTRY: RewardEntry = RewardEntry {
    name: "http",
    about: "what an endpoint answers to a JSON batch",
    doc: DOC,
    params: &[PARAMS],
    build,
};

const DOC: &str = r#"Posted to `url`, at most `batch_size` completions at a time:

```json
{"requests": [{"id": 0, "prompt": "...", "completion": "...", "tokens": 31, "finish_reason": "stop", "row": {}}]}
```

(the objects are those of `command`; ids are the places in the list). The answer is `{"rewards": [0.5, null, 1]}` in the order of
the requests, or `{"rewards": [{"id": 0, "reward": 0.5}]}` in any order, each id once.

An answer of status 429 or 5xx, a refused connection and a time-out are tried again, `retries` times, after 0.5 s, 1 s, 2 s ...
up to 30 s, or after what `Retry-After` asks for in seconds (at most 60). Any other status stops the run. Redirects are not
followed.

Only this machine (`localhost`, 127.0.0.0/8, `::1`) may be addressed unless `allow_remote` names the host: prompts, completions
and rows leave the machine then. The key is read from the environment variable that `api_key_env` names, sent as
`Authorization: Bearer`, never shown, and never sent in clear to another machine."#;

const PARAMS: &[Param] = &[
    Param::required("url", Kind::Text, "the address, `http://` or `https://`"),
    Param::optional("api_key_env", Kind::Text, "environment variable that holds the key"),
    Param::optional("allow_remote", Kind::Texts, "other machines' host names that may be addressed"),
    Param::with("timeout_s", Kind::Number, "60", "seconds one request may take"),
    Param::with("retries", Kind::Count, "4", "times a request is tried again"),
    Param::with("batch_size", Kind::Count, "64", "completions of one request at most"),
];

fn build(options: &Options<'_>) -> Result<Box<dyn Reward>, ConfigError> {
    let address = Address::parse(&options.filled("url")?).map_err(|what| options.wrong("url", what))?;
    let allowed = options.texts("allow_remote")?;
    if options.network == Network::Offline {
        return Err(options.wrong("url", "cannot be asked offline: `--offline` opens no socket"));
    }
    let key = match options.maybe_text("api_key_env")? {
        None => None,
        Some(name) => Some(key_from_env(&name).map_err(|what| options.wrong("api_key_env", what))?),
    };
    address
        .check(&allowed, key.is_some(), "prompts, completions and rows")
        .map_err(|(what, hint)| options.wrong("url", what).hint(hint))?;
    let schedule = Schedule { retries: options.count("retries")?, ..Schedule::default() };
    let client = Client::new(ClientOptions {
        address,
        key,
        key_option: "api_key_env",
        timeout: options.seconds("timeout_s")?,
        schedule,
        max_answer_bytes: MAX_ANSWER_BYTES,
        interval: Duration::ZERO,
    });
    Ok(Box::new(Http { label: options.label.to_owned(), client, batch: options.positive("batch_size")? }))
}

struct Http {
    label: String,
    client: Client,
    batch: usize,
}

impl Reward for Http {
    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        let mut rewards = Vec::with_capacity(completions.len());
        for chunk in completions.chunks(self.batch) {
            let requests: Vec<_> = chunk.iter().enumerate().map(|(i, c)| c.to_request(i as u64)).collect();
            let body = json!({ "requests": requests }).to_string();
            // An answer that is there and wrong is the endpoint's mistake: it is not asked for again.
            let answer = self.client.post("", &body, |text| Ok(text.to_owned()));
            let read = answer.and_then(|text| read(&text, chunk.len()).map_err(Failure::from));
            rewards.extend(read.map_err(|failure| RewardError::Http {
                reward: self.label.clone(),
                url: self.client.address().shown.clone(),
                what: failure.what,
                hint: failure.hint,
            })?);
        }
        Ok(rewards)
    }

    fn turn(&self) -> Turn {
        Turn::Beside
    }
}

/// `{"rewards": [...]}` of `n` requests.
fn read(text: &str, n: usize) -> Result<Vec<Option<f64>>, String> {
    let answer: Value = serde_json::from_str(text)
        .map_err(|e| format!("answered `{}`, which is not JSON: {e}", shorten(text, 200)))?;
    let Some(Value::Array(list)) = answer.get("rewards") else {
        return Err(format!("answered `{}`, which has no list `rewards`", shorten(text, 200)));
    };
    if list.len() != n {
        return Err(format!("answered `{}` rewards to `{n}` requests", list.len()));
    }
    let mut answers = Answers::new(n);
    for (place, item) in list.iter().enumerate() {
        let (i, value) = match item {
            Value::Object(map) => {
                let id = map.get("id").and_then(Value::as_u64).and_then(|id| usize::try_from(id).ok());
                let id = id.filter(|id| *id < n);
                (id.ok_or_else(|| format!("`rewards[{place}]` has no `id` of a request"))?, map.get("reward"))
            }
            other => (place, Some(other)),
        };
        let reward = answers::reward(value).map_err(|why| {
            format!("the reward in `rewards[{place}]`, {}, {why}", shown(value.unwrap_or(&Value::Null)))
        })?;
        if answers.has(i) {
            return Err(format!("`rewards[{place}]` answers request `{i}` again"));
        }
        answers.set(i, reward);
    }
    // As many as requests and none twice: none is missing.
    Ok(answers.into_rewards())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let check = |text: &str, expect: Result<&[Option<f64>], &str>| match (read(text, 2), expect) {
            (Ok(got), Ok(expect)) => assert_eq!(got, expect, "{text}"),
            (Err(e), Err(part)) => assert!(e.contains(part), "{text}: {e}"),
            other => panic!("{text}: {other:?}"),
        };
        check(r#"{"rewards": [1, null], "more": 0}"#, Ok(&[Some(1.0), None]));
        check(
            r#"{"rewards": [{"id": 1, "reward": -0.5}, {"id": 0, "reward": null}]}"#,
            Ok(&[None, Some(-0.5)]),
        );
        check(
            r#"{"rewards": [{"id": 0, "reward": 1}, {"id": 0, "reward": 1}]}"#,
            Err("`rewards[1]` answers request `0` again"),
        );
        check(r#"{"rewards": [{"id": 2, "reward": 1}, 0]}"#, Err("has no `id` of a request"));
        check(r#"{"rewards": [{"id": 0}, 0]}"#, Err("nothing, is missing"));
        check(r#"{"rewards": [1]}"#, Err("`1` rewards to `2` requests"));
        check(r#"{"rewards": ["1", 2]}"#, Err("`\"1\"`, is neither"));
        check(r#"{"rewards": [NaN, 2]}"#, Err("not JSON"));
        check(r#"{"rewards": [1e999, 2]}"#, Err("not JSON"));
        check("[1, 2]", Err("no list `rewards`"));
        check("<html>", Err("answered `<html>`, which is not JSON"));
    }
}

//! An OpenAI-compatible endpoint as a teacher.

use super::{Opener, PRICES, Running, prices};
use galen_endpoint::{Address, Client, ClientOptions, Schedule, key_from_env};
use galen_engine::{Endpoint, EndpointOptions};
use galen_reward::{ConfigError, Kind, Network, Options, Param};
use galen_synth::{EngineKind, EngineSpec, Teacher};
use std::sync::Arc;
use std::time::Duration;

pub(super) const OPENER: Opener = Opener {
    kind: EngineKind {
        name: "openai",
        about: "an endpoint that speaks OpenAI's interface",
        doc: "Posts to `BASE/chat/completions` (`BASE/completions` with `raw: true`). BASE is `base_url`, else what the environment variable \
              `base_url_env` holds, and ends before `/chat`. Only this machine may be addressed unless `allow_remote` names the host: \
              prompts and rows leave the machine then. The key is read from the environment variable that `api_key_env` names, sent as \
              `Authorization: Bearer`, never shown or written down, and never sent in clear to another machine.\n\n\
              Status 429 and 5xx, broken connections, time-outs and answers that are not what the interface says are tried again, after 0.5 s, \
              1 s, 2 s ... up to 30 s; where the server says `Retry-After`, all requests wait for it (at most 60 s). A refusal of access \
              (401, 403), a wrong address (404, 405) and a redirect end the run; `--resume` goes on.",
        params: &[PARAMS, PRICES],
        logprobs: false,
    },
    open,
};

/// The variable of [`PARAMS`]' default.
const KEY: &str = "OPENAI_API_KEY";

const PARAMS: &[Param] = &[
    Param::required("model", Kind::Text, "the model's name there"),
    Param::optional(
        "base_url",
        Kind::Text,
        "the address before `/chat/completions`: `http://localhost:8000/v1`",
    ),
    Param::with(
        "base_url_env",
        Kind::Text,
        "\"OPENAI_BASE_URL\"",
        "the environment variable with the address, without `base_url`",
    ),
    Param::with(
        "api_key_env",
        Kind::Text,
        "\"OPENAI_API_KEY\"",
        "the environment variable with the key; the default may be unset, any other must be set",
    ),
    Param::optional("allow_remote", Kind::Texts, "other machines' host names that may be addressed"),
    Param::with("concurrency", Kind::Count, "8", "requests under way at a time, at most 256"),
    Param::optional("requests_per_minute", Kind::Number, "begin no more requests than that"),
    Param::with("timeout_s", Kind::Number, "120", "seconds one request may take"),
    Param::with("retries", Kind::Count, "4", "times a request is tried again"),
    Param::with(
        "retry_pause_s",
        Kind::Number,
        "0.5",
        "seconds before the first retry; each further pause is twice as long",
    ),
    Param::with("max_answer_bytes", Kind::Count, "2097152", "largest answer read"),
    Param::with(
        "json_schema",
        Kind::Flag,
        "true",
        "send a step's `schema` as `response_format`; otherwise answers are only checked",
    ),
];

fn open(_: &EngineSpec, options: &Options<'_>, _: bool) -> anyhow::Result<Running> {
    Ok(build(options)?)
}

fn build(options: &Options<'_>) -> Result<Running, ConfigError> {
    let model = options.filled("model")?;
    let (param, base) = match (options.maybe_text("base_url")?, options.filled("base_url_env")?) {
        (Some(url), _) => ("base_url", url),
        (None, variable) => match std::env::var(&variable) {
            Ok(url) if !url.trim().is_empty() => ("base_url_env", url.trim().to_owned()),
            _ => {
                let what = format!(
                    "no address: neither `base_url` nor the environment variable `{variable}` is set"
                );
                return Err(options.wrong("base_url", what).hint("`base_url: http://localhost:8000/v1`"));
            }
        },
    };
    let address = Address::parse(base.trim_end_matches('/')).map_err(|what| options.wrong(param, what))?;
    if address.url.contains(['?', '#']) {
        return Err(
            options.wrong(param, format!("`{}` has a query: paths go behind the address", address.shown))
        );
    }
    let allowed = options.texts("allow_remote")?;
    if options.network == Network::Offline {
        return Err(options.wrong(param, "cannot be asked offline: `--offline` opens no socket"));
    }
    let check = |has_key: bool| {
        address
            .check(&allowed, has_key, "prompts and rows")
            .map_err(|(what, hint)| options.wrong(param, what).hint(hint))
    };
    check(false)?;
    let variable = options.filled("api_key_env")?;
    let key = match key_from_env(&variable) {
        Ok(key) => Some(key),
        Err(_) if variable == KEY && std::env::var_os(KEY).is_none() => None,
        Err(what) => return Err(options.wrong("api_key_env", what)),
    };
    check(key.is_some())?;
    let concurrency = options.positive("concurrency")?;
    if concurrency > 256 {
        return Err(options.wrong("concurrency", "takes at most 256"));
    }
    let interval = match options.value("requests_per_minute")?.and_then(|v| v.as_f64()) {
        None => Duration::ZERO,
        Some(n) if (0.001..=1e6).contains(&n) => Duration::from_secs_f64(60.0 / n),
        Some(n) => {
            return Err(options.wrong("requests_per_minute", format!("takes 0.001 to 1000000, not `{n}`")));
        }
    };
    let identity = format!("{} {model}", address.shown);
    let client = Client::new(ClientOptions {
        address,
        key,
        key_option: "api_key_env",
        timeout: options.seconds("timeout_s")?,
        schedule: Schedule {
            retries: options.count("retries")?,
            first: options.seconds("retry_pause_s")?,
            ..Schedule::default()
        },
        max_answer_bytes: options.positive("max_answer_bytes")? as u64,
        interval,
    });
    let endpoint = Endpoint::new(EndpointOptions {
        model: model.clone(),
        client,
        concurrency,
        max_waiting: 2 * concurrency,
        max_model_tokens: 0,
    });
    let endpoint = endpoint.map_err(|e| options.wrong("concurrency", e.to_string()))?;
    let teacher = Teacher {
        engine: Arc::new(endpoint),
        kind: "openai",
        model,
        identity,
        concurrency,
        constrains: options.flag("json_schema")?,
        repeats: false,
        prices: prices(options)?,
    };
    Ok(Running { teacher, worker: None })
}

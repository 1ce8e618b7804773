//! One request, tried again where that may help.

use super::address::Address;
use super::retry::Schedule;
use crate::error::shorten;
use std::io::Read;
use std::time::Duration;
use ureq::Agent;
use ureq::http::header;

/// Largest answer read.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// Of an answer that is no success, shown.
const SHOWN_CHARS: usize = 300;

/// Opens sockets to one address.
pub(super) struct Client {
    agent: Agent,
    pub(super) address: Address,
    key: Option<String>,
    schedule: Schedule,
}

/// No usable answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) what: String,
    pub(super) hint: Option<String>,
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self { what, hint: None }
    }
}

/// One try.
enum Tried {
    Answer(String),
    /// It may do better later; after what `Retry-After` says.
    Later(String, Option<String>),
    Never(Failure),
}

impl Client {
    pub(super) fn new(address: Address, key: Option<String>, timeout: Duration, schedule: Schedule) -> Self {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(timeout))
            .user_agent(concat!("galen/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity");
        if address.loopback {
            config = config.proxy(None);
        }
        Self { agent: Agent::new_with_config(config.build()), address, key, schedule }
    }

    /// The text answered to `body`, JSON.
    pub(super) fn post(&self, body: &str) -> Result<String, Failure> {
        let mut retry = 0;
        loop {
            match self.try_once(body) {
                Tried::Answer(text) => return Ok(text),
                Tried::Never(failure) => return Err(failure),
                Tried::Later(what, asked) => match self.schedule.pause(retry, asked.as_deref()) {
                    Some(pause) => std::thread::sleep(pause),
                    None => return Err(format!("{what}, tried {} times", retry + 1).into()),
                },
            }
            retry += 1;
        }
    }

    fn try_once(&self, body: &str) -> Tried {
        let mut request = self
            .agent
            .post(&self.address.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(e) => return self.failed(&e),
        };
        let status = response.status().as_u16();
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (asked, location) = (header("retry-after"), header("location"));
        let mut bytes = Vec::new();
        if let Err(e) = response.body_mut().as_reader().take(MAX_ANSWER_BYTES + 1).read_to_end(&mut bytes) {
            return Tried::Later(format!("the answer broke off: {e}"), asked);
        }
        let text = String::from_utf8_lossy(&bytes);
        match status {
            200..=299 if bytes.len() as u64 > MAX_ANSWER_BYTES => {
                Tried::Never(format!("answered more than `{MAX_ANSWER_BYTES}` bytes").into())
            }
            200..=299 => Tried::Answer(text.into_owned()),
            429 | 500..=599 => Tried::Later(format!("status {status}{}", self.said(&text)), asked),
            300..=399 => {
                let to = location.unwrap_or_default();
                let to = shorten(to.split('?').next().unwrap_or_default(), SHOWN_CHARS);
                let what = format!("redirects to `{to}`, which is not followed");
                Tried::Never(Failure { what, hint: Some("write the final address into `url`".into()) })
            }
            401 | 403 => {
                let hint = match self.key {
                    Some(_) => "the key in use may not do this",
                    None => "`api_key_env` names the environment variable that holds a key",
                };
                let what = format!("access refused (status {status}){}", self.said(&text));
                Tried::Never(Failure { what, hint: Some(hint.into()) })
            }
            _ => Tried::Never(format!("status {status}{}", self.said(&text)).into()),
        }
    }

    /// What a server says of its refusal, the key taken out should it repeat it.
    fn said(&self, text: &str) -> String {
        let text = match &self.key {
            Some(key) => text.replace(key.as_str(), "***"),
            None => text.to_owned(),
        };
        match text.trim() {
            "" => String::new(),
            said => format!(", saying `{}`", shorten(said, SHOWN_CHARS)),
        }
    }

    fn failed(&self, error: &ureq::Error) -> Tried {
        match error {
            ureq::Error::HostNotFound => {
                let what = format!("the name `{}` is not known here", self.address.host);
                Tried::Later(what, None)
            }
            ureq::Error::Timeout(_) => Tried::Later("no answer in time".into(), None),
            ureq::Error::Io(e) => Tried::Later(format!("no connection: {e}"), None),
            other => Tried::Later(other.to_string(), None),
        }
    }
}

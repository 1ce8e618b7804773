//! One request, tried again where that may help.

use crate::address::Address;
use crate::retry::Schedule;
use crate::shorten;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::http::header;

/// Of an answer that is no success, shown.
const SHOWN_CHARS: usize = 300;
/// How often a pause looks whether it is to end.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// How a [`Client`] is set up.
pub struct ClientOptions {
    /// Whom it addresses.
    pub address: Address,
    /// Sent as `Authorization: Bearer`.
    pub key: Option<String>,
    /// The configuration key that names the key's environment variable, for hints.
    pub key_option: &'static str,
    /// Of one try.
    pub timeout: Duration,
    /// When it tries again.
    pub schedule: Schedule,
    /// Largest answer read.
    pub max_answer_bytes: u64,
    /// Time between the beginnings of two requests, at least.
    pub interval: Duration,
}

/// Opens sockets to one address. Threads share it; where the server asks one of them to wait, all do.
pub struct Client {
    agent: Agent,
    options: ClientOptions,
    /// No request begins before.
    not_before: Mutex<Option<Instant>>,
    stopped: AtomicBool,
}

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This request; another may do better.
    Request,
    /// Every request will fail so: no access, another address.
    Every,
    /// [`Client::stop`] was called.
    Stopped,
}

/// No usable answer.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What happened, in words; never with the key.
    pub what: String,
    /// The remedy.
    pub hint: Option<String>,
    /// Whose fault it is.
    pub fault: Fault,
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self { what, hint: None, fault: Fault::Request }
    }
}

/// An answer that is not what was asked for.
#[derive(Debug, Clone)]
pub enum Unread {
    /// Another try may give it, as after a broken connection.
    Again(String),
    /// No other try will.
    Never(Failure),
}

impl From<String> for Unread {
    fn from(what: String) -> Self {
        Self::Again(what)
    }
}

/// One try.
enum Tried<T> {
    Answer(T),
    /// It may do better later; after what `Retry-After` says.
    Later(String, Option<String>),
    Never(Failure),
}

impl Client {
    /// Opens nothing yet.
    pub fn new(options: ClientOptions) -> Self {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(options.timeout))
            .max_idle_connections(64)
            .max_idle_connections_per_host(64)
            .user_agent(concat!("galen/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity");
        if options.address.loopback {
            config = config.proxy(None);
        }
        let agent = Agent::new_with_config(config.build());
        Self { agent, options, not_before: Mutex::new(None), stopped: AtomicBool::new(false) }
    }

    /// Whom it addresses.
    pub fn address(&self) -> &Address {
        &self.options.address
    }

    /// Ends pauses, and with them the requests that wait.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// The answer to `body`, JSON, posted to the address with `path` behind it. `read` makes of its text what is wanted;
    /// what it cannot read says whether it is asked for again.
    pub fn post<T>(
        &self,
        path: &str,
        body: &str,
        read: impl Fn(&str) -> Result<T, Unread>,
    ) -> Result<T, Failure> {
        let mut retry = 0;
        loop {
            self.wait()?;
            match self.try_once(path, body, &read) {
                Tried::Answer(answer) => return Ok(answer),
                Tried::Never(failure) => return Err(failure),
                Tried::Later(what, asked) => match self.options.schedule.pause(retry, asked.as_deref()) {
                    Some(pause) if asked.is_some() => self.hold(pause),
                    Some(pause) => self.sleep_until(Instant::now() + pause)?,
                    None => return Err(format!("{what}, tried {} times", retry + 1).into()),
                },
            }
            retry += 1;
        }
    }

    /// Takes the next place in time for a request.
    fn wait(&self) -> Result<(), Failure> {
        loop {
            let now = Instant::now();
            let at = {
                let mut next = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
                match *next {
                    Some(at) if at > now => at,
                    _ => {
                        *next = Some(now + self.options.interval);
                        now
                    }
                }
            };
            if at <= now {
                return self.sleep_until(at);
            }
            self.sleep_until(at)?;
        }
    }

    /// Nobody begins a request for that long.
    fn hold(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut next = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        *next = Some(next.map_or(until, |n| n.max(until)));
    }

    fn sleep_until(&self, at: Instant) -> Result<(), Failure> {
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Failure { what: "stopped".into(), hint: None, fault: Fault::Stopped });
            }
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(ASK_EVERY));
        }
    }

    fn try_once<T>(&self, path: &str, body: &str, read: &impl Fn(&str) -> Result<T, Unread>) -> Tried<T> {
        let Address { url, .. } = &self.options.address;
        let mut request = self
            .agent
            .post(format!("{url}{path}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json");
        if let Some(key) = &self.options.key {
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
        let most = self.options.max_answer_bytes;
        let mut bytes = Vec::new();
        if let Err(e) = response.body_mut().as_reader().take(most + 1).read_to_end(&mut bytes) {
            return Tried::Later(format!("the answer broke off: {e}"), asked);
        }
        if matches!(status, 200..=299) {
            if bytes.len() as u64 > most {
                return Tried::Never(format!("answered more than `{most}` bytes").into());
            }
            let Ok(text) = String::from_utf8(bytes) else {
                return Tried::Later("the answer is not valid UTF-8".into(), asked);
            };
            return match read(&self.redacted(text)) {
                Ok(answer) => Tried::Answer(answer),
                Err(Unread::Again(what)) => Tried::Later(what, asked),
                Err(Unread::Never(failure)) => Tried::Never(failure),
            };
        }
        let text = String::from_utf8_lossy(&bytes);
        let every = |what: String, hint: &str| {
            Tried::Never(Failure { what, hint: Some(hint.into()), fault: Fault::Every })
        };
        match status {
            429 | 500..=599 => Tried::Later(format!("status {status}{}", self.said(&text)), asked),
            300..=399 => {
                let to = location.unwrap_or_default();
                let to = shorten(to.split('?').next().unwrap_or_default(), SHOWN_CHARS);
                every(
                    format!("redirects to `{to}`, which is not followed"),
                    "write the final address into the configuration",
                )
            }
            401 | 403 => {
                let what = format!("access refused (status {status}){}", self.said(&text));
                let option = self.options.key_option;
                let hint = match self.options.key {
                    Some(_) => "the key in use may not do this".to_owned(),
                    None => format!("`{option}` names the environment variable that holds a key"),
                };
                every(what, &hint)
            }
            404 | 405 => every(
                format!("status {status}{}", self.said(&text)),
                "is the address the one that the service documents, and the model one it has?",
            ),
            _ => Tried::Never(format!("status {status}{}", self.said(&text)).into()),
        }
    }

    /// A server's text without the key, should it repeat it: it may end in an error or a journal.
    fn redacted(&self, text: String) -> String {
        match &self.options.key {
            Some(key) if text.contains(key.as_str()) => text.replace(key.as_str(), "***"),
            _ => text,
        }
    }

    /// What a server says of its refusal.
    fn said(&self, text: &str) -> String {
        match self.redacted(text.to_owned()).trim() {
            "" => String::new(),
            said => format!(", saying `{}`", shorten(said, SHOWN_CHARS)),
        }
    }

    fn failed<T>(&self, error: &ureq::Error) -> Tried<T> {
        match error {
            ureq::Error::HostNotFound => {
                let what = format!("the name `{}` is not known here", self.options.address.host);
                Tried::Later(what, None)
            }
            ureq::Error::Timeout(_) => Tried::Later("no answer in time".into(), None),
            ureq::Error::Io(e) => Tried::Later(format!("no connection: {e}"), None),
            other => Tried::Later(other.to_string(), None),
        }
    }
}

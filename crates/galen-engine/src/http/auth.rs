//! Who may ask, and under which host's name.

use super::App;
use crate::openai::ApiError;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;

/// A file of keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing in it.
    #[error("there is no key in it\nhint: write a key a line; `#` begins a comment")]
    Empty,
    /// A line that cannot be sent in a header.
    #[error("line {0}: a key is of visible ASCII characters")]
    Characters(usize),
    /// A line that is too short to be safe.
    #[error("line {0}: a key has at least 16 characters\nhint: `openssl rand -hex 24` makes one")]
    Short(usize),
}

/// Keys, kept as digests.
#[derive(Clone)]
pub struct ApiKeys(Vec<[u8; 32]>);

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl ApiKeys {
    /// A key a line; blank lines and those that begin with `#` do not count.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let key = line.trim();
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            if !key.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(KeyError::Characters(i + 1));
            }
            if key.len() < 16 {
                return Err(KeyError::Short(i + 1));
            }
            keys.push(digest(key));
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self(keys)) }
    }

    /// Whether it is one of them. Digests are compared, whole and every one: the time tells nothing of a key.
    fn has(&self, key: &str) -> bool {
        let asked = digest(key);
        let differs = |own: &[u8; 32]| own.iter().zip(&asked).fold(0u8, |d, (a, b)| d | (a ^ b));
        self.0.iter().fold(false, |found, own| found | (std::hint::black_box(differs(own)) == 0))
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Lets through what has a key, where one is asked for.
pub(super) async fn check_key(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if let Some(keys) = &app.options.keys {
        let sent = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let key =
            sent.and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, key)) = key else {
            let what = "no API key: send `Authorization: Bearer KEY`";
            return Err(ApiError::new(401, Some("invalid_api_key"), what));
        };
        if !keys.has(key.trim()) {
            return Err(ApiError::new(401, Some("invalid_api_key"), "the API key is wrong"));
        }
    }
    Ok(next.run(request).await)
}

/// Lets through what names an allowed host, where not all are.
pub(super) async fn check_host(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if let Some(hosts) = &app.options.hosts {
        let named = request.headers().get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let name = without_port(named);
        if !hosts.iter().any(|h| h.eq_ignore_ascii_case(name)) {
            let what = "the request names another host than this server's\nhint: start it with an API key, or with `--allowed-host`";
            return Err(ApiError::new(403, Some("host_not_allowed"), what));
        }
    }
    Ok(next.run(request).await)
}

/// `localhost:8080` to `localhost`, `[::1]:8080` to `[::1]`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_told_apart() {
        let keys = ApiKeys::parse("# mine\n\n0123456789abcdef\n another-key-of-some-length \n").unwrap();
        assert!(keys.has("0123456789abcdef") && keys.has("another-key-of-some-length"));
        assert!(!keys.has("0123456789abcdeg") && !keys.has("") && !keys.has("0123456789abcdef0"));
        assert_eq!(ApiKeys::parse("# none\n").err(), Some(KeyError::Empty));
        assert_eq!(ApiKeys::parse("\nshort").err(), Some(KeyError::Short(2)));
        assert_eq!(ApiKeys::parse("two words are no key").err(), Some(KeyError::Characters(1)));
        assert!(!format!("{keys:?}").contains("0123"));
    }

    #[test]
    fn ports_come_off() {
        assert_eq!(without_port("localhost:8080"), "localhost");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
        assert_eq!(without_port("a.b"), "a.b");
    }
}

//! Requests with time-outs, and redirects that never carry the token to another host.

use crate::error::{HubError, Result};
use crate::options::Options;
use std::io::Read;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

const MAX_REDIRECTS: usize = 10;
/// Largest API answer read into memory.
const MAX_JSON_BYTES: u64 = 64 << 20;
/// Attempts at a request whose answer was 429 or 5xx.
const MAX_TRIES: u32 = 3;

/// What the server says of a file before sending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileInfo {
    pub(crate) commit: Option<String>,
    pub(crate) etag: String,
    pub(crate) size: Option<u64>,
}

/// Opens sockets; cannot be made offline.
pub(crate) struct Client<'a> {
    agent: Agent,
    pub(crate) options: &'a Options<'a>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(options: &'a Options<'a>) -> Result<Self> {
        if options.offline {
            let hint = "run once without `--offline` (and `HF_HUB_OFFLINE`)".to_owned();
            return Err(HubError::Offline { what: options.endpoint.clone(), hint });
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(options.connect_timeout))
            .timeout_connect(Some(options.connect_timeout))
            .timeout_per_read(Some(options.read_timeout))
            .timeout_per_write(Some(options.read_timeout))
            .timeout_recv_response(Some(options.read_timeout))
            .user_agent(concat!("galen/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity");
        if let Some(path) = &options.ca_file {
            let pem = std::fs::read(path).map_err(|e| HubError::io(path, e))?;
            let certificates = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(c)) => Some(c),
                _ => None,
            });
            let roots = RootCerts::new_with_certs(&certificates.collect::<Vec<_>>());
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        if is_loopback(&options.endpoint) {
            config = config.proxy(None);
        }
        Ok(Self { agent: Agent::new_with_config(config.build()), options })
    }

    /// One request, no redirects.
    fn request(&self, head: bool, url: &str, from: u64) -> Result<Response<Body>> {
        let builder = if head { self.agent.head(url) } else { self.agent.get(url) };
        let mut builder = builder.header(header::ACCEPT, "*/*");
        if let Some(token) = self.options.token.as_ref().filter(|_| same_origin(url, &self.options.endpoint))
        {
            builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if from > 0 {
            builder = builder.header(header::RANGE, format!("bytes={from}-"));
        }
        let unreachable = |e: &ureq::Error| HubError::Unreachable { url: shown(url), why: explain(e) };
        builder.call().map_err(|e| unreachable(&e))
    }

    /// Follows redirects until `done` or an answer that is none; `seen` is told every answer on the way.
    fn follow(
        &self,
        head: bool,
        url: &str,
        from: u64,
        mut stop: impl FnMut(&Response<Body>) -> bool,
    ) -> Result<(String, Response<Body>)> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.request(head, &url, from)?;
            if stop(&response) || !response.status().is_redirection() {
                return Ok((url, response));
            }
            let location = text(response.headers(), "location").unwrap_or_default();
            url = join(&url, location).ok_or_else(|| HubError::Unreachable {
                url: shown(&url),
                why: format!("redirects to `{}`, which is not followed", shown(location)),
            })?;
        }
        Err(HubError::Unreachable { url: shown(&url), why: format!("more than {MAX_REDIRECTS} redirects") })
    }

    /// Repeats what the server declined for now (429, 5xx).
    fn patiently<T>(&self, mut request: impl FnMut() -> Result<T>) -> Result<T> {
        let mut tries = 0;
        loop {
            tries += 1;
            match request() {
                Err(HubError::Status { status, .. })
                    if tries < MAX_TRIES && (status == 429 || status >= 500) =>
                {
                    self.pause(tries);
                }
                other => return other,
            }
        }
    }

    /// Sleeps before retry number `n` (from 1).
    pub(crate) fn pause(&self, n: u32) {
        let factor = 1 << n.saturating_sub(1).min(5);
        std::thread::sleep((self.options.retry_pause * factor).min(Duration::from_secs(30)));
    }

    /// A JSON document of the hub's API.
    pub(crate) fn json(&self, url: &str, what: &str) -> Result<serde_json::Value> {
        let mut response = self.patiently(|| {
            let (at, response) = self.follow(false, url, 0, |_| false)?;
            self.accept(&at, what, &response)?;
            Ok(response)
        })?;
        let mut bytes = Vec::new();
        let mut reader = response.body_mut().as_reader().take(MAX_JSON_BYTES + 1);
        let unreadable = |e: std::io::Error| HubError::Unreachable { url: shown(url), why: e.to_string() };
        reader.read_to_end(&mut bytes).map_err(unreadable)?;
        let format = |why: String| HubError::Format { what: shown(url), why };
        if bytes.len() as u64 > MAX_JSON_BYTES {
            return Err(format(format!("answer of more than {MAX_JSON_BYTES} bytes")));
        }
        serde_json::from_slice(&bytes).map_err(|e| format(format!("not JSON: {e}")))
    }

    /// Size and etag of a file, from the first answer that describes it. The hub describes a large file in the
    /// answer that redirects to the store holding it.
    pub(crate) fn file_info(&self, url: &str, what: &str) -> Result<FileInfo> {
        let describes = |r: &Response<Body>| r.headers().contains_key("x-repo-commit");
        self.patiently(|| {
            let (at, response) = self.follow(true, url, 0, describes)?;
            if !describes(&response) {
                self.accept(&at, what, &response)?;
            }
            if response.status().is_client_error() || response.status().is_server_error() {
                self.accept(&at, what, &response)?;
            }
            let headers = response.headers();
            let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag")).map(bare_etag);
            let size = text(headers, "x-linked-size")
                .or_else(|| text(headers, "content-length").filter(|_| response.status().is_success()));
            let Some(etag) = etag.filter(|e| !e.is_empty()) else {
                return Err(HubError::Format { what: shown(&at), why: "the answer has no etag".into() });
            };
            Ok(FileInfo {
                commit: text(headers, "x-repo-commit").map(str::to_owned),
                etag: etag.to_owned(),
                size: size.and_then(|s| s.parse().ok()),
            })
        })
    }

    /// The file's bytes from `from` on. `etag`, when an answer on the way states another one, is an error:
    /// the file changed.
    pub(crate) fn open(&self, url: &str, what: &str, from: u64, etag: &str) -> Result<Response<Body>> {
        let mut changed = false;
        let (at, response) = self.follow(false, url, from, |r| {
            let stated = text(r.headers(), "x-linked-etag").map(bare_etag);
            changed |= stated.is_some_and(|s| s != etag);
            false
        })?;
        if changed {
            return Err(HubError::Unreachable { url: shown(url), why: "the file changed meanwhile".into() });
        }
        if response.status() != 416 {
            self.accept(&at, what, &response)?;
        }
        Ok(response)
    }

    /// Turns a status that is not success into the error a user can act on.
    fn accept(&self, url: &str, what: &str, response: &Response<Body>) -> Result<()> {
        let status = response.status().as_u16();
        let code = text(response.headers(), "x-error-code").map(|c| c.chars().take(80).collect::<String>());
        let at_hub = same_origin(url, &self.options.endpoint);
        match status {
            200..=299 => Ok(()),
            401 | 403 if at_hub => {
                let hint = if self.options.token.is_some() {
                    "the token in use may not read it; if it is gated, accept its terms on its page"
                } else {
                    "the name may be wrong; if it is private or gated, set `HF_TOKEN` to a token that may read it"
                };
                let detail = code.map(|c| format!(", {c}")).unwrap_or_default();
                Err(HubError::Denied { url: shown(url), status, detail, hint: hint.into() })
            }
            404 => {
                let detail = code.map_or_else(|| "status 404".to_owned(), |c| format!("status 404, {c}"));
                Err(HubError::NotOnHub { what: what.to_owned(), detail })
            }
            _ => Err(HubError::Status { url: shown(url), status }),
        }
    }
}

pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// `W/"abc"` and `"abc"` are `abc`.
fn bare_etag(etag: &str) -> &str {
    etag.trim().trim_start_matches("W/").trim_matches('"')
}

/// Without its query: signed addresses carry secrets there.
fn shown(url: &str) -> String {
    url.split('?').next().unwrap_or_default().chars().take(300).collect()
}

fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "the name of the host is not known here".into(),
        ureq::Error::Timeout(t) => format!("no answer in time ({t})"),
        other => other.to_string(),
    }
}

fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

pub(super) fn same_origin(a: &str, b: &str) -> bool {
    origin(a).is_some_and(|a| Some(a) == origin(b))
}

fn is_loopback(url: &str) -> bool {
    let Some((_, host, _)) = origin(url) else { return false };
    let bare = host.trim_matches(['[', ']']);
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where a redirect from `base` to `location` leads. `None` for another scheme, or from https to http.
pub(super) fn join(base: &str, location: &str) -> Option<String> {
    let uri: Uri = base.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
    let target = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.contains("://") {
        location.to_owned()
    } else if location.is_empty() {
        return None;
    } else {
        let folder = uri.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let (to, ..) = origin(&target)?;
    (to == "https" || (to == "http" && scheme == "http")).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_joined_and_never_leave_tls() {
        let base = "https://hub.test/a/resolve/main/x?y=1";
        assert_eq!(join(base, "/b/c").as_deref(), Some("https://hub.test/b/c"));
        assert_eq!(join(base, "z").as_deref(), Some("https://hub.test/a/resolve/main/z"));
        assert_eq!(join(base, "//cdn.test/q").as_deref(), Some("https://cdn.test/q"));
        assert_eq!(join(base, "https://cdn.test/q?s=1").as_deref(), Some("https://cdn.test/q?s=1"));
        assert_eq!(join(base, "http://hub.test/q"), None);
        assert_eq!(join(base, "file:///etc/passwd"), None);
        assert_eq!(join(base, ""), None);
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert!(same_origin("https://Hub.test/x", "https://hub.test:443"));
        assert!(!same_origin("http://hub.test/x", "https://hub.test"));
        assert!(!same_origin("https://hub.test:8443/x", "https://hub.test"));
        assert!(!same_origin("https://hub.test.evil/x", "https://hub.test"));
        assert!(is_loopback("http://127.0.0.1:80") && is_loopback("http://[::1]:8080/x"));
        assert!(!is_loopback("https://hub.test"));
    }

    #[test]
    fn queries_are_not_shown() {
        assert_eq!(shown("https://cdn.test/x?Signature=secret"), "https://cdn.test/x");
        assert_eq!(bare_etag("W/\"abc\""), "abc");
    }
}

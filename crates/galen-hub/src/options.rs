//! Where to look, how long to wait, whom to tell.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The hub's public address: the one place of the project that names it.
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Told what is going on. Every method has an empty default.
pub trait Progress: Send + Sync {
    /// A source is about to be tried: `trying hub ORG/REPO`.
    fn trying(&self, _name: &str, _source: &str) {}
    /// A source did not deliver, and why; another may follow.
    fn failed(&self, _source: &str, _why: &str) {}
    /// Something worth one line: a download goes on, another process is waited for, the cache stands in.
    fn note(&self, _text: &str) {}
    /// A transfer begins (or goes on) with `done` of `total` bytes there.
    fn start(&self, _file: &str, _done: u64, _total: Option<u64>) {}
    /// `bytes` more have come.
    fn advance(&self, _bytes: u64) {}
    /// The transfer ended.
    fn finish(&self) {}
}

/// Tells nobody.
pub struct Silent;
impl Progress for Silent {}

/// One line an event on stderr, no bars.
pub struct Lines;
impl Progress for Lines {
    fn trying(&self, name: &str, source: &str) {
        eprintln!("{name}: trying {source} …");
    }
    fn failed(&self, source: &str, why: &str) {
        eprintln!("  {source}: {why}");
    }
    fn note(&self, text: &str) {
        eprintln!("  {text}");
    }
}

/// Settings of a resolution. [`Options::from_env`] reads the variables Hugging Face's own client reads.
#[derive(Clone)]
pub struct Options<'a> {
    /// Open no socket and start no pip.
    pub offline: bool,
    /// Sent to `endpoint` only, never to a host it redirects to.
    pub token: Option<String>,
    /// Base address of the hub, without a trailing slash.
    pub endpoint: String,
    /// `models--ORG--REPO` folders live here.
    pub hub_cache: PathBuf,
    /// galen's own cache: catalogue files that came from elsewhere than the hub, and stamps.
    pub galen_cache: PathBuf,
    /// Python to run pip with; `None`: `python3`, then `python`.
    pub python: Option<PathBuf>,
    /// PEM file of certificate authorities that replaces the built-in list.
    pub ca_file: Option<PathBuf>,
    /// Name lookup, and connection with TLS handshake: each at most this.
    pub connect_timeout: Duration,
    /// Longest silence of a server that was connected to.
    pub read_timeout: Duration,
    /// Pause before the first retry; doubles with each.
    pub retry_pause: Duration,
    /// Told what happens.
    pub progress: &'a dyn Progress,
}

impl<'a> Options<'a> {
    /// From `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`, `GALEN_CACHE`, `GALEN_PYTHON`, `XDG_CACHE_HOME`, `SSL_CERT_FILE`.
    pub fn from_env(offline: bool, progress: &'a dyn Progress) -> Self {
        Self::from_lookup(offline, progress, &|name| std::env::var_os(name).filter(|v| !v.is_empty()))
    }

    /// As [`Options::from_env`], over any variables.
    pub(crate) fn from_lookup(
        offline: bool,
        progress: &'a dyn Progress,
        var: &dyn Fn(&str) -> Option<OsString>,
    ) -> Self {
        let path = |name: &str| var(name).map(PathBuf::from);
        let text = |name: &str| var(name).and_then(|v| v.into_string().ok());
        let home = path("HOME").or_else(|| path("USERPROFILE")).unwrap_or_else(|| PathBuf::from("."));
        let cache = path("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        let hf_home = path("HF_HOME").unwrap_or_else(|| cache.join("huggingface"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file).ok())
            .map(|t| t.trim().to_owned())
            .filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic()));
        let seconds = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|s| s.parse().ok()).filter(|s| *s > 0);
        let hub_offline =
            text("HF_HUB_OFFLINE").is_some_and(|v| matches!(&*v.to_lowercase(), "1" | "on" | "yes" | "true"));
        Self {
            offline: offline || hub_offline,
            token,
            endpoint: text("HF_ENDPOINT").map_or_else(
                || DEFAULT_ENDPOINT.to_owned(),
                |e| {
                    let e = e.trim_end_matches('/');
                    if e.contains("://") { e.to_owned() } else { format!("https://{e}") }
                },
            ),
            hub_cache: path("HF_HUB_CACHE").unwrap_or_else(|| hf_home.join("hub")),
            galen_cache: path("GALEN_CACHE").unwrap_or_else(|| cache.join("galen")),
            python: path("GALEN_PYTHON"),
            ca_file: path("SSL_CERT_FILE"),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(seconds.unwrap_or(30)),
            retry_pause: Duration::from_secs(1),
            progress,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options<'static> {
        let find = |name: &str| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| OsString::from(v));
        Options::from_lookup(false, &Silent, &find)
    }

    #[test]
    fn the_variables_of_hugging_face_are_honoured() {
        let o = options(&[("HOME", "/h")]);
        assert_eq!(o.hub_cache, PathBuf::from("/h/.cache/huggingface/hub"));
        assert_eq!(o.galen_cache, PathBuf::from("/h/.cache/galen"));
        assert_eq!(o.endpoint, DEFAULT_ENDPOINT);
        let o = options(&[("HF_HOME", "/x"), ("HF_ENDPOINT", "hub.test/"), ("HF_HUB_OFFLINE", "1")]);
        assert_eq!(o.hub_cache, PathBuf::from("/x/hub"));
        assert_eq!(o.endpoint, "https://hub.test");
        assert!(o.offline);
        let o = options(&[("HF_HUB_CACHE", "/y"), ("HF_TOKEN", " hf_abc\n"), ("HF_HUB_OFFLINE", "0")]);
        assert_eq!(o.hub_cache, PathBuf::from("/y"));
        assert_eq!(o.token.as_deref(), Some("hf_abc"));
        assert!(!o.offline);
        assert_eq!(options(&[("HF_TOKEN", "a\r\nX-Evil: 1")]).token, None);
    }

    #[test]
    fn the_token_file_is_read() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let o = options(&[("HF_HOME", home.path().to_str().unwrap())]);
        assert_eq!(o.token.as_deref(), Some("hf_file"));
    }
}

//! Whom a reward endpoint may be.

use ureq::http::Uri;

/// A checked address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The whole of it.
    pub url: String,
    /// Without its query, which may hold a secret.
    pub shown: String,
    /// Host, in lower case, without brackets.
    pub host: String,
    /// Whether that is this machine.
    pub loopback: bool,
    /// `https`.
    pub tls: bool,
}

impl Address {
    /// Errors, in words: no address, or one with a name or password in it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let shown: String = url.split(['?', '#']).next().unwrap_or_default().chars().take(300).collect();
        // What stands before an `@` may be a password: such an address is never repeated.
        if url.contains('@') {
            return Err("has an `@`: a name or password in it is not accepted; use `api_key_env`".into());
        }
        let uri: Uri = url.parse().map_err(|e| format!("`{shown}` is no address: {e}"))?;
        let tls = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("`{shown}` begins with neither `http://` nor `https://`")),
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        if host.is_empty() {
            return Err(format!("`{shown}` names no host"));
        }
        let loopback = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        Ok(Self { url: url.to_owned(), shown, host, loopback, tls })
    }

    /// Whether it may be addressed: this machine, or a host that `allow_remote` names; and no key in clear to another
    /// machine. `sent`: what goes there, for the hint. Errors: what is wrong, and the remedy.
    pub fn check(&self, allow_remote: &[String], has_key: bool, sent: &str) -> Result<(), (String, String)> {
        if self.loopback {
            return Ok(());
        }
        if !allow_remote.iter().any(|host| host.eq_ignore_ascii_case(&self.host)) {
            let hint = format!("`allow_remote: [{}]` allows it; {sent} are sent there", self.host);
            return Err((format!("host `{}` is another machine", self.host), hint));
        }
        if has_key && !self.tls {
            return Err(("would carry the key in clear".into(), "use `https://`".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_others() {
        for url in ["http://127.0.0.1:80/x", "http://LOCALHOST:8000", "https://[::1]/x", "http://127.9.9.9"] {
            assert!(Address::parse(url).unwrap().loopback, "{url}");
        }
        for url in [
            "http://127.0.0.1.evil.test",
            "http://localhost.evil.test/",
            "http://0x7f.1",
            "https://judge.test",
        ] {
            assert!(!Address::parse(url).unwrap().loopback, "{url}");
        }
        for url in [
            "",
            "judge.test",
            "/x",
            "ftp://localhost",
            "file:///etc/passwd",
            "http://",
            "http://u:secret@localhost",
        ] {
            let error = Address::parse(url).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        let address = Address::parse("https://Judge.test/x?key=secret").unwrap();
        assert_eq!(
            (address.shown.as_str(), address.host.as_str(), address.tls),
            ("https://Judge.test/x", "judge.test", true)
        );
    }
}

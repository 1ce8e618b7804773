//! The one printer of errors, and the exit codes they become.

use std::fmt;

/// Done.
pub const EXIT_OK: u8 = 0;
/// Failed while running.
pub const EXIT_FAILED: u8 = 1;
/// The command line or the configuration is wrong; nothing was started.
pub const EXIT_USAGE: u8 = 2;

/// One complaint about a configuration: where, what, and the remedy where there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {message}{}", Hint(.hint.as_deref()))]
pub struct ConfigError {
    /// `config.yaml:12`, `--set`, or the file's name where no line applies.
    pub origin: String,
    /// What is wrong, values in backticks.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}

/// Every complaint about one configuration, in file order. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// The command line is wrong in a way clap cannot see (a file that exists already, flags that contradict).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", Hint(.hint.as_deref()))]
pub struct UsageError {
    /// What is wrong, values in backticks.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}

impl UsageError {
    /// A complaint with its remedy.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// A run was stopped by a signal after writing its checkpoint: exit code 128 + signal (130 or 143).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped by {}", if *.signal == 2 { "Ctrl-C" } else { "SIGTERM" })]
pub struct Interrupted {
    /// 2 (SIGINT) or 15 (SIGTERM).
    pub signal: u8,
}

/// Prints `\nhint: ...` or nothing.
struct Hint<'a>(Option<&'a str>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

/// The exit code of a failure: 2 for configuration and usage, 128 + signal for a signal, else 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<ConfigErrors>() || cause.is::<ConfigError>() || cause.is::<UsageError>() {
            return EXIT_USAGE;
        }
        if let Some(stopped) = cause.downcast_ref::<Interrupted>() {
            return 128 + stopped.signal;
        }
    }
    EXIT_FAILED
}

/// The text of a failure: `error: outer: inner` on one line, then the hints, each on a line of its own.
/// A cause already quoted by the one outside it is not repeated.
pub fn render(error: &anyhow::Error) -> String {
    let mut line = String::new();
    let mut hints: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if let Some(ConfigErrors(list)) = cause.downcast_ref() {
            // A list keeps each complaint beside its hint.
            return list.iter().map(|e| format!("error: {e}")).collect::<Vec<_>>().join("\n");
        }
        let mut parts = text.split("\nhint: ");
        let said = parts.next().unwrap_or_default().trim_end();
        hints.extend(
            parts.map(|h| h.trim_end().to_owned()).filter(|h| !hints.contains(h)).collect::<Vec<_>>(),
        );
        if line.is_empty() {
            line.push_str(said);
        } else if !said.is_empty() && !line.contains(said) {
            line.push_str(": ");
            line.push_str(said);
        }
    }
    if hints.is_empty() {
        let refusals = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
        hints.extend(refusals.filter_map(|e| remedy(e.kind())).map(str::to_owned).take(1));
    }
    let mut out = format!("error: {line}");
    for hint in hints {
        out.push_str("\nhint: ");
        out.push_str(&hint);
    }
    out
}

/// What helps where the operating system refused and nobody said more.
fn remedy(kind: std::io::ErrorKind) -> Option<&'static str> {
    use std::io::ErrorKind as Kind;
    match kind {
        Kind::NotFound => Some("is the path right? relative paths begin where the command was started"),
        Kind::PermissionDenied => Some("`ls -l` shows who may read and write there"),
        Kind::StorageFull | Kind::QuotaExceeded => {
            Some("free space there, or write elsewhere; a file that was there before is whole")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    fn config_error() -> ConfigError {
        ConfigError { origin: "c.yaml:3".into(), message: "no".into(), hint: Some("yes".into()) }
    }

    #[test]
    fn chains_join_once_and_hints_come_last() {
        let e = Err::<(), _>(config_error()).context("reading the plan").unwrap_err();
        assert_eq!(render(&e), "error: reading the plan: c.yaml:3: no\nhint: yes");
        assert_eq!(exit_code(&e), 2);
        let e = anyhow::anyhow!("disk full").context("writing x: disk full");
        assert_eq!(render(&e), "error: writing x: disk full");
        assert_eq!(exit_code(&e), 1);
    }

    #[test]
    fn each_complaint_has_its_own_line() {
        let list = anyhow::Error::new(ConfigErrors(vec![config_error(), config_error()]));
        let one = "error: c.yaml:3: no\nhint: yes";
        assert_eq!(render(&list.context("outer")), format!("{one}\n{one}"));
    }

    #[test]
    fn codes_follow_the_type_anywhere_in_the_chain() {
        for (error, code) in [
            (anyhow::Error::new(ConfigErrors(vec![config_error()])), 2),
            (anyhow::Error::new(UsageError::new("a", "b")), 2),
            (anyhow::Error::new(Interrupted { signal: 2 }), 130),
            (anyhow::Error::new(Interrupted { signal: 15 }), 143),
            (anyhow::anyhow!("x"), 1),
        ] {
            assert_eq!(exit_code(&error.context("outer")), code);
        }
    }

    #[test]
    fn a_refusal_of_the_system_has_a_remedy_unless_somebody_said_more() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let e = Err::<(), _>(full()).context("out.jsonl").unwrap_err();
        assert!(render(&e).contains("\nhint: free space"), "{}", render(&e));
        let e = Err::<(), _>(full()).context("out.jsonl\nhint: another").unwrap_err();
        assert!(render(&e).ends_with("\nhint: another"), "{}", render(&e));
    }
}

//! Owns: JSON posted to an endpoint - whom it may be, the key, rate limits, retries, bounds on answers.
//! Takes: an address, what the user allows, bodies of requests.
//! Gives: texts of answers, or why there is none.
//! Never: knows what is asked or answered, shows a key, or follows a redirect.

mod address;
mod client;
mod retry;

pub use address::Address;
pub use client::{Client, ClientOptions, Failure, Fault, Unread};
pub use retry::Schedule;

/// The key in the environment variable `variable`. Errors, in words: it is not set, or cannot be a key.
pub fn key_from_env(variable: &str) -> Result<String, String> {
    if variable.is_empty() || variable.contains(['=', '\0']) {
        return Err(format!("`{variable}` is no name of an environment variable"));
    }
    let value = std::env::var(variable).unwrap_or_default();
    match value.trim() {
        "" => Err(format!("the environment variable `{variable}` is not set")),
        key if !key.bytes().all(|b| b.is_ascii_graphic()) => {
            Err(format!("the environment variable `{variable}` holds characters that no key has"))
        }
        key => Ok(key.to_owned()),
    }
}

/// At most `chars` characters of `text` on one line.
pub fn shorten(text: &str, chars: usize) -> String {
    let mut out: String = text.chars().take(chars).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(chars).is_some() {
        out.push('…');
    }
    out
}

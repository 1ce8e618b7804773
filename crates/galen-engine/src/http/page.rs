//! `GET /`: a page that asks base and adapter the same and shows both answers.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

const PAGE: &str = include_str!("page.html");

/// The page's own script and style by their digests, requests to this server, and nothing else.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = |tag: &str| {
        let inner =
            PAGE.split_once(&format!("<{tag}>")).and_then(|(_, r)| r.split_once(&format!("</{tag}>")));
        format!("'sha256-{}'", base64(&Sha256::digest(inner.map_or("", |(inner, _)| inner))))
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        digest("script"),
        digest("style")
    )
});

pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Html(PAGE)).into_response()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().enumerate().fold(0u32, |all, (i, b)| all | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let code = (bits >> (18 - 6 * i)) as usize & 63;
            text.push(if i <= three.len() { ALPHABET[code] as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        assert!(!PAGE.contains("http:") && !PAGE.contains("https:") && !PAGE.contains("src="));
        assert!(!POLICY.contains("unsafe") && POLICY.matches("sha256-").count() == 2);
    }
}

//! A download that survives being cut: continued with `Range`, checked by size and sha256, published by rename.

use super::client::{Client, text};
use crate::disk::{CHUNK_BYTES, Partial};
use crate::error::{HubError, Result};
use std::io::Read;
use std::path::Path;

/// Failures in a row, without this much gained between them, after which a download is given up.
const MAX_FAILURES: u32 = 5;
const PROGRESS_BYTES: u64 = 1 << 20;
/// Largest file taken from a server that does not say its size.
const MAX_UNSIZED_BYTES: u64 = 64 << 20;

/// A file to download.
pub(crate) struct Blob<'a> {
    pub(crate) url: String,
    /// For messages: `ORG/REPO: FILE`.
    pub(crate) what: String,
    pub(crate) etag: &'a str,
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<&'a str>,
}

/// Downloads to `target`. What is left of a cut download stays beside it as `.incomplete`.
pub(crate) fn download(client: &Client<'_>, blob: &Blob<'_>, target: &Path) -> Result<()> {
    let progress = client.options.progress;
    let mut partial = Partial::open(target, blob.size)?;
    if partial.len() > 0 {
        progress.note(&format!("{}: going on after {} bytes", blob.what, partial.len()));
    }
    loop {
        progress.start(&blob.what, partial.len(), blob.size);
        let transferred = transfer(client, blob, &mut partial);
        progress.finish();
        transferred?;
        let actual = partial.sha256();
        match blob.sha256 {
            Some(expected) if !actual.eq_ignore_ascii_case(expected) => {
                if partial.continued() {
                    // What an earlier run left may be the wrong half: once more, from the start.
                    progress.note(&format!("{}: wrong checksum after going on, starting over", blob.what));
                    partial.restart()?;
                    continue;
                }
                partial.discard();
                let (what, expected) = (blob.what.clone(), expected.to_owned());
                return Err(HubError::Checksum { what, expected, actual });
            }
            _ => return partial.publish(target),
        }
    }
}

/// Requests until all bytes are there.
fn transfer(client: &Client<'_>, blob: &Blob<'_>, partial: &mut Partial) -> Result<()> {
    let mut failures = 0;
    while blob.size.is_none_or(|size| partial.len() < size) || blob.size == Some(0) {
        let before = partial.len();
        match request(client, blob, partial) {
            Ok(()) => return Ok(()),
            Err(e) if e.is_unreachable() => {
                let gained = partial.len().saturating_sub(before);
                failures = if gained >= PROGRESS_BYTES { 1 } else { failures + 1 };
                if failures >= MAX_FAILURES {
                    return Err(e);
                }
                client.options.progress.note(&format!("{} (trying again)", e.headline()));
                client.pause(failures);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// One request; `Ok` when the file is whole, an `Unreachable` error when it was cut.
fn request(client: &Client<'_>, blob: &Blob<'_>, partial: &mut Partial) -> Result<()> {
    let cut = |why: String| HubError::Unreachable { url: blob.what.clone(), why };
    let mut response = client.open(&blob.url, &blob.what, partial.len(), blob.etag)?;
    let headers = response.headers();
    let total = match response.status().as_u16() {
        206 => match text(headers, "content-range").and_then(content_range) {
            Some((start, total)) if start == partial.len() => total,
            _ => {
                partial.restart()?;
                return Err(cut("the server sent another range than asked for".into()));
            }
        },
        416 => {
            partial.restart()?;
            return Err(cut("the server refused to go on".into()));
        }
        _ => {
            let total = text(headers, "content-length").and_then(|l| l.parse().ok());
            if partial.len() > 0 {
                client.options.progress.note("the server starts from the beginning");
                partial.restart()?;
            }
            total
        }
    };
    if let (Some(expected), Some(actual)) = (blob.size, total)
        && expected != actual
    {
        return Err(HubError::Size { what: blob.what.clone(), expected, actual });
    }
    let size = blob.size.or(total);
    let limit = size.unwrap_or(MAX_UNSIZED_BYTES);
    let mut reader = response.body_mut().as_reader();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let n =
            reader.read(&mut buffer).map_err(|e| cut(format!("cut after {} bytes: {e}", partial.len())))?;
        if n == 0 {
            break;
        }
        let actual = partial.len() + n as u64;
        if actual > limit {
            partial.restart()?;
            return Err(HubError::Size { what: blob.what.clone(), expected: limit, actual });
        }
        partial.append(&buffer[..n])?;
        client.options.progress.advance(n as u64);
    }
    match size {
        Some(size) if partial.len() < size => {
            Err(cut(format!("cut after {} of {size} bytes", partial.len())))
        }
        _ => Ok(()),
    }
}

/// `bytes 5-9/10` is `(5, Some(10))`, `bytes 5-9/*` is `(5, None)`.
pub(super) fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn content_ranges_are_parsed() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes", "bytes 5-9", "items 5-9/10", "bytes x-9/10", "bytes 5-9/-1"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}

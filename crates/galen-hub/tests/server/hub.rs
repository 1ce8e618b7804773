//! Speaks the hub's HTTP for one repository: API listing, `resolve` with its headers, a second server as store.

use super::{Answer, Request, Server};
use sha2::{Digest, Sha256};
use std::sync::Arc;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// A file of the repository: small ones are served by the hub itself, large ones by the store.
#[derive(Clone)]
pub struct HubFile {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub large: bool,
}

pub fn small(name: &'static str, text: &str) -> HubFile {
    HubFile { name, bytes: text.into(), large: false }
}

pub fn large(name: &'static str, len: usize) -> HubFile {
    let bytes = (0..len).map(|i| (i * 31 + i / 251) as u8).collect();
    HubFile { name, bytes, large: true }
}

pub struct FakeHub {
    pub hub: Server,
    pub store: Server,
}

type Override = Box<dyn Fn(&Request, usize, &[u8]) -> Option<Answer> + Send + Sync>;

impl FakeHub {
    /// `store_says` may answer a request to the store (the number of earlier ones, and the file, are given) in the
    /// usual answer's place.
    pub fn start(files: Vec<HubFile>, store_says: Override) -> Self {
        let files = Arc::new(files);
        let (stored, hits) = (files.clone(), std::sync::atomic::AtomicUsize::new(0));
        let store = Server::start(move |request| {
            let n = hits.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let name = request.path.trim_start_matches("/store/").split('?').next().unwrap();
            let Some(file) = stored.iter().find(|f| f.name == name) else { return Answer::new(404, "") };
            store_says(request, n, &file.bytes).unwrap_or_else(|| Answer::bytes(request, &file.bytes))
        });
        let store_url = store.url.clone();
        let hub = Server::start(move |request| {
            if request.path.starts_with("/api/") {
                let names: Vec<_> = files.iter().map(|f| format!("{{\"rfilename\":{:?}}}", f.name)).collect();
                return Answer::new(
                    200,
                    format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[{}]}}", names.join(",")),
                );
            }
            let marker = format!("/resolve/{COMMIT}/");
            let name = request.path.split_once(&marker).map(|(_, name)| name);
            let Some(file) = files.iter().find(|f| Some(f.name) == name) else {
                return Answer::new(404, "").header("X-Error-Code", "EntryNotFound");
            };
            if file.large {
                Answer::new(302, "")
                    .header("X-Repo-Commit", COMMIT)
                    .header("X-Linked-Etag", format!("\"{}\"", sha256(&file.bytes)))
                    .header("X-Linked-Size", file.bytes.len())
                    .header("Location", format!("{store_url}/store/{}?Signature=secret", file.name))
            } else {
                let etag = format!("\"{}\"", &sha256(&file.bytes)[..40]);
                Answer::bytes(request, &file.bytes).header("X-Repo-Commit", COMMIT).header("ETag", etag)
            }
        });
        Self { hub, store }
    }

    pub fn plain(files: Vec<HubFile>) -> Self {
        Self::start(files, Box::new(|_, _, _| None))
    }
}

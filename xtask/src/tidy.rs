//! The house rules that no compiler holds. A rule is a function and a line in [`RULES`].

use std::fs;
use std::path::Path;
use std::process::Command;

/// A tracked text file.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|e| e == "rs")
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// `crates/galen-x/...` is of crate `galen-x`.
    fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }
}

struct Found {
    warning: bool,
    text: String,
}

fn problem(text: String) -> Found {
    Found { warning: false, text }
}

type Rule = fn(&[File]) -> Vec<Found>;

const RULES: &[(&str, Rule)] = &[
    ("imports", imports),
    ("header", headers),
    ("length", lengths),
    ("unsafe", no_unsafe),
    ("words", forbidden_words),
    ("goldens", goldens_have_scripts),
    ("lints", workspace_lints),
];

/// Which of our crates each may import (`[dependencies]`; tests may import anything).
const IMPORTS: &[(&str, &[&str])] = &[
    ("galen-types", &[]),
    ("galen-files", &[]),
    ("galen-hub", &["files"]),
    ("galen-endpoint", &[]),
    ("galen-data", &["types", "files"]),
    ("galen-ops", &["types"]),
    ("galen-model", &["ops", "types"]),
    ("galen-adapter", &["ops", "types", "files"]),
    ("galen-loss", &["types"]),
    ("galen-optim", &["types"]),
    ("galen-reward", &["types", "endpoint"]),
    (
        "galen-train",
        &["types", "files", "data", "ops", "model", "adapter", "loss", "optim", "reward", "eval"],
    ),
    ("galen-export", &["model", "adapter", "ops", "types", "files"]),
    ("galen-engine", &["model", "adapter", "endpoint", "types"]),
    ("galen-synth", &["data", "engine", "reward", "types"]),
    ("galen-eval", &["data", "files", "model", "adapter", "engine", "types"]),
    ("galen-testkit", &["types", "ops", "model", "hub"]),
    (
        "galen",
        &[
            "types", "files", "hub", "data", "ops", "model", "adapter", "loss", "optim", "reward", "train",
            "export", "engine", "endpoint", "synth", "eval",
        ],
    ),
];

/// Crates of others that belong in few places.
const ONLY_IN: &[(&str, &[&str])] =
    &[("anyhow", &["galen"]), ("mistralrs", &["galen-engine"]), ("ureq", &["galen-hub", "galen-endpoint"])];

const WARN_LINES: usize = 400;
const MAX_LINES: usize = 800;
/// A file over the limit says why, on a line that contains this.
const LONG_REASON: &str = "tidy: long because";

/// Words that must not be in a tracked file: paths of somebody's machine, hosts of package registries and their
/// mirrors (packages are named, never where they come from), leftovers.
const FORBIDDEN: &[(&str, &str)] = &[
    ("/work/", "a path of one machine"),
    ("/tmp/w/", "a path of one machine"),
    ("/root/", "a path of one machine"),
    ("/home/", "a path of one machine"),
    ("pypi.org", "a registry's host: name the package"),
    ("pythonhosted.org", "a registry's host: name the package"),
    ("index.crates.io", "a registry's host: name the package"),
    ("static.crates.io", "a registry's host: name the package"),
    ("artifactory", "a mirror: name the package"),
    ("todo!(", "unfinished"),
    ("unimplemented!(", "unfinished"),
    ("dbg!(", "a leftover"),
];
/// This table and its tests, and what cargo writes.
const MAY_HAVE_THEM: &[&str] = &["xtask/src/tidy.rs", "xtask/src/tidy_tests.rs", "Cargo.lock"];
/// The hub's host stands in one source file.
const HUB_HOST: (&str, &str) = ("huggingface.co", "crates/galen-hub/src/options.rs");

/// Prints what is out of order; an error when some of it is more than a warning.
pub fn run() -> Result<(), String> {
    let files = read(&crate::root())?;
    let mut failures = 0;
    for (name, rule) in RULES {
        for found in rule(&files) {
            failures += usize::from(!found.warning);
            println!("{}: {name}: {}", if found.warning { "warning" } else { "error" }, found.text);
        }
    }
    if failures > 0 {
        return Err(format!("tidy: {failures} to mend in {} files", files.len()));
    }
    println!("tidy: {} files in order", files.len());
    Ok(())
}

/// Text files that are tracked or would be: git's list, so that what is ignored does not count. Without a
/// repository (an unpacked archive) everything but build outputs.
fn read(root: &Path) -> Result<Vec<File>, String> {
    let mut names = Vec::new();
    if root.join(".git").exists() {
        let git = Command::new("git")
            .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .map_err(|e| format!("git: {e}"))?;
        if !git.status.success() {
            return Err(format!("git ls-files: {}", String::from_utf8_lossy(&git.stderr).trim()));
        }
        let listed = String::from_utf8_lossy(&git.stdout);
        names.extend(listed.split('\0').filter(|n| !n.is_empty()).map(str::to_owned));
    } else {
        walk(root, "", &mut names).map_err(|e| format!("{}: {e}", root.display()))?;
    }
    let files = names.into_iter().filter_map(|path| {
        // A tracked file may be gone from the disk; one that is not UTF-8 is data.
        let text = String::from_utf8(fs::read(root.join(&path)).ok()?).unwrap_or_default();
        Some(File { path, text })
    });
    Ok(files.collect())
}

fn walk(root: &Path, folder: &str, names: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = format!("{folder}{}", entry.file_name().to_string_lossy());
        if !entry.file_type()?.is_dir() {
            names.push(name);
        } else if name != "target" && name != "runs" {
            walk(root, &format!("{name}/"), names)?;
        }
    }
    Ok(())
}

/// Names in `[dependencies]` and `[build-dependencies]`, also of one target.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
        } else if inside && !line.starts_with('#') {
            let end = line.find(['=', '.', ' ']).unwrap_or(line.len());
            names.extend(Some(&line[..end]).filter(|n| !n.is_empty()));
        }
    }
    names
}

fn imports(files: &[File]) -> Vec<Found> {
    let mut found = Vec::new();
    for file in files.iter().filter(|f| f.name() == "Cargo.toml") {
        let Some(name) = file.crate_name() else { continue };
        let Some((_, allowed)) = IMPORTS.iter().find(|(n, _)| *n == name) else {
            found.push(problem(format!("{}: `{name}` is not in the table of imports", file.path)));
            continue;
        };
        for dependency in dependencies(&file.text) {
            let ours = dependency.strip_prefix("galen-");
            if ours.is_some_and(|short| !allowed.contains(&short)) {
                found.push(problem(format!("{}: `{name}` may not import `{dependency}`", file.path)));
            }
            for (crate_name, places) in ONLY_IN {
                if dependency.starts_with(crate_name) && !places.contains(&name) {
                    let places = places.join("`, `");
                    found.push(problem(format!("{}: only `{places}` imports `{dependency}`", file.path)));
                }
            }
        }
    }
    found
}

fn headers(files: &[File]) -> Vec<Found> {
    let roots = files.iter().filter(|f| f.path.starts_with("crates/") && f.path.ends_with("/src/lib.rs"));
    let missing = |f: &&File| {
        let mut labels = ["Owns:", "Takes:", "Gives:", "Never:"].into_iter().peekable();
        for line in f.text.lines().map_while(|l| l.strip_prefix("//! ")) {
            if labels.peek().is_some_and(|l| line.starts_with(l)) {
                labels.next();
            }
        }
        labels.peek().is_some() || !f.text.starts_with("//! Owns:")
    };
    roots.filter(missing).map(|f| problem(format!("{}: opens with Owns/Takes/Gives/Never", f.path))).collect()
}

fn lengths(files: &[File]) -> Vec<Found> {
    let code =
        |f: &&File| [".rs", ".py", ".cu", ".cuh", ".cpp", ".h", ".sh"].iter().any(|e| f.path.ends_with(e));
    let long = files.iter().filter(code).filter_map(|f| {
        let lines = f.text.lines().count();
        let excused = f.text.contains(LONG_REASON);
        let text =
            format!("{}: {lines} lines (aim at 200, question {WARN_LINES}, refuse {MAX_LINES})", f.path);
        (lines > WARN_LINES).then_some(Found { warning: lines <= MAX_LINES || excused, text })
    });
    long.collect()
}

fn no_unsafe(files: &[File]) -> Vec<Found> {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    let is_unsafe = |line: &str| {
        let line = code(line);
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "(unsafe_code"]
            .iter()
            .any(|w| line.contains(w))
    };
    let mut found = Vec::new();
    // `kernels` calls the C++ runtime that stands in for a GPU.
    let may = |f: &File| f.crate_name() == Some("galen-ops") || f.path.starts_with("kernels/");
    let elsewhere = files.iter().filter(|f| f.is_rust() && !may(f));
    for file in elsewhere.filter(|f| !MAY_HAVE_THEM.contains(&f.path.as_str())) {
        for (i, _) in file.text.lines().enumerate().filter(|(_, l)| is_unsafe(l)) {
            found.push(problem(format!(
                "{}:{}: `unsafe` belongs in galen-ops and kernels",
                file.path,
                i + 1
            )));
        }
    }
    found
}

fn forbidden_words(files: &[File]) -> Vec<Found> {
    let mut found = Vec::new();
    for file in files.iter().filter(|f| !MAY_HAVE_THEM.contains(&f.path.as_str())) {
        for (i, line) in file.text.lines().enumerate() {
            for (word, why) in FORBIDDEN.iter().filter(|(word, _)| line.contains(word)) {
                found.push(problem(format!("{}:{}: `{word}`: {why}", file.path, i + 1)));
            }
            if file.is_rust() && line.contains(HUB_HOST.0) && file.path != HUB_HOST.1 {
                found.push(problem(format!(
                    "{}:{}: the hub's host stands in {} alone",
                    file.path,
                    i + 1,
                    HUB_HOST.1
                )));
            }
        }
    }
    found
}

/// Every file below a `goldens` folder is made by a script there: one that names the file, its stem, or the
/// folder it stands in.
fn goldens_have_scripts(files: &[File]) -> Vec<Found> {
    let is_script = |f: &&File| [".py", ".sh"].iter().any(|e| f.path.ends_with(e));
    let mut found = Vec::new();
    for file in files.iter().filter(|f| f.path.contains("/goldens/") && !is_script(f)) {
        let Some((house, inside)) = file.path.split_once("/goldens/") else { continue };
        if file.name() == "README.md" {
            continue;
        }
        let stem = file.name().split('.').next().unwrap_or_default();
        let folders = inside.split('/').rev().skip(1);
        let names: Vec<_> = folders.chain([file.name(), stem]).collect();
        let mut scripts =
            files.iter().filter(is_script).filter(|s| s.path.starts_with(&format!("{house}/goldens/")));
        if !scripts.any(|s| names.iter().any(|n| s.text.contains(n) || s.name().split('.').next() == Some(n)))
        {
            found.push(problem(format!("{}: no script beside it makes it", file.path)));
        }
    }
    found
}

fn workspace_lints(files: &[File]) -> Vec<Found> {
    let members = files.iter().filter(|f| f.name() == "Cargo.toml" && f.path.contains('/'));
    let bare = members.filter(|f| !f.text.contains("[lints]\nworkspace = true"));
    bare.map(|f| problem(format!("{}: `[lints] workspace = true` is missing", f.path))).collect()
}

#[cfg(test)]
#[path = "tidy_tests.rs"]
mod tests;

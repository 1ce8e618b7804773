//! NVIDIA's compiler from pip packages, pinned by version and hash (`kernels/toolkit.txt`), in the user's cache. It
//! needs neither a GPU nor a driver nor root.

use super::{cache, digest, kernels};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An installed compiler.
pub struct Toolkit {
    /// What CUDA_HOME is.
    pub home: PathBuf,
    /// Tells this version from others.
    pub version: String,
}

/// Name, size and hash of every program of it, written last.
const CONTENTS: &str = "galen-contents.txt";

impl Toolkit {
    /// A program of it.
    pub fn program(&self, name: &str) -> Command {
        Command::new(self.home.join("bin").join(name))
    }

    /// Installs it unless it is there, whole and unchanged.
    pub fn ensure() -> Result<Self, String> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err("the pip toolkit is pinned for Linux on x86-64 alone\n\
                        hint: install NVIDIA's CUDA 13.0 and set CUDA_HOME"
                .to_owned());
        }
        let list = kernels().join("toolkit.txt");
        let text = fs::read(&list).map_err(|e| format!("{}: {e}", list.display()))?;
        let version = digest(&text)[..16].to_owned();
        let place = cache()?.join(format!("cuda-toolkit-{version}"));
        let home = place.join("nvidia/cu13");
        match verify(&home) {
            Ok(()) => return Ok(Self { home, version }),
            Err(why) if place.exists() => eprintln!("cuda-toolkit: installing anew: {why}"),
            Err(_) => {}
        }
        install(&place, &list)?;
        verify(&home)?;
        Ok(Self { home, version })
    }
}

fn install(place: &Path, list: &Path) -> Result<(), String> {
    let parent = place.parent().ok_or("the cache has no folder")?;
    fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
    let new = parent.join(format!(".cuda-toolkit-{}", std::process::id()));
    let _ = fs::remove_dir_all(&new);
    eprintln!("cuda-toolkit: installing NVIDIA's compiler (about 150 MB) into {}", place.display());
    // A virtual environment for its pip: the system's may refuse to install, even elsewhere.
    let environment = new.join("environment");
    let python = environment.join("bin/python");
    let hint = "hint: python3 with its venv module is needed (Debian: python3-venv)";
    let run = |command: &mut Command| {
        let shown = format!("{command:?}");
        let out = command.output().map_err(|e| format!("{shown}: {e}\n{hint}"))?;
        let error = String::from_utf8_lossy(&out.stderr);
        if out.status.success() { Ok(()) } else { Err(format!("{shown}: {}\n{hint}", error.trim())) }
    };
    let made = run(Command::new("python3").args(["-m", "venv"]).arg(&environment)).and_then(|()| {
        let pip =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"];
        let flags = ["--only-binary", ":all:", "--require-hashes", "--target"];
        run(Command::new(&python).args(pip).args(flags).arg(new.join("target")).arg("-r").arg(list))
    });
    let done = made.and_then(|()| {
        let home = new.join("target/nvidia/cu13");
        complete(&home).map_err(|e| format!("{}: {e}", home.display()))?;
        let _ = fs::remove_dir_all(place);
        fs::rename(new.join("target"), place).map_err(|e| format!("{}: {e}", place.display()))
    });
    let _ = fs::remove_dir_all(&new);
    done
}

/// Names that linkers look for, and the list of contents.
fn complete(home: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let _ = fs::remove_file(home.join("lib64"));
        std::os::unix::fs::symlink("lib", home.join("lib64"))?;
        let _ = fs::remove_file(home.join("lib/libcudart.so"));
        std::os::unix::fs::symlink("libcudart.so.13", home.join("lib/libcudart.so"))?;
    }
    let mut list = String::new();
    for path in programs(home)? {
        let bytes = fs::read(&path)?;
        let name = path.strip_prefix(home).unwrap_or(&path).display();
        let _ = writeln!(list, "{} {} {name}", digest(&bytes), bytes.len());
    }
    fs::write(home.join(CONTENTS), list)
}

fn programs(home: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["bin", "nvvm/bin", "nvvm/libdevice"] {
        for entry in fs::read_dir(home.join(folder))? {
            let path = entry?.path();
            if path.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether every program listed is there and the same.
fn verify(home: &Path) -> Result<(), String> {
    let list = home.join(CONTENTS);
    let text = fs::read_to_string(&list).map_err(|e| format!("{}: {e}", list.display()))?;
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(hash), Some(size), Some(name)) = (words.next(), words.next(), words.next()) else {
            return Err(format!("{}: `{line}` is cut short", list.display()));
        };
        let path = home.join(name);
        let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        if bytes.len().to_string() != size || digest(&bytes) != hash {
            return Err(format!("{} has changed", path.display()));
        }
    }
    if text.contains("bin/nvcc\n") { Ok(()) } else { Err(format!("{} names no nvcc", list.display())) }
}

//! The machine-readable lines of the kernels' headers: what a launch needs, what the compiled code may use and must
//! contain. Also compiled into `xtask`.
//!
//! ```text
//! // launch: NAMES threads=N shared=BYTES registers=N [spills="why"]
//! // sass: NAMES PIECE ...          (instructions, `*` for any letters)
//! // roofline: NAMES what="shape" flops=N bytes=N share=PERCENT share_sm_90=PERCENT
//! ```
//!
//! NAMES is a kernel's name with `*` for any letters; the first line of a kind that fits a kernel counts.

use std::fs;
use std::path::Path;

/// How a kernel is launched and what its code may use.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchLine {
    /// Names it is for.
    pub names: String,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
    /// Most registers of a thread.
    pub registers: u32,
    /// Why it may spill registers.
    pub spills: Option<String>,
}

/// Pieces of instructions that a kernel's compiled code must contain.
#[derive(Debug, Clone, PartialEq)]
pub struct SassLine {
    /// Names it is for.
    pub names: String,
    /// Patterns of instructions.
    pub pieces: Vec<String>,
}

/// A shape's work, for the table of predicted times.
#[derive(Debug, Clone, PartialEq)]
pub struct RooflineLine {
    /// The kernel.
    pub names: String,
    /// The shape, in words.
    pub what: String,
    /// Floating-point operations of the tensor cores.
    pub flops: f64,
    /// Bytes of memory.
    pub bytes: f64,
    /// Expected per cent of the roofline, on sm_80.
    pub share: f64,
    /// The same on sm_90.
    pub share_sm_90: f64,
}

/// The lines of one file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// `launch:` lines.
    pub launches: Vec<LaunchLine>,
    /// `sass:` lines.
    pub sass: Vec<SassLine>,
    /// `roofline:` lines.
    pub rooflines: Vec<RooflineLine>,
}

/// Whether `name` is of the form `pattern`, where `*` stands for any letters.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len()).any(|i| tail.is_char_boundary(i) && matches(rest, &tail[i..]))
        }),
    }
}

impl Manifest {
    /// The lines of all `.cu` files of a folder.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))? {
            let path = entry.map_err(|e| format!("{}: {e}", folder.display()))?.path();
            paths.extend(Some(path).filter(|p| p.extension().is_some_and(|e| e == "cu")));
        }
        paths.sort();
        let mut all = Self::default();
        for path in paths {
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            all.add(&text).map_err(|(line, why)| format!("{}:{line}: {why}", path.display()))?;
        }
        Ok(all)
    }

    /// Adds a file's lines. Errors: its line number and what is wrong.
    pub fn add(&mut self, text: &str) -> Result<(), (usize, String)> {
        for (i, line) in text.lines().enumerate() {
            let add = |kind: &str| line.strip_prefix("// ").and_then(|l| l.strip_prefix(kind));
            let at = |why: String| (i + 1, why);
            if let Some(rest) = add("launch: ") {
                let (names, fields) = fields(rest).map_err(at)?;
                let number = |key| number(&fields, key).map_err(at);
                self.launches.push(LaunchLine {
                    names,
                    threads: number("threads")? as u32,
                    shared: number("shared")? as usize,
                    registers: number("registers")? as u32,
                    spills: fields.iter().find(|(k, _)| k == "spills").map(|(_, v)| v.clone()),
                });
            } else if let Some(rest) = add("sass: ") {
                let mut words = rest.split_whitespace().map(str::to_owned);
                let names = words.next().ok_or_else(|| at("no names".to_owned()))?;
                self.sass.push(SassLine { names, pieces: words.collect() });
            } else if let Some(rest) = add("roofline: ") {
                let (names, fields) = fields(rest).map_err(at)?;
                let number = |key| number(&fields, key).map_err(at);
                let what = fields.iter().find(|(k, _)| k == "what").map(|(_, v)| v.clone());
                let what = what.ok_or_else(|| at("`what` is missing".to_owned()))?;
                let (flops, bytes) = (number("flops")?, number("bytes")?);
                let (share, share_sm_90) = (number("share")?, number("share_sm_90")?);
                self.rooflines.push(RooflineLine { names, what, flops, bytes, share, share_sm_90 });
            }
        }
        Ok(())
    }

    /// How a kernel is launched.
    pub fn launch(&self, kernel: &str) -> Option<&LaunchLine> {
        self.launches.iter().find(|l| matches(&l.names, kernel))
    }
}

type Fields = Vec<(String, String)>;

/// Names, then `key=value` or `key="value with spaces"`.
fn fields(text: &str) -> Result<(String, Fields), String> {
    let (names, mut rest) = text.trim().split_once(' ').ok_or("no fields")?;
    let mut found = Vec::new();
    while !rest.trim_start().is_empty() {
        let (key, value) = rest.trim_start().split_once('=').ok_or_else(|| format!("`{rest}` has no `=`"))?;
        let (value, later) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or("a quote does not end")?,
            None => value.split_once(' ').unwrap_or((value, "")),
        };
        found.push((key.to_owned(), value.to_owned()));
        rest = later;
    }
    Ok((names.to_owned(), found))
}

fn number(fields: &Fields, key: &str) -> Result<f64, String> {
    let (_, value) = fields.iter().find(|(k, _)| k == key).ok_or_else(|| format!("`{key}` is missing"))?;
    value.parse().map_err(|_| format!("`{key}={value}` is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_and_says_what_is_wrong() {
        let mut m = Manifest::default();
        let text = "// A kernel.\n// launch: a_*_x threads=128 shared=64 registers=40 spills=\"two of them\"\n\
                    // sass: a_* HMMA LDG.*128\n// roofline: a_b what=\"m 1\" flops=1e9 bytes=2.5e6 share=80 share_sm_90=50\n";
        m.add(text).unwrap();
        assert_eq!(m.launch("a_b_x").unwrap().spills.as_deref(), Some("two of them"));
        assert_eq!((m.launch("a_b_y"), m.sass[0].pieces.len()), (None, 2));
        assert_eq!((m.rooflines[0].flops, m.rooflines[0].share), (1e9, 80.0));
        let (line, why) = m.add("\n// launch: k threads=x shared=1 registers=1").unwrap_err();
        assert!(line == 2 && why.contains("threads=x"));
    }
}

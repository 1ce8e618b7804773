//! A deterministic byte mutator: the same seed and corpus give the same inputs everywhere.

use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Values that break careless arithmetic, written little-endian in 1, 2, 4 or 8 bytes.
const EXTREMES: &[u64] = &[
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffe0,
    0xffff_ffff_ffff_ffff,
];

/// Text that means something to the parsers: JSON first, then YAML, templates, XML, CSV.
const FRAGMENTS: &[&str] = &[
    "null",
    "true",
    "-1",
    "1e999",
    "99999999999999999999",
    "[",
    "{",
    "}",
    "\"",
    "\\u0000",
    "[[[[[[[[",
    "0.0",
    "{}",
    "[]",
    "\n",
    "\r\n",
    ": ",
    "- ",
    "&a ",
    "*a",
    "<<: ",
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "</",
    "&#x110000;",
    ",\"",
    "\u{feff}",
    "é\u{2028}",
];

/// Counter-based random numbers (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n` (0 for `n` = 0).
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.bits() % n as u64) as usize }
    }
}

/// Changes `bytes` in one to four places: bits, bytes, numbers, cuts, copies, and pieces of `other`.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.bits() as u8,
            2 | 3 => {
                let extreme = EXTREMES[random.below(EXTREMES.len())].to_le_bytes();
                let width = 1 << random.below(4);
                for (b, e) in bytes[at..].iter_mut().zip(&extreme[..width]) {
                    *b = *e;
                }
            }
            4 => bytes.truncate(at),
            5 => {
                let to = at + random.below((bytes.len() - at).min(64));
                let piece = bytes[at..to].to_vec();
                let place = random.below(bytes.len());
                bytes.splice(place..place, piece);
            }
            6 => {
                let from = random.below(other.len());
                let to = from + random.below((other.len() - from).min(64));
                let end = (at + random.below(16)).min(bytes.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            _ => {
                let fragment = FRAGMENTS[random.below(FRAGMENTS.len())];
                let end = (at + random.below(8)).min(bytes.len());
                bytes.splice(at..end, fragment.bytes());
            }
        }
    }
}

/// The committed inputs of the parser called so, in order of their names: `tests/fuzz/NAME`.
pub fn corpus(parser: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz").join(parser);
    let fail = |e: std::io::Error| -> ! { panic!("{}: {e}", folder.display()) };
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| fail(e));
    let mut files: Vec<_> = entries.map(|e| e.unwrap_or_else(|e| fail(e)).path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|f| std::fs::read(f).unwrap_or_else(|e| fail(e))).collect()
}

/// An empty folder for inputs that are parsed as files, in memory where the system has such a place: a disk would take
/// most of the time.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir())
    } else {
        tempfile::tempdir()
    };
    made.unwrap_or_else(|e| panic!("a temporary folder: {e}"))
}

/// Panics of other people's crates are no longer printed; for parsers that catch them and make errors of them.
pub fn hush_dependencies() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|l| l.file().contains("/registry/src/")) {
            tell(info);
        }
    }));
}

/// Gives mutated corpus entries to `parse` until `GALEN_FUZZ_INPUTS` inputs or `GALEN_FUZZ_SECONDS` seconds (default
/// 2) are done, whichever comes first where both are set; first every entry and every prefix of the shortest. A panic in `parse` fails the test, naming seed
/// and input. Gives the number of inputs.
pub fn run(name: &str, corpus: &[Vec<u8>], mut parse: impl FnMut(&[u8])) -> u64 {
    let number = |key: &str| std::env::var(key).ok().and_then(|v| v.parse::<u64>().ok());
    let inputs = number("GALEN_FUZZ_INPUTS");
    let seconds = number("GALEN_FUZZ_SECONDS");
    let limit = seconds.or(inputs.is_none().then_some(2)).map(Duration::from_secs);
    let start = Instant::now();
    let mut count = 0;
    let mut one = |seed: u64, bytes: &[u8]| {
        let guard = Announce { name, seed, bytes };
        parse(bytes);
        std::mem::forget(guard);
    };
    for entry in corpus {
        one(count, entry);
        count += 1;
    }
    if let Some(shortest) = corpus.iter().min_by_key(|c| c.len()) {
        for end in 0..shortest.len() {
            one(count, &shortest[..end]);
            count += 1;
        }
    }
    while inputs.is_none_or(|n| count < n) && limit.is_none_or(|limit| start.elapsed() < limit) {
        let mut random = Random::new(count);
        let mut bytes = corpus[random.below(corpus.len())].clone();
        let other = &corpus[random.below(corpus.len())];
        mutate(&mut random, &mut bytes, other);
        one(count, &bytes);
        count += 1;
    }
    count
}

/// Prints the input when it is dropped by a panic.
struct Announce<'a> {
    name: &'a str,
    seed: u64,
    bytes: &'a [u8],
}

impl Drop for Announce<'_> {
    fn drop(&mut self) {
        eprintln!(
            "fuzz target `{}`, seed {}, {} bytes: {:?}",
            self.name,
            self.seed,
            self.bytes.len(),
            self.bytes
        );
    }
}

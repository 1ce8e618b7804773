//! `cuda-check`: every kernel compiled for every target, and what the compiler made of it held against its header.

use super::compile::{Compiled, Usage, compile_all, usages};
use super::manifest::{LaunchLine, Manifest, matches};
use super::occupancy::{CARDS, MOST_SHARED};
use super::{Toolkit, kernels, roofline, sass};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Compiles and checks; with `write`, writes the table of predicted times, else compares it.
pub fn run(write: bool) -> Result<(), String> {
    let toolkit = Toolkit::ensure()?;
    let manifest = Manifest::read(&kernels())?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let compiled = compile_all(&toolkit, jobs)?;
    let mut wrong = Vec::new();
    let mut worst: BTreeMap<&str, (&LaunchLine, u32, usize)> = BTreeMap::new();
    let mut kernels_seen = BTreeSet::new();
    for c in compiled.iter().filter(|c| c.path.extension().is_some_and(|e| e == "cubin")) {
        let pieces = sass::mnemonics(&toolkit, &c.path)?;
        let found = usages(&c.log);
        if found.is_empty() {
            wrong.push(format!("{} for {}: the compiler names no kernel", c.unit, c.target));
        }
        for usage in found {
            let Some(line) = manifest.launch(&usage.kernel) else {
                wrong.push(format!("{}.cu: `{}` has no `launch:` line", c.unit, usage.kernel));
                continue;
            };
            wrong.extend(over_budget(c, &usage, line));
            let entry = worst.entry(&line.names).or_insert((line, 0, 0));
            (entry.1, entry.2) = (entry.1.max(usage.registers), entry.2 + 1);
            let has = pieces.get(&usage.kernel).cloned().unwrap_or_default();
            let lines = manifest.sass.iter().filter(|l| matches(&l.names, &usage.kernel));
            for piece in lines.flat_map(|l| &l.pieces) {
                let pattern = format!("{piece}*");
                if !has.iter().any(|m| matches(&pattern, m)) {
                    let (kernel, target) = (&usage.kernel, c.target);
                    wrong.push(format!("{}.cu: `{kernel}` for {target} has no `{piece}`", c.unit));
                }
            }
            kernels_seen.insert(usage.kernel);
        }
    }
    let names = manifest.launches.iter().map(|l| &l.names).chain(manifest.sass.iter().map(|l| &l.names));
    for names in names.chain(manifest.rooflines.iter().map(|l| &l.names)) {
        if !kernels_seen.iter().any(|k| matches(names, k)) {
            wrong.push(format!("a header's line is for `{names}`, which no kernel is called"));
        }
    }
    occupancy_table(&worst);
    let page = roofline::page(&manifest);
    let path = kernels().join("ROOFLINE.md");
    if write {
        fs::write(&path, &page).map_err(|e| format!("{}: {e}", path.display()))?;
    } else if fs::read_to_string(&path).unwrap_or_default() != page {
        wrong.push("kernels/ROOFLINE.md is not what the headers say: run `cuda-check --write`".to_owned());
    }
    if wrong.is_empty() {
        println!("cuda-check: {} kernels, {} files compiled, in order", kernels_seen.len(), compiled.len());
        return Ok(());
    }
    Err(format!("{}\ncuda-check: {} to mend", wrong.join("\n"), wrong.len()))
}

fn over_budget(c: &Compiled, usage: &Usage, line: &LaunchLine) -> Vec<String> {
    let at = format!("{}.cu: `{}` for {}", c.unit, usage.kernel, c.target);
    let mut wrong = Vec::new();
    if usage.registers > line.registers {
        wrong.push(format!("{at}: {} registers, {} in its header", usage.registers, line.registers));
    }
    if usage.spill_stores + usage.spill_loads > 0 && line.spills.is_none() {
        wrong.push(format!(
            "{at}: spills {} and {} bytes; its header gives no reason",
            usage.spill_stores, usage.spill_loads
        ));
    }
    let shared = usage.shared + line.shared;
    if shared > MOST_SHARED {
        wrong.push(format!("{at}: {shared} bytes of shared memory, {MOST_SHARED} on 8.6 and 8.9"));
    }
    if usage.shared > 0 {
        wrong.push(format!("{at}: {} bytes of shared memory beside the launch's", usage.shared));
    }
    wrong
}

/// A line of the table for each `launch:` line, by the most registers of its kernels.
fn occupancy_table(worst: &BTreeMap<&str, (&LaunchLine, u32, usize)>) {
    let cards: String = CARDS.iter().map(|c| format!("{:>16}", c.name)).collect();
    println!(
        "{:<30} {:>8} {:>7} {:>9} {:>7}{cards}   blocks (warps %)",
        "kernels", "compiled", "threads", "registers", "shared"
    );
    for (names, (line, registers, n)) in worst {
        let cells: String = CARDS
            .iter()
            .map(|c| {
                let blocks = c.blocks(line.threads, *registers, line.shared);
                let occupancy = c.occupancy(line.threads, *registers, line.shared);
                format!("{:>16}", format!("{blocks} ({occupancy})"))
            })
            .collect();
        println!("{names:<30} {n:>8} {:>7} {registers:>9} {:>7}{cells}", line.threads, line.shared);
    }
}

//! What instructions a kernel came to.

use super::Toolkit;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The mnemonics of each kernel of a cubin.
pub fn mnemonics(toolkit: &Toolkit, cubin: &Path) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let out =
        toolkit.program("nvdisasm").arg("-c").arg(cubin).output().map_err(|e| format!("nvdisasm: {e}"))?;
    if !out.status.success() {
        return Err(format!("nvdisasm {}: {}", cubin.display(), String::from_utf8_lossy(&out.stderr).trim()));
    }
    Ok(read(&String::from_utf8_lossy(&out.stdout)))
}

fn read(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut kernel = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix(".text.").and_then(|l| l.strip_suffix(':')) {
            name.clone_into(&mut kernel);
            found.entry(kernel.clone()).or_default();
        } else if let Some((_, instruction)) = line.trim_start().split_once("*/") {
            if !line.trim_start().starts_with("/*") {
                continue;
            }
            // `@P0` or `@!UP1` in front is a condition.
            let word = instruction.split_whitespace().find(|w| !w.starts_with('@'));
            if let (Some(word), Some(all)) = (word, found.get_mut(&kernel)) {
                all.insert(word.trim_end_matches(';').to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read() {
        let text = "\t.section\t.text.k,\"ax\"\n.text.k:\n        /*0000*/                   IMAD.MOV.U32 R1, RZ ;\n\
                    \u{20}       /*0220*/               @!P0 LDG.E.128 R13, [R2.64] ;\n.L_x_1:\n\
                    \u{20}       /*0230*/                   EXIT ;\n";
        let found = read(text);
        let names: Vec<_> = found["k"].iter().map(String::as_str).collect();
        assert_eq!(names, ["EXIT", "IMAD.MOV.U32", "LDG.E.128"]);
    }
}

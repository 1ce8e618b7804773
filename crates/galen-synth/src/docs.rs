//! The reference half of `docs/synth.md`, from the registries.

use crate::config::{COMMON, TOP_KEYS};
use crate::engines::EngineKind;
use crate::outputs::{self, OUTPUTS};
use crate::registry::STEPS;
use crate::seeds;
use galen_reward::{Absent, Param};
use std::fmt::Write as _;

/// Everything that a configuration can say.
pub fn page(engines: &[&EngineKind]) -> String {
    let mut out = String::from("## Keys\n");
    table(&mut out, TOP_KEYS.iter());
    out.push_str("\n### Entries of `seeds`\n");
    table(&mut out, seeds::PARAMS.iter());
    out.push_str("\n## Engines\n");
    for kind in engines {
        let _ = write!(out, "\n### {}\n\n{}\n", kind.name, kind.doc.trim());
        table(&mut out, kind.params.iter().copied().flatten());
    }
    out.push_str("\n## Steps\n\nEvery step may have:\n");
    table(&mut out, COMMON.iter());
    out.push_str("\n| step | |\n|---|---|\n");
    for entry in STEPS {
        let _ = writeln!(out, "| [`{0}`](#{0}) | {1} |", entry.name, cell(entry.about));
    }
    for entry in STEPS {
        let _ = write!(out, "\n### {}\n\n{}\n", entry.name, entry.doc.trim());
        table(&mut out, entry.params());
    }
    out.push_str("\n## Outputs\n\nEvery output has:\n");
    table(&mut out, outputs::COMMON.iter());
    out.push_str("\n| output | texts | |\n|---|---|---|\n");
    for kind in OUTPUTS {
        let texts: Vec<String> = kind
            .texts
            .iter()
            .map(|p| match p.absent {
                Absent::Required => format!("`{}`", p.name),
                _ => format!("`{}` (optional)", p.name),
            })
            .collect();
        let _ = writeln!(out, "| `{}` | {} | {} |", kind.name, texts.join(", "), cell(kind.about));
    }
    out
}

fn table<'p>(out: &mut String, params: impl Iterator<Item = &'p Param>) {
    out.push_str("\n| parameter | type | default | |\n|---|---|---|---|\n");
    for Param { name, kind, absent, about } in params {
        let default = match absent {
            Absent::Required => "required".to_owned(),
            Absent::Unset => String::new(),
            Absent::Json(text) => format!("`{text}`"),
        };
        let _ = writeln!(out, "| `{name}` | {} | {default} | {} |", cell(&kind.words()), cell(about));
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

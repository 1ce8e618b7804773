//! `docs/rewards.md`, from the registry.

use crate::options::{Absent, Param};
use crate::registry::REWARDS;
use std::fmt::Write as _;

/// Of a filled line.
const COLUMNS: usize = 110;

const INTRO: &str = "# Rewards

A reward judges each sampled completion with one number, or says that it does not apply to it. `reward_funcs` lists them, by name
or with parameters, and `reward_weights` weighs them (1 each where it is left out):

```yaml
reward_funcs:
  - choice
  - {name: regex, label: reasoned, pattern: '(?s)<think>.+</think>'}
  - command: {command: python3 judge.py, timeout_s: 120}
reward_weights: [1, 0.2, 1]
```

The sum over the functions that apply to a completion is its reward; a completion to which none applies has none, and counts in no
mean. The log has TRL's `rewards/NAME/mean` and `rewards/NAME/std` for each, `reward` and `reward_std` for the sum. NAME is the
entry's `label`, without one its name. A value that is not finite stops the run, as does a row without the right answer it is to
be compared with, unless the entry says `missing: skip`.

`{name: reward_model, path: RUN}` is a reward model: the directory of a run with `rl: reward` on the policy's own base
(`docs/align.md`).

What comes from TRL has TRL's parameters; a configuration that names one of its functions is told the reward that does the same.

Written by `cargo run -p galen-reward --example rewards > docs/rewards.md`; a test holds it up to date.
";

/// The page: every reward, its summary and parameters.
pub fn page() -> String {
    let mut out = wrapped(INTRO);
    out.push_str("\n| reward | |\n|---|---|\n");
    for entry in REWARDS {
        let _ = writeln!(out, "| [`{0}`](#{0}) | {1} |", entry.name, cell(entry.about));
    }
    for entry in REWARDS {
        let _ = write!(out, "\n## {}\n\n{}", entry.name, wrapped(entry.doc));
        out.push_str("\n| parameter | type | default | |\n|---|---|---|---|\n");
        for Param { name, kind, absent, about } in entry.params() {
            let default = match absent {
                Absent::Required => "required".to_owned(),
                Absent::Unset => String::new(),
                Absent::Json(text) => format!("`{text}`"),
            };
            let _ = writeln!(out, "| `{name}` | {} | {default} | {} |", cell(&kind.words()), cell(about));
        }
    }
    out
}

/// Paragraphs filled to [`COLUMNS`]; code as it is.
fn wrapped(text: &str) -> String {
    let fill = |paragraph: &str| {
        let mut out = String::new();
        let mut column = 0;
        for word in paragraph.split_whitespace() {
            let width = word.chars().count();
            if column > 0 && column + 1 + width > COLUMNS {
                out.push('\n');
                column = 0;
            } else if column > 0 {
                out.push(' ');
                column += 1;
            }
            out.push_str(word);
            column += width;
        }
        out
    };
    let blocks = text.trim_end().split("\n\n");
    let filled = blocks.map(|b| if b.starts_with("```") { b.to_owned() } else { fill(b) });
    filled.collect::<Vec<_>>().join("\n\n") + "\n"
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

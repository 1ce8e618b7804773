//! Which projections of a model an adapter covers.

use crate::error::{Error, Result};
use regex::Regex;

/// A projection of the model as an adapter sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleShape {
    /// Block number from 0.
    pub layer: usize,
    /// Hugging Face name within the block: `self_attn.q_proj`.
    pub module: &'static str,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
}

/// PEFT's `target_modules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Every linear projection of every block (`all-linear`).
    All,
    /// Names or ends of names after a dot: `q_proj`, `self_attn.q_proj`.
    Names(Vec<String>),
    /// A regular expression over the whole name `model.layers.N.self_attn.q_proj`.
    Pattern(String),
}

impl Targets {
    /// The covered subset of `modules`, in their order. Errors: a name that matches nothing, a broken pattern,
    /// an empty result.
    pub fn select(&self, modules: &[ModuleShape], layers: Option<&[usize]>) -> Result<Vec<ModuleShape>> {
        let within = |m: &&ModuleShape| layers.is_none_or(|l| l.contains(&m.layer));
        if let Some(beyond) = layers.and_then(|l| l.iter().find(|l| !modules.iter().any(|m| m.layer == **l)))
        {
            let blocks = modules.iter().map(|m| m.layer + 1).max().unwrap_or(0);
            let what = format!("`peft_layers_to_transform` names block {beyond} of a model with {blocks}");
            return Err(Error::Config(what));
        }
        let chosen: Vec<ModuleShape> = match self {
            Self::All => modules.iter().filter(within).cloned().collect(),
            Self::Names(names) => {
                if let Some(name) = names.iter().find(|n| !modules.iter().any(|m| ends_with(m.module, n))) {
                    let mut known: Vec<&str> =
                        modules.iter().map(|m| m.module.rsplit('.').next().unwrap_or(m.module)).collect();
                    known.sort_unstable();
                    known.dedup();
                    let what = format!(
                        "target module `{name}` is not in the model\nhint: it has {}",
                        known.join(", ")
                    );
                    return Err(Error::Config(what));
                }
                let named = |m: &&ModuleShape| names.iter().any(|n| ends_with(m.module, n));
                modules.iter().filter(within).filter(named).cloned().collect()
            }
            Self::Pattern(pattern) => {
                let regex = Regex::new(&format!("^(?:{pattern})$"))
                    .map_err(|e| Error::Config(format!("target module pattern `{pattern}`: {e}")))?;
                let full = |m: &ModuleShape| format!("model.layers.{}.{}", m.layer, m.module);
                modules.iter().filter(within).filter(|m| regex.is_match(&full(m))).cloned().collect()
            }
        };
        if chosen.is_empty() {
            let what = "the adapter covers no projection of the model";
            let Self::Pattern(pattern) = self else { return Err(Error::Config(what.into())) };
            let mut names: Vec<&str> = modules.iter().filter_map(|m| m.module.rsplit('.').next()).collect();
            names.sort_unstable();
            names.dedup();
            return Err(Error::Config(format!(
                "{what}: `{pattern}` is a regular expression over whole paths such as `model.layers.0.self_attn.q_proj`\nhint: \
                 names go in a list: `[{}]`",
                names.join(", ")
            )));
        }
        Ok(chosen)
    }
}

fn ends_with(module: &str, name: &str) -> bool {
    module == name || module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Vec<ModuleShape> {
        let names = ["self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"];
        (0..2)
            .flat_map(|layer| names.map(|module| ModuleShape { layer, module, inputs: 4, outputs: 4 }))
            .collect()
    }

    #[test]
    fn selects_as_peft_does() {
        let check = |targets: Targets, layers: Option<&[usize]>, n: usize| {
            assert_eq!(targets.select(&modules(), layers).unwrap().len(), n, "{targets:?}");
        };
        check(Targets::All, None, 6);
        check(Targets::All, Some(&[1]), 3);
        check(Targets::Names(vec!["q_proj".into(), "mlp.up_proj".into()]), None, 4);
        check(Targets::Pattern(r"model\.layers\.0\..*(q|v)_proj".into()), None, 2);
        for bad in [
            Targets::Names(vec!["proj".into()]),
            Targets::Pattern("(".into()),
            Targets::Pattern("nothing".into()),
        ] {
            assert!(bad.select(&modules(), None).is_err(), "{bad:?}");
        }
        assert!(Targets::All.select(&modules(), Some(&[2])).is_err());
    }
}

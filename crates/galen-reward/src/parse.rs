//! `reward_funcs` and `reward_weights` understood.

use crate::error::{ConfigError, nearest, shown};
use crate::options::{Kind, Network, Options, Param};
use crate::registry::{REWARDS, Reward};
use crate::set::RewardSet;
use serde_json::{Map, Value};

/// A reward this crate cannot make, such as a reward model. The caller hands in how it is made.
pub struct Outside<'a> {
    /// Its name in `reward_funcs`.
    pub name: &'static str,
    /// Makes it from the parameters of its entry, which it checks; the text of an error says what is wrong with them.
    pub build: OutsideBuild<'a>,
}

/// Makes a reward from the parameters of its entry.
pub type OutsideBuild<'a> = Box<dyn FnMut(&Map<String, Value>) -> Result<Box<dyn Reward + 'a>, String> + 'a>;

/// The label every entry may have, and the key a long entry has its name under.
const LABEL: Param =
    Param::optional("label", Kind::Text, "what metrics call it instead of its name: `rewards/LABEL/mean`");

/// Builds the rewards of a configuration. Nothing is started and no socket opened; schema files and named environment
/// variables are read, so this is also the check of the two keys.
///
/// `reward_funcs`: a name, a map, or a list of either. A map is `{name: exact_match, field: code}` or
/// `{exact_match: {field: code}}`. `reward_weights`: a number an entry, or null for 1 each.
pub fn parse<'a>(
    reward_funcs: &Value,
    reward_weights: &Value,
    network: Network,
    outside: &mut [Outside<'a>],
) -> Result<RewardSet<'a>, ConfigError> {
    let key = "reward_funcs";
    let entries = match reward_funcs {
        Value::Array(list) => list.as_slice(),
        Value::String(_) | Value::Object(_) => std::slice::from_ref(reward_funcs),
        other => return Err(ConfigError::new(key, format!("takes a list of rewards, not {}", shown(other)))),
    };
    if entries.is_empty() {
        return Err(ConfigError::new(key, "names no reward").hint(format!("there are {}", names(outside))));
    }
    let weights = weights(reward_weights, entries.len())?;
    let mut set = RewardSet::new();
    for (i, (entry, weight)) in entries.iter().zip(weights).enumerate() {
        let place = format!("{key}[{i}]");
        let (name, mut given) = entry_parts(entry, &place)?;
        let label = match given.remove(LABEL.name) {
            None | Some(Value::Null) => name.clone(),
            Some(Value::String(label)) if !label.trim().is_empty() => label,
            Some(other) => {
                let what = format!("takes a text that is not empty, not {}", shown(&other));
                return Err(ConfigError::new(format!("{place}.{}", LABEL.name), what));
            }
        };
        if set.functions().any(|(other, _)| other == label) {
            let what = format!("a reward before it is called `{label}` too");
            return Err(ConfigError::new(place, what).hint("give one of them a `label:`"));
        }
        let reward = build(&name, &label, &given, &place, network, outside)?;
        set = set.with(label, weight, reward);
    }
    Ok(set)
}

fn build<'a>(
    name: &str,
    label: &str,
    given: &Map<String, Value>,
    place: &str,
    network: Network,
    outside: &mut [Outside<'a>],
) -> Result<Box<dyn Reward + 'a>, ConfigError> {
    if let Some(entry) = REWARDS.iter().find(|e| e.name == name) {
        return (entry.build)(&Options::new(label, network, place, given, entry.params)?);
    }
    if let Some(other) = outside.iter_mut().find(|o| o.name == name) {
        return (other.build)(given).map_err(|what| ConfigError::new(place, what));
    }
    Err(ConfigError::new(place, format!("there is no reward `{name}`")).hint(unknown_hint(name, outside)))
}

/// What the function of a TRL configuration is here.
const TRL: &[(&str, &str)] = &[
    ("accuracy_reward", "`numeric` or `exact_match` with `field: solution`"),
    ("reasoning_accuracy_reward", "`numeric` or `exact_match` with `field: solution, after: </think>`"),
    ("think_format_reward", "`regex` with `pattern: '(?s)^<think>(?!.*<think>).*?</think>'`"),
    ("get_soft_overlong_punishment", "`soft_overlong_punishment`"),
    ("get_repetition_penalty_reward", "`repetition`"),
];

fn unknown_hint(name: &str, outside: &[Outside<'_>]) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    if let Some((_, here)) = TRL.iter().find(|(trl, _)| *trl == last) {
        return format!("that is {here} here");
    }
    let known = REWARDS.iter().map(|e| e.name).chain(outside.iter().map(|o| o.name));
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if name.contains('.') => {
            "Python functions are not run; put it into a program and use `command`".into()
        }
        None => format!("there are {}", names(outside)),
    }
}

fn names(outside: &[Outside<'_>]) -> String {
    let names = REWARDS.iter().map(|e| e.name).chain(outside.iter().map(|o| o.name));
    names.map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// An entry's name and its other keys.
fn entry_parts(entry: &Value, place: &str) -> Result<(String, Map<String, Value>), ConfigError> {
    let wrong = |what: String| {
        ConfigError::new(place, what).hint("write `- exact_match`, or `- {name: exact_match, field: answer}`")
    };
    let map = match entry {
        Value::String(name) => return Ok((name.clone(), Map::new())),
        Value::Object(map) => map,
        other => return Err(wrong(format!("takes a name or a map, not {}", shown(other)))),
    };
    match (map.get("name"), map.iter().next()) {
        (Some(Value::String(name)), _) => {
            let mut given = map.clone();
            given.remove("name");
            Ok((name.clone(), given))
        }
        (Some(other), _) => Err(wrong(format!("`name` is {}, expected text", shown(other)))),
        (None, Some((name, Value::Object(given)))) if map.len() == 1 => Ok((name.clone(), given.clone())),
        (None, Some((name, Value::Null))) if map.len() == 1 => Ok((name.clone(), Map::new())),
        _ => Err(wrong("has no `name`".into())),
    }
}

fn weights(value: &Value, n: usize) -> Result<Vec<f64>, ConfigError> {
    let key = "reward_weights";
    let list = match value {
        Value::Null => return Ok(vec![1.0; n]),
        Value::Array(list) => list.as_slice(),
        one @ Value::Number(_) => std::slice::from_ref(one),
        other => return Err(ConfigError::new(key, format!("takes a list of numbers, not {}", shown(other)))),
    };
    if list.len() != n {
        let what = format!("has `{}` weights for `{n}` rewards", list.len());
        return Err(
            ConfigError::new(key, what).hint("one weight an entry of `reward_funcs`, or leave it out")
        );
    }
    let number = |(i, v): (usize, &Value)| {
        let wrong = || ConfigError::new(format!("{key}[{i}]"), format!("takes a number, not {}", shown(v)));
        v.as_f64().filter(|w| w.is_finite()).ok_or_else(wrong)
    };
    list.iter().enumerate().map(number).collect()
}

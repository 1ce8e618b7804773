//! `galen compare A B`: which items flipped between two runs, and where.

use super::Sample;
use crate::{EvalError, stats};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// An item that one run has right and the other wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flip {
    /// 0-based place in the evaluated split.
    pub doc_id: usize,
    /// `file:line` of the row.
    pub origin: String,
    /// What is right.
    pub target: Value,
    /// What the first run answered.
    pub a: Value,
    /// What the second run answered.
    pub b: Value,
}

/// The flips of one subgroup.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupFlips {
    /// The subgroup field's value.
    pub group: String,
    /// Items.
    pub n: usize,
    /// Share the first run has right.
    pub a: f64,
    /// Share the second run has right.
    pub b: f64,
    /// Items only the second has right.
    pub gained: usize,
    /// Items only the first has right.
    pub lost: usize,
}

/// One task between two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flips {
    /// The task.
    pub task: String,
    /// Items both runs have.
    pub n: usize,
    /// Items only one run has.
    pub unmatched: usize,
    /// Share the first run has right.
    pub a: f64,
    /// Share the second run has right.
    pub b: f64,
    /// McNemar's exact two-sided p.
    pub p_mcnemar: f64,
    /// Wrong before, right now.
    pub gained: Vec<Flip>,
    /// Right before, wrong now.
    pub lost: Vec<Flip>,
    /// By the subgroup field's value, where one was asked for.
    pub groups: Vec<GroupFlips>,
}

/// Compares the samples of two runs task by task; `subgroup` is a field of the rows (`a.b` for a nested one).
///
/// Errors: the two have no task in common, rows under the same number differ, or the subgroup field is missing.
pub fn compare(a: &[Sample], b: &[Sample], subgroup: Option<&str>) -> Result<Vec<Flips>, EvalError> {
    let fail = |what: String| EvalError::Report { origin: "compare".into(), what };
    let mut by_task: Vec<(&str, Vec<Pair<'_>>, usize)> = Vec::new();
    let key = |s: &'_ Sample| (s.task.clone(), s.doc_id);
    let second: BTreeMap<_, _> = b.iter().map(|s| (key(s), s)).collect();
    for first in a {
        if !by_task.iter().any(|(task, ..)| *task == first.task) {
            by_task.push((&first.task, Vec::new(), 0));
        }
        let Some((_, pairs, unmatched)) = by_task.iter_mut().find(|(task, ..)| *task == first.task) else {
            continue;
        };
        match second.get(&key(first)) {
            None => *unmatched += 1,
            Some(other) if other.doc_hash != first.doc_hash => {
                let what =
                    format!("task `{}`: item {} is not the same row in both", first.task, first.doc_id);
                return Err(fail(format!("{what}\nhint: evaluate both on the same data files")));
            }
            Some(other) => pairs.push((first, other)),
        }
    }
    by_task.retain(|(_, pairs, _)| !pairs.is_empty());
    if by_task.is_empty() {
        return Err(fail("no item in common\nhint: both need `--log_samples` on the same tasks".into()));
    }
    by_task
        .into_iter()
        .map(|(task, pairs, unmatched)| {
            let in_b = b.iter().filter(|s| s.task == task).count();
            let groups = subgroup.map_or(Ok(Vec::new()), |field| groups(&pairs, field))?;
            Ok(flips(task, &pairs, unmatched + in_b.saturating_sub(pairs.len()), groups))
        })
        .collect()
}

/// The same item in both runs.
type Pair<'a> = (&'a Sample, &'a Sample);

fn score(sample: &Sample) -> f64 {
    f64::from(u8::from(sample.correct))
}

fn flips(task: &str, pairs: &[(&Sample, &Sample)], unmatched: usize, groups: Vec<GroupFlips>) -> Flips {
    let a: Vec<f64> = pairs.iter().map(|(x, _)| score(x)).collect();
    let b: Vec<f64> = pairs.iter().map(|(_, y)| score(y)).collect();
    let flipped = |right_before: bool| {
        let of = pairs.iter().filter(|(x, y)| x.correct == right_before && y.correct != right_before);
        of.map(|(x, y)| Flip {
            doc_id: x.doc_id,
            origin: x.origin.clone(),
            target: named(x, &x.target),
            a: named(x, &x.pred),
            b: named(y, &y.pred),
        })
        .collect()
    };
    Flips {
        task: task.to_owned(),
        n: pairs.len(),
        unmatched,
        a: stats::mean(&a),
        b: stats::mean(&b),
        p_mcnemar: stats::mcnemar(&a, &b).p,
        gained: flipped(false),
        lost: flipped(true),
        groups,
    }
}

/// A choice's text in place of its index, where the sample has it.
fn named(sample: &Sample, value: &Value) -> Value {
    let text = |v: &Value| {
        let choice = sample.choices.as_ref().zip(v.as_u64()).and_then(|(c, i)| c.get(i as usize));
        choice.map_or_else(|| v.clone(), |c| Value::from(c.clone()))
    };
    match value {
        Value::Array(list) => Value::Array(list.iter().map(text).collect()),
        single => text(single),
    }
}

fn groups(pairs: &[(&Sample, &Sample)], field: &str) -> Result<Vec<GroupFlips>, EvalError> {
    let mut by_value: BTreeMap<String, Vec<(bool, bool)>> = BTreeMap::new();
    for (x, y) in pairs {
        let value = x.doc.as_ref().or(y.doc.as_ref()).and_then(|doc| {
            let mut parts = field.split('.');
            let first = doc.get(parts.next()?)?;
            parts.try_fold(first, |value, part| value.get(part))
        });
        let Some(value) = value else {
            let what = format!(
                "row has no field `{field}`\nhint: samples logged with hashed rows cannot be grouped"
            );
            return Err(EvalError::Report { origin: x.origin.clone(), what });
        };
        let name = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        by_value.entry(name).or_default().push((x.correct, y.correct));
    }
    let count = |list: &[(bool, bool)], pair: (bool, bool)| list.iter().filter(|p| **p == pair).count();
    Ok(by_value
        .into_iter()
        .map(|(group, list)| {
            let (gained, lost) = (count(&list, (false, true)), count(&list, (true, false)));
            let (both, n) = (count(&list, (true, true)), list.len());
            let share = |right: usize| right as f64 / n as f64;
            GroupFlips { group, n, a: share(both + lost), b: share(both + gained), gained, lost }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn samples(correct: &[bool]) -> Vec<Sample> {
        let sample = |(i, correct): (usize, &bool)| Sample {
            task: "t".into(),
            doc_id: i,
            doc_hash: format!("h{i}"),
            doc: json!({"meta": {"half": i / 2}}).as_object().cloned(),
            choices: Some(vec!["no".into(), "yes".into()]),
            pred: json!(u8::from(*correct)),
            target: json!(1),
            correct: *correct,
            ..Sample::default()
        };
        correct.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn flips_by_subgroup() {
        let (a, b) = (samples(&[true, true, false, false]), samples(&[true, false, true, true]));
        let flips = compare(&a, &b, Some("meta.half")).unwrap().remove(0);
        let ids = |list: &[Flip]| list.iter().map(|f| f.doc_id).collect::<Vec<_>>();
        assert_eq!((ids(&flips.gained), ids(&flips.lost)), (vec![2, 3], vec![1]));
        assert_eq!((flips.a, flips.b, flips.p_mcnemar), (0.5, 0.75, 1.0));
        assert_eq!((&flips.gained[0].a, &flips.gained[0].b), (&json!("no"), &json!("yes")));
        let second = GroupFlips { group: "1".into(), n: 2, a: 0.0, b: 1.0, gained: 2, lost: 0 };
        assert_eq!(flips.groups[1], second);
        assert_eq!(compare(&a, &b[..3], None).unwrap()[0].unmatched, 1);
    }

    #[test]
    fn what_cannot_be_compared() {
        let a = samples(&[true]);
        let mut b = samples(&[true]);
        assert!(compare(&a, &b, Some("nope")).unwrap_err().to_string().contains("no field `nope`"));
        b[0].doc_hash = "other".into();
        assert!(compare(&a, &b, None).unwrap_err().to_string().contains("not the same row"));
        assert!(compare(&a, &[], None).unwrap_err().to_string().contains("no item in common"));
    }
}

//! Train and test parts that share no group: `galen data split --group-by FIELD`.
//!
//! A group's part is decided by a hash of its value and the seed alone. So rows added later never move a group from
//! one part to the other, and two files split alike; in return the fraction is met on average, not exactly.

use crate::format::kind;
use crate::reader::RowIter;
use crate::{DataError, Fault, write_file};
use galen_types::RawRow;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::Path;

/// Two parts of a data set, each in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// Rows to train on.
    pub train: Vec<RawRow>,
    /// Rows to test on.
    pub test: Vec<RawRow>,
    /// What came of it.
    pub report: SplitReport,
}

/// Rows and groups of each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SplitReport {
    /// Rows to train on.
    pub train_rows: usize,
    /// Rows to test on.
    pub test_rows: usize,
    /// Groups in the training part.
    pub train_groups: usize,
    /// Groups in the test part.
    pub test_groups: usize,
}

/// Splits rows by the value of `group_by` (a field, or `a.b` for a field of a field), about `test_fraction` (above 0,
/// below 1) of the groups going to the test part.
///
/// Errors: a row without the field, a fraction out of range, and a part left empty.
pub fn split(rows: RowIter, group_by: &str, test_fraction: f64, seed: u64) -> Result<Parts, DataError> {
    let empty = |what: String, hint: &str| DataError::Empty { what, hint: Some(hint.to_owned()) };
    if !(test_fraction > 0.0 && test_fraction < 1.0) {
        return Err(empty(format!("a test fraction of `{test_fraction}`"), "give one between 0 and 1"));
    }
    let (mut train, mut test) = (Vec::new(), Vec::new());
    let (mut train_groups, mut test_groups) = (HashSet::new(), HashSet::new());
    for row in rows {
        let row = row?;
        let group = group_of(&row, group_by)?;
        if unit_hash(&group, seed) < test_fraction {
            test_groups.insert(group);
            test.push(row);
        } else {
            train_groups.insert(group);
            train.push(row);
        }
    }
    let report = SplitReport {
        train_rows: train.len(),
        test_rows: test.len(),
        train_groups: train_groups.len(),
        test_groups: test_groups.len(),
    };
    if train.is_empty() || test.is_empty() {
        let groups = report.train_groups + report.test_groups;
        let what = format!("the `{groups}` groups of `{group_by}` all fall into one part");
        return Err(empty(what, "take a field with more values, another fraction or another seed"));
    }
    Ok(Parts { train, test, report })
}

/// Writes rows as JSON lines.
pub fn write_jsonl(path: &Path, rows: &[RawRow]) -> Result<(), DataError> {
    let mut text = Vec::new();
    for row in rows {
        // Into memory, of values that came from JSON or its like: cannot fail.
        let line = serde_json::to_vec(&row.fields)
            .map_err(|e| DataError::io(path.display().to_string(), e.into()))?;
        text.extend_from_slice(&line);
        text.push(b'\n');
    }
    write_file(path, &text)
}

fn group_of(row: &RawRow, group_by: &str) -> Result<String, DataError> {
    let mut parts = group_by.split('.');
    let first = row.fields.get(group_by).or_else(|| {
        let outer = row.fields.get(parts.next()?)?;
        parts.try_fold(outer, |v, part| v.get(part))
    });
    match first {
        Some(Value::String(s)) => Ok(s.clone()),
        Some(v @ (Value::Number(_) | Value::Bool(_))) => Ok(v.to_string()),
        None | Some(Value::Null) => {
            let there: Vec<_> = row.fields.keys().map(String::as_str).collect();
            let e =
                DataError::row(&row.origin, Fault::MissingField, format!("field `{group_by}` is missing"));
            Err(e.with_hint(format!("the row has `{}`", there.join("`, `"))))
        }
        Some(other) => {
            let what = format!("cannot group by `{group_by}`: it is {}", kind(other));
            Err(DataError::row(&row.origin, Fault::WrongKind, what))
        }
    }
}

/// A number from 0 up to 1 that the text and the seed decide.
fn unit_hash(text: &str, seed: u64) -> f64 {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(text).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    // 53 bits: every value is exact in f64 and below 1.
    (u64::from_le_bytes(first) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use galen_types::Origin;
    use serde_json::json;

    fn rows(n: u64) -> RowIter {
        Box::new((0..n).map(|i| {
            let Value::Object(fields) = json!({"patient": i % 100, "meta": {"site": format!("s{}", i % 7)}})
            else {
                unreachable!()
            };
            Ok(RawRow { origin: Origin::new("a.jsonl", i + 1), fields })
        }))
    }

    #[test]
    fn parts_share_no_group_and_meet_the_fraction_on_average() {
        let parts = split(rows(10_000), "patient", 0.2, 1).unwrap();
        let groups =
            |rows: &[RawRow]| rows.iter().map(|r| r.fields["patient"].to_string()).collect::<HashSet<_>>();
        assert!(groups(&parts.train).is_disjoint(&groups(&parts.test)));
        assert_eq!(parts.train.len() + parts.test.len(), 10_000);
        assert!((10..=30).contains(&parts.report.test_groups), "{:?}", parts.report);
        // More rows move nothing.
        let fewer = split(rows(500), "patient", 0.2, 1).unwrap();
        assert!(groups(&fewer.test).is_subset(&groups(&parts.test)));
        assert_ne!(split(rows(500), "patient", 0.2, 2).unwrap().report, parts.report);
        assert!(split(rows(700), "meta.site", 0.5, 1).is_ok());
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        for (field, fraction, expect) in [
            ("patiant", 0.2, "a.jsonl:1: field `patiant` is missing"),
            ("meta", 0.2, "a.jsonl:1: cannot group by `meta`: it is an object"),
            ("patient", 0.0, "a test fraction of `0`"),
            ("patient", f64::NAN, "a test fraction of `NaN`"),
            ("patient", 1e-9, "the `100` groups of `patient` all fall into one part"),
        ] {
            let e = split(rows(100), field, fraction, 1).unwrap_err().to_string();
            assert!(e.starts_with(expect), "{e}");
        }
    }
}

//! Training, test and validation parts that share no group: `galen data split --group-by FIELD`.
//!
//! Groups stand in an order that a hash of their value and the seed alone decide. The test part takes them from the
//! front, the validation part from the back. So with shares, rows added later never move a group from one part to
//! another, and two files split alike; in return a share is met on average, not exactly.

use crate::format::kind;
use crate::reader::RowIter;
use crate::texts::{field, missing_field};
use crate::{DataError, Fault, write_file};
use galen_types::RawRow;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// How large a part is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// About such a share of the groups (above 0, below 1), and at least one group.
    Share(f64),
    /// As many whole groups as fit into so many rows.
    Rows(usize),
}

/// How to split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitOptions<'a> {
    /// Rows with the same value of this field (or `a.b`: a field of a field) stay together; `None`: equal rows do.
    pub group_by: Option<&'a str>,
    /// The test part.
    pub test: Size,
    /// The validation part, if there is to be one.
    pub val: Option<Size>,
    /// Another seed, other parts.
    pub seed: u64,
}

/// Parts of a data set, each in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// Rows to train on.
    pub train: Vec<RawRow>,
    /// Rows to test on.
    pub test: Vec<RawRow>,
    /// Rows to validate on; empty where none were asked for.
    pub val: Vec<RawRow>,
    /// What came of it.
    pub report: SplitReport,
}

/// Rows and groups of each part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SplitReport {
    /// Rows to train on.
    pub train_rows: usize,
    /// Rows to test on.
    pub test_rows: usize,
    /// Rows to validate on.
    pub val_rows: usize,
    /// Groups in the training part.
    pub train_groups: usize,
    /// Groups in the test part.
    pub test_groups: usize,
    /// Groups in the validation part.
    pub val_groups: usize,
}

/// Splits rows so that no group is in two parts.
///
/// Errors: a row that cannot be read or is without the field, a share out of range, and a part left empty.
pub fn split(rows: RowIter, options: SplitOptions) -> Result<Parts, DataError> {
    for size in [Some(options.test), options.val].into_iter().flatten() {
        if let Size::Share(share) = size
            && !(share > 0.0 && share < 1.0)
        {
            return Err(empty(format!("a share of `{share}`"), "give one between 0 and 1"));
        }
    }
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut all = Vec::new();
    for row in rows {
        let row = row?;
        groups.entry(group_of(&row, options.group_by)?).or_default().push(all.len());
        all.push(row);
    }
    let count = groups.len();
    let mut order: Vec<(f64, Vec<usize>)> =
        groups.into_iter().map(|(group, rows)| (unit_hash(&group, options.seed), rows)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let test = take(&mut order, options.test);
    order.reverse();
    order.iter_mut().for_each(|(hash, _)| *hash = 1.0 - *hash);
    let val = options.val.map(|size| take(&mut order, size)).unwrap_or_default();
    let train: Vec<Vec<usize>> = order.into_iter().map(|(_, rows)| rows).collect();
    for (name, part) in
        [("test", Some(&test)), ("validation", options.val.map(|_| &val)), ("training", Some(&train))]
    {
        if part.is_some_and(Vec::is_empty) {
            let by = options.group_by.map_or("distinct rows".into(), |field| format!("groups by `{field}`"));
            let what =
                format!("no row is left for the {name} part: there are {} rows in {count} {by}", all.len());
            return Err(empty(what, "ask for other sizes, or group by a field with more values"));
        }
    }
    let report = SplitReport {
        train_rows: train.iter().map(Vec::len).sum(),
        test_rows: test.iter().map(Vec::len).sum(),
        val_rows: val.iter().map(Vec::len).sum(),
        train_groups: train.len(),
        test_groups: test.len(),
        val_groups: val.len(),
    };
    let mut all: Vec<Option<RawRow>> = all.into_iter().map(Some).collect();
    let mut part = |groups: Vec<Vec<usize>>| -> Vec<RawRow> {
        let mut rows: Vec<usize> = groups.into_iter().flatten().collect();
        rows.sort_unstable();
        rows.into_iter().filter_map(|i| all.get_mut(i)?.take()).collect()
    };
    Ok(Parts { train: part(train), test: part(test), val: part(val), report })
}

/// Takes groups from the front, where the smallest hashes are.
fn take(order: &mut Vec<(f64, Vec<usize>)>, size: Size) -> Vec<Vec<usize>> {
    match size {
        Size::Share(share) => {
            let n = order.partition_point(|(hash, _)| *hash < share).max(1).min(order.len());
            order.drain(..n).map(|(_, rows)| rows).collect()
        }
        Size::Rows(limit) => {
            let mut left = limit;
            let fits = |group: &mut (f64, Vec<usize>)| match left.checked_sub(group.1.len()) {
                Some(rest) => {
                    left = rest;
                    true
                }
                None => false,
            };
            order.extract_if(.., fits).map(|(_, rows)| rows).collect()
        }
    }
}

fn empty(what: String, hint: &str) -> DataError {
    DataError::Empty { what, hint: Some(hint.to_owned()) }
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

fn group_of(row: &RawRow, group_by: Option<&str>) -> Result<String, DataError> {
    let Some(group_by) = group_by else {
        return Ok(sorted(&Value::Object(row.fields.clone())));
    };
    match field(&row.fields, group_by) {
        Some(Value::String(s)) => Ok(s.clone()),
        Some(v @ (Value::Number(_) | Value::Bool(_))) => Ok(v.to_string()),
        None => Err(missing_field(&row.origin, &row.fields, group_by)),
        Some(Value::Null) => {
            let what = format!("cannot group by `{group_by}`: it is null in this row");
            Err(DataError::row(&row.origin, Fault::WrongKind, what))
        }
        Some(other) => {
            let what = format!("cannot group by `{group_by}`: it is {}", kind(other));
            Err(DataError::row(&row.origin, Fault::WrongKind, what))
        }
    }
}

/// A value as text, its keys in order: rows that are equal are one text.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let ordered: BTreeMap<_, _> = fields.iter().collect();
            let all: Vec<_> = ordered
                .into_iter()
                .map(|(k, v)| format!("{}:{}", Value::from(k.as_str()), sorted(v)))
                .collect();
            format!("{{{}}}", all.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
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
    use std::collections::HashSet;

    fn rows(n: u64) -> RowIter {
        Box::new((0..n).map(|i| {
            let Value::Object(fields) = json!({"patient": i % 100, "meta": {"site": format!("s{}", i % 7)}})
            else {
                unreachable!()
            };
            Ok(RawRow { origin: Origin::new("a.jsonl", i + 1), fields })
        }))
    }

    fn by(field: &str, test: Size, seed: u64) -> SplitOptions<'_> {
        SplitOptions { group_by: Some(field), test, val: None, seed }
    }

    fn patients(rows: &[RawRow]) -> HashSet<String> {
        rows.iter().map(|r| r.fields["patient"].to_string()).collect()
    }

    #[test]
    fn parts_share_no_group_and_meet_the_share_on_average() {
        let share = Size::Share(0.2);
        let parts = split(rows(10_000), by("patient", share, 1)).unwrap();
        assert!(patients(&parts.train).is_disjoint(&patients(&parts.test)));
        assert_eq!((parts.train.len() + parts.test.len(), parts.val.len()), (10_000, 0));
        assert!((10..=30).contains(&parts.report.test_groups), "{:?}", parts.report);
        // More rows move nothing.
        let fewer = split(rows(500), by("patient", share, 1)).unwrap();
        assert!(patients(&fewer.test).is_subset(&patients(&parts.test)));
        assert_ne!(split(rows(500), by("patient", share, 2)).unwrap().report, parts.report);
        assert!(split(rows(700), by("meta.site", Size::Share(0.5), 1)).is_ok());
        // At least one group, however small the share.
        assert_eq!(split(rows(100), by("patient", Size::Share(1e-9), 1)).unwrap().report.test_groups, 1);
    }

    #[test]
    fn three_parts_of_whole_groups_in_file_order() {
        let options = SplitOptions { val: Some(Size::Share(0.1)), ..by("patient", Size::Rows(157), 3) };
        let parts = split(rows(1000), options).unwrap();
        // Groups of ten: 15 of them fit into 157 rows.
        assert_eq!((parts.report.test_rows, parts.report.test_groups), (150, 15));
        let sets = [&parts.train, &parts.val, &parts.test].map(|p| patients(p));
        assert_eq!(sets.iter().map(HashSet::len).sum::<usize>(), 100);
        assert_eq!(sets.iter().flatten().collect::<HashSet<_>>().len(), 100);
        for part in [&parts.train, &parts.val, &parts.test] {
            assert!(!part.is_empty() && part.is_sorted_by_key(|r| r.origin.line()));
        }
        // A validation part leaves the test part as it is.
        let without = split(rows(1000), SplitOptions { val: None, ..options }).unwrap();
        assert_eq!(without.test, parts.test);
    }

    #[test]
    fn without_a_field_equal_rows_stay_together() {
        let options = SplitOptions { group_by: None, test: Size::Rows(3), val: None, seed: 1 };
        // Rows repeat every 700: 1400 rows are 700 pairs, and one pair fits into three rows.
        let parts = split(rows(1400), options).unwrap();
        assert_eq!((parts.report.test_rows, parts.report.test_groups), (2, 1));
        assert_eq!(parts.test[0].fields, parts.test[1].fields);
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        for (field, size, expect) in [
            ("patiant", Size::Share(0.2), "a.jsonl:1: field `patiant` is missing"),
            ("meta", Size::Share(0.2), "a.jsonl:1: cannot group by `meta`: it is an object"),
            ("patient", Size::Share(0.0), "a share of `0`"),
            ("patient", Size::Share(f64::NAN), "a share of `NaN`"),
            (
                "patient",
                Size::Rows(0),
                "no row is left for the test part: there are 100 rows in 100 groups by",
            ),
            ("patient", Size::Rows(100), "no row is left for the training part"),
        ] {
            let e = split(rows(100), by(field, size, 1)).unwrap_err().to_string();
            assert!(e.starts_with(expect), "{e}");
        }
        let e = split(rows(0), by("patient", Size::Rows(1), 1)).unwrap_err().to_string();
        assert!(e.starts_with("no row is left for the test part: there are 0 rows"), "{e}");
    }
}

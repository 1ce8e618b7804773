//! `split: train[10%:20%]`, as the `datasets` library reads it.

use super::DatasetSpec;
use crate::DataError;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slice {
    pub(super) split: String,
    from: Option<Bound>,
    to: Option<Bound>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    Rows(i64),
    Percent(i64),
}

impl Bound {
    /// `Err`: neither empty nor a bound.
    fn parse(text: &str) -> Result<Option<Self>, ()> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let bound = match text.strip_suffix('%') {
            Some(p) => p.parse().ok().filter(|p: &i64| p.abs() <= 100).map(Self::Percent),
            None => text.parse().ok().map(Self::Rows),
        };
        bound.map(Some).ok_or(())
    }

    /// The row number of `n` rows; percentages round to the nearest row, negative ones count from the end.
    fn row(self, n: usize) -> usize {
        let n = n as i64;
        let at = match self {
            Self::Rows(r) => r,
            Self::Percent(p) => (p as f64 * n as f64 / 100.0).round_ties_even() as i64,
        };
        let at = if at < 0 { n.saturating_add(at) } else { at };
        at.clamp(0, n) as usize
    }
}

impl Slice {
    pub(super) fn parse(spec: &DatasetSpec) -> Result<Self, DataError> {
        let text = spec.split.as_deref().unwrap_or("train").trim();
        let bad = || {
            DataError::spec(&spec.path, format!("cannot read `split: {text}`"))
                .with_hint("write `train`, `train[:500]` or `train[10%:20%]`")
        };
        let Some((split, range)) = text.split_once('[') else {
            return if text.is_empty() || text.contains('+') { Err(bad()) } else { Ok(Self::all(text)) };
        };
        let (from, to) = range.strip_suffix(']').and_then(|r| r.split_once(':')).ok_or_else(bad)?;
        let (from, to) = (Bound::parse(from).map_err(|()| bad())?, Bound::parse(to).map_err(|()| bad())?);
        Ok(Self { split: split.trim().to_owned(), from, to })
    }

    fn all(split: &str) -> Self {
        Self { split: split.to_owned(), from: None, to: None }
    }

    /// Whether the first `read` rows already hold the slice.
    pub(super) fn enough(&self, read: usize) -> bool {
        let counted = |b: Option<Bound>| matches!(b, None | Some(Bound::Rows(0..)));
        match self.to {
            Some(Bound::Rows(to)) if to >= 0 && counted(self.from) => read as u64 >= to as u64,
            _ => false,
        }
    }

    pub(super) fn cut<T>(&self, spec: &DatasetSpec, mut rows: Vec<T>) -> Result<Vec<T>, DataError> {
        let n = rows.len();
        let from = self.from.map_or(0, |b| b.row(n));
        let to = self.to.map_or(n, |b| b.row(n));
        if n > 0 && from >= to {
            let split = spec.split.as_deref().unwrap_or_default();
            return Err(DataError::spec(&spec.path, format!("`split: {split}` takes none of `{n}` rows")));
        }
        rows.truncate(to);
        Ok(rows.split_off(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_as_the_datasets_library_does() {
        // Expected ranges worked by hand from the library's documentation of slicing, 10 rows.
        for (split, expect) in [
            ("train", Some((0, 10))),
            ("train[:3]", Some((0, 3))),
            ("train[-3:]", Some((7, 10))),
            ("train[2:5]", Some((2, 5))),
            ("train[:25%]", Some((0, 2))),
            ("train[50%:]", Some((5, 10))),
            ("train[:200]", Some((0, 10))),
            ("train[5:5]", None),
            ("train[a:b]", None),
            ("train[:101%]", None),
            ("train+test", None),
        ] {
            let spec = DatasetSpec { split: Some(split.to_owned()), ..DatasetSpec::default() };
            let rows = Slice::parse(&spec).and_then(|s| s.cut(&spec, (0..10).collect()));
            let expect = expect.map(|(a, b)| (a..b).collect::<Vec<i32>>());
            assert_eq!(rows.ok(), expect, "{split}");
        }
    }
    #[test]
    fn fuzz() {
        let inputs = galen_testkit::fuzz::run("slice", &galen_testkit::fuzz::corpus("slice"), |bytes| {
            let split = Some(String::from_utf8_lossy(bytes).into_owned());
            let spec = DatasetSpec { split, ..DatasetSpec::default() };
            let Ok(slice) = Slice::parse(&spec) else { return };
            for n in [0, 1, 10] {
                let enough = slice.enough(n);
                let cut = slice.cut(&spec, (0..n).collect());
                // Enough means that more rows change nothing (no rows are an error once there are some).
                if let (true, Ok(cut)) = (enough, cut)
                    && !cut.is_empty()
                {
                    assert_eq!(slice.cut(&spec, (0..n + 5).collect()).ok(), Some(cut), "{spec:?}");
                }
            }
        });
        println!("slice: {inputs} inputs");
    }
}

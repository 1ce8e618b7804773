//! Named figures of a step, added up over its micro-batches.

use std::borrow::Cow;

/// Metrics by TRL's names, in the order of their first mention. Each is a weighted mean, a minimum or a
/// maximum, so that [`Metrics::merge`] over micro-batches (and over steps, where a log line covers several)
/// gives the figure of all their rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    entries: Vec<(Cow<'static, str>, Figure)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Figure {
    Mean { sum: f64, weight: f64 },
    Min(f64),
    Max(f64),
}

impl Figure {
    fn value(self) -> f64 {
        match self {
            Self::Mean { sum, weight } => sum / weight,
            Self::Min(value) | Self::Max(value) => value,
        }
    }

    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Mean { sum, weight }, Self::Mean { sum: s, weight: w }) => {
                Self::Mean { sum: sum + s, weight: weight + w }
            }
            (Self::Min(a), Self::Min(b)) => Self::Min(a.min(b)),
            (Self::Max(a), Self::Max(b)) => Self::Max(a.max(b)),
            (_, later) => later,
        }
    }
}

impl Metrics {
    /// The mean of values; nothing where there are none.
    pub fn mean(&mut self, name: impl Into<Cow<'static, str>>, values: impl IntoIterator<Item = f64>) {
        let (sum, weight) = values.into_iter().fold((0.0, 0.0), |(s, w), v| (s + v, w + 1.0));
        self.weighted(name, sum, weight);
    }

    /// A sum and what it is divided by; nothing where that is 0.
    pub fn weighted(&mut self, name: impl Into<Cow<'static, str>>, sum: f64, weight: f64) {
        if weight > 0.0 {
            self.add(name.into(), Figure::Mean { sum, weight });
        }
    }

    /// The least of values.
    pub fn min(&mut self, name: impl Into<Cow<'static, str>>, values: impl IntoIterator<Item = f64>) {
        if let Some(value) = values.into_iter().reduce(f64::min) {
            self.add(name.into(), Figure::Min(value));
        }
    }

    /// The greatest of values.
    pub fn max(&mut self, name: impl Into<Cow<'static, str>>, values: impl IntoIterator<Item = f64>) {
        if let Some(value) = values.into_iter().reduce(f64::max) {
            self.add(name.into(), Figure::Max(value));
        }
    }

    /// Puts one value in the place of whatever has this name.
    pub fn set(&mut self, name: &'static str, value: f64) {
        self.entries.retain(|(n, _)| *n != name);
        self.mean(name, [value]);
    }

    fn add(&mut self, name: Cow<'static, str>, figure: Figure) {
        match self.entries.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = old.with(figure),
            None => self.entries.push((name, figure)),
        }
    }

    /// Takes another micro-batch's figures in.
    pub fn merge(&mut self, other: &Self) {
        for (name, figure) in &other.entries {
            self.add(name.clone(), *figure);
        }
    }

    /// The figure of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.entries.iter().find(|(n, _)| *n == name).map(|(_, f)| f.value())
    }

    /// Names and figures.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.entries.iter().map(|(name, figure)| (name.as_ref(), figure.value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_halves_are_the_whole() {
        let mut whole = Metrics::default();
        whole.mean("m", [1.0, 2.0, 6.0]);
        whole.min("low", [1.0, 2.0, 6.0]);
        whole.max("high", [1.0, 2.0, 6.0]);
        let mut first = Metrics::default();
        first.mean("m", [1.0]);
        first.min("low", [1.0]);
        first.max("high", [1.0]);
        let mut second = Metrics::default();
        second.mean("m", [2.0, 6.0]);
        second.min("low", [2.0, 6.0]);
        second.max("high", [2.0, 6.0]);
        first.merge(&second);
        assert_eq!(first, whole);
        assert_eq!(first.iter().collect::<Vec<_>>(), [("m", 3.0), ("low", 1.0), ("high", 6.0)]);
        let mut none = Metrics::default();
        none.mean("m", []);
        assert_eq!(none.get("m"), None);
    }
}

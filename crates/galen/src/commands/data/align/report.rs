//! What `galen data align` says.

use super::Align;
use crate::commands::data::rows::{ReadRows, beginning};
use crate::progress::counted;
use crate::session::selection::Text;
use galen_types::RawRow;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// Of which scores are told, in percent of the rows.
const QUANTILES: [usize; 7] = [0, 5, 25, 50, 75, 95, 100];
/// Rank correlation of scores with rows' lengths beyond which a note is due.
const FOLLOWS_LENGTH: f64 = 0.8;

/// Jensen-Shannon divergences of hashed n-grams from the target's.
pub struct Distances {
    /// Of all rows.
    pub all: f64,
    /// Of as many rows as are kept, drawn at random.
    pub random: Option<f64>,
    /// Of those that are kept.
    pub kept: Option<f64>,
}

/// What came of it.
pub struct Report<'a> {
    pub args: &'a Align,
    pub read: &'a ReadRows,
    pub target_rows: usize,
    pub distances: Distances,
    pub rows: &'a [RawRow],
    pub texts: &'a [Text],
    pub scores: &'a [f64],
    pub chosen: Option<&'a [usize]>,
}

impl Report<'_> {
    /// Row numbers, the best first, those without a score last; and how many have one.
    fn ranked(&self) -> (Vec<usize>, usize) {
        (ranked(self.scores), self.scores.iter().filter(|s| !s.is_nan()).count())
    }

    fn lengths(&self) -> Vec<f64> {
        self.texts.iter().map(|t| t.buckets.len() as f64).collect()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let (ranked, scored) = self.ranked();
        let row = |i: &usize| {
            json!({
                "row": self.rows[*i].origin.to_string(),
                "score": self.scores[*i],
                "kept": self.chosen.map(|c| c.binary_search(i).is_ok()),
                "text": beginning(&self.texts[*i].text),
            })
        };
        let n = self.args.examples;
        let quantiles: Map<String, Value> = quantiles(&ranked[..scored], self.scores)
            .into_iter()
            .map(|(q, s)| (q.to_string(), s.into()))
            .collect();
        json!({
            "rows": self.read.rows,
            "left_out": self.read.left_out,
            "compared": self.read.about,
            "target_rows": self.target_rows,
            "method": self.args.method.name,
            "score": self.args.method.score,
            "seed": self.args.seed,
            "kept": self.chosen.map(<[usize]>::len),
            "divergence": {"all": self.distances.all, "random": self.distances.random, "kept": self.distances.kept},
            "without_score": ranked.len() - scored,
            "quantiles": quantiles,
            "length_correlation": rank_correlation(self.scores, &self.lengths()),
            "best": ranked.iter().take(n).map(row).collect::<Vec<_>>(),
            "worst": ranked.iter().rev().take(n).map(row).collect::<Vec<_>>(),
            "out": self.args.out,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let (method, (ranked, scored)) = (self.args.method, self.ranked());
        let targets = counted(self.target_rows as u64, "row");
        let mut out = format!(
            "distance from the target's {targets} (0 to 0.693: Jensen-Shannon divergence of n-grams)\n"
        );
        let mut line = |name: String, x: f64| {
            let _ = writeln!(out, "  {name:<32}{x:.4}");
        };
        line(format!("all {}", counted(self.rows.len() as u64, "row")), self.distances.all);
        if let (Some(chosen), Some(random), Some(kept)) =
            (self.chosen, self.distances.random, self.distances.kept)
        {
            line(format!("{} drawn at random", chosen.len()), random);
            line(format!("{} kept by `{}`", chosen.len(), method.name), kept);
        }
        if let Some(path) = &self.args.out {
            let n = self.chosen.map_or(self.rows.len(), <[usize]>::len);
            let _ = writeln!(out, "{} written to {}", counted(n as u64, "row"), path.display());
        }
        let _ = writeln!(out, "\nscores ({})", method.score);
        for (q, score) in quantiles(&ranked[..scored], self.scores) {
            let name = match q {
                0 => "least".to_owned(),
                50 => "median".to_owned(),
                100 => "most".to_owned(),
                q => format!("{q} %"),
            };
            let _ = writeln!(out, "  {name:<8}{score:>12.4}");
        }
        if scored < ranked.len() {
            let n = counted((ranked.len() - scored) as u64, "row");
            let _ = writeln!(out, "note: {n} without a score, too short for one, last among the worst");
        }
        let along = rank_correlation(self.scores, &self.lengths());
        if method.sums && along.abs() > FOLLOWS_LENGTH {
            let _ = writeln!(
                out,
                "note: scores follow the rows' lengths (rank correlation {along:.2}): short and long rows do not compare; \
                 `--method ngrams` goes by the n-gram"
            );
        }
        let n = self.args.examples;
        let mut examples = |title: &str, rows: &mut dyn Iterator<Item = &usize>| {
            let _ = writeln!(out, "\n{title}");
            for i in rows.take(n) {
                let kept = self.chosen.is_some_and(|c| c.binary_search(i).is_ok());
                let (score, origin) = (self.scores[*i], &self.rows[*i].origin);
                let score = if score.is_nan() { "no score".to_owned() } else { format!("{score:.4}") };
                let kept = if kept { "  kept" } else { "" };
                let _ =
                    writeln!(out, "  {score:>10}  {origin}{kept}\n      {}", beginning(&self.texts[*i].text));
            }
        };
        if n > 0 {
            examples("best rows", &mut ranked.iter());
            examples("worst rows", &mut ranked.iter().rev());
        }
        out
    }
}

/// Row numbers by their scores, the highest first; NaN, no score, is the lowest, as it is for what is kept.
fn ranked(scores: &[f64]) -> Vec<usize> {
    let rank = |i: usize| (!scores[i].is_nan()).then_some(scores[i]);
    let mut rows: Vec<usize> = (0..scores.len()).collect();
    rows.sort_by(|a, b| match (rank(*a), rank(*b)) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    });
    rows
}

/// Scores at [`QUANTILES`], of rows ranked from the best.
fn quantiles(ranked: &[usize], scores: &[f64]) -> Vec<(usize, f64)> {
    let Some(last) = ranked.len().checked_sub(1) else { return Vec::new() };
    QUANTILES.iter().map(|q| (*q, scores[ranked[last - (last * q + 50) / 100]])).collect()
}

/// Spearman's of those that both have, equal values sharing the mean of their ranks; 0 where either does not vary.
fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    let both = a.iter().zip(b).filter(|(a, b)| !a.is_nan() && !b.is_nan());
    let (a, b): (Vec<f64>, Vec<f64>) = both.map(|(a, b)| (*a, *b)).unzip();
    let (a, b) = (ranks(&a), ranks(&b));
    let mean = f64::midpoint(a.len() as f64, 1.0);
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let lengths = (dot(&a, &a) * dot(&b, &b)).sqrt();
    if lengths > 0.0 { dot(&a, &b) / lengths } else { 0.0 }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut out = vec![0.0; values.len()];
    let mut from = 0;
    for group in order.chunk_by(|a, b| values[*a].total_cmp(&values[*b]).is_eq()) {
        // Ranks count from 1.
        let mean = from as f64 + f64::midpoint(group.len() as f64, 1.0);
        group.iter().for_each(|i| out[*i] = mean);
        from += group.len();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_their_correlation() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        // Worked by hand: 1 - 6 (1 + 1 + 0 + 0) / (4 (16 - 1)) = 0.8.
        assert!((rank_correlation(&[1.0, 2.0, 3.0, 4.0], &[20.0, 10.0, 30.0, 40.0]) - 0.8).abs() < 1e-12);
        assert!((rank_correlation(&[1.0, 2.0, 5.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
        assert_eq!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
        assert_eq!(rank_correlation(&[], &[]), 0.0);
    }

    #[test]
    fn no_score_is_the_lowest() {
        let scores = [f64::NAN, -2.0, f64::NEG_INFINITY, -f64::NAN, 0.5];
        assert_eq!(ranked(&scores), [4, 1, 2, 0, 3]);
        assert_eq!(rank_correlation(&[1.0, f64::NAN, 2.0], &[1.0, 5.0, 3.0]), 1.0);
    }

    #[test]
    fn quantiles_from_least_to_most() {
        let scores: Vec<f64> = (0..101).map(f64::from).collect();
        let ranked: Vec<usize> = (0..101).rev().collect();
        assert_eq!(quantiles(&ranked, &scores), QUANTILES.map(|q| (q, q as f64)));
        assert_eq!(quantiles(&[0], &[7.0]), QUANTILES.map(|q| (q, 7.0)));
        assert_eq!(quantiles(&[], &[]), []);
    }
}

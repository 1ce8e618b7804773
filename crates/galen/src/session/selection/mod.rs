//! Ways to score rows by how near they are to a target. A new one is one file here and one line in [`METHODS`].

mod embedding;
mod likelihood;
mod model;
mod ngrams;

pub use model::TextModel;

/// A way to score rows.
#[derive(Debug)]
pub struct Method {
    /// Its name in `--method`.
    pub name: &'static str,
    /// One line for `--help` and the docs.
    pub about: &'static str,
    /// What its scores are.
    pub score: &'static str,
    /// Whether and how it asks a model.
    pub asks: Asks,
    /// Whether scores are log weights that rows are drawn by; else those of the highest scores are kept.
    pub draws: bool,
    /// Whether a score is a sum over the row, so that rows of different lengths hardly compare.
    pub sums: bool,
    run: fn(&Inputs<'_>) -> anyhow::Result<Vec<f64>>,
}

/// What a method asks a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// None.
    Nothing,
    /// Each row alone.
    Rows,
    /// Each row, also behind examples of the target.
    BehindExamples,
}

impl Asks {
    /// Whether there is a model.
    pub fn a_model(self) -> bool {
        self != Self::Nothing
    }

    /// Whether rows stand behind examples.
    pub fn behind_examples(self) -> bool {
        self == Self::BehindExamples
    }
}

/// Every method.
pub static METHODS: &[Method] = &[ngrams::DSIR, ngrams::NGRAMS, embedding::METHOD, likelihood::METHOD];

/// A text with the buckets of its n-grams.
pub struct Text {
    /// What it says.
    pub text: String,
    /// [`galen_data::ngrams::buckets`] of it.
    pub buckets: Vec<u32>,
}

impl Text {
    /// Counts the n-grams.
    pub fn new(text: String) -> Self {
        let buckets = galen_data::ngrams::buckets(&text);
        Self { text, buckets }
    }
}

/// What is scored, and by what.
pub struct Inputs<'a> {
    /// Rows to choose from.
    pub rows: &'a [Text],
    /// Each target's texts; none of them is empty.
    pub targets: &'a [Vec<Text>],
    /// For methods that ask one.
    pub model: Option<&'a TextModel>,
    /// Examples of the target before a row.
    pub shots: usize,
    /// Keys what is drawn.
    pub seed: u64,
}

impl Method {
    /// The method called so.
    pub fn named(name: &str) -> Option<&'static Self> {
        METHODS.iter().find(|m| m.name == name)
    }

    /// The names of methods that are like this, for hints.
    pub fn that(are: impl Fn(&Self) -> bool) -> String {
        let names: Vec<_> = METHODS.iter().filter(|m| are(m)).map(|m| format!("`{}`", m.name)).collect();
        names.join(" or ")
    }

    /// A score for each row: the higher the nearer; NaN where it can have none.
    pub fn scores(&self, inputs: &Inputs<'_>) -> anyhow::Result<Vec<f64>> {
        (self.run)(inputs)
    }
}

impl<'a> Inputs<'a> {
    /// The model of a method that asks one.
    fn model(&self) -> anyhow::Result<&'a TextModel> {
        self.model.ok_or_else(|| anyhow::anyhow!("no model was opened"))
    }

    /// All targets' texts.
    fn target(&self) -> impl Iterator<Item = &'a Text> {
        self.targets.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_every_method() {
        let page = include_str!("../../../../../docs/data.md");
        for method in METHODS {
            let line = format!("| `{}` | {} |\n", method.name, method.about);
            assert!(page.contains(&line), "docs/data.md has not: {line}");
            assert!(std::ptr::eq(Method::named(method.name).unwrap(), method));
        }
        assert!(Method::named("other").is_none());
    }
}

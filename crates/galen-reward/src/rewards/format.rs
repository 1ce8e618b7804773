//! Whether a completion keeps to a template of tags.

use crate::answer::one_if;
use crate::options::{Kind, Param};
use crate::{Completion, ConfigError, Options, Reward, RewardEntry, RewardError};

pub(crate) const ENTRY: RewardEntry = RewardEntry {
    name: "format",
    about: "1 where the completion keeps to a template of tags, else 0 or a part of it",
    doc: "A template is marks and `...` for text: `<think>...</think><answer>...</answer>`. A completion keeps to it \
          when every mark occurs exactly once, in order, every `...` holds more than white space, and between marks that \
          no `...` parts, and outside, there is nothing but white space. With `partial: true` each mark that occurs once \
          and after those before it counts, and that the rest is in order counts as one more mark.",
    params: &[PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::optional(
        "template",
        Kind::Text,
        "the template; left out, the `tags` one after the other: `<a>...</a><b>...</b>`",
    ),
    Param::with(
        "tags",
        Kind::Texts,
        "[\"think\", \"answer\"]",
        "tags in order, where there is no `template`",
    ),
    Param::with("allow_empty", Kind::Flag, "false", "a `...` may hold nothing"),
    Param::with("partial", Kind::Flag, "false", "give parts of the reward"),
];

const GAP: &str = "...";

fn build(options: &Options<'_>) -> Result<Box<dyn Reward>, ConfigError> {
    let tags = options.texts("tags")?;
    let (key, template) = match options.maybe_text("template")? {
        Some(template) => ("template", template),
        None => ("tags", tags.iter().map(|t| format!("<{t}>{GAP}</{t}>")).collect()),
    };
    if key == "tags"
        && let Some(tag) =
            tags.iter().find(|t| t.is_empty() || !t.chars().all(|c| c.is_alphanumeric() || "_-".contains(c)))
    {
        return Err(options
            .wrong("tags", format!("`{tag}` is no tag's name"))
            .hint("write `think`, not `<think>`"));
    }
    let pieces = pieces(&template);
    let marks: Vec<&str> = pieces.iter().filter_map(|p| p.mark()).collect();
    if marks.is_empty() {
        return Err(options.wrong(key, format!("`{template}` has no marks")));
    }
    for (i, mark) in marks.iter().enumerate() {
        if marks.iter().enumerate().any(|(j, other)| i != j && other.contains(mark)) {
            return Err(options.wrong(key, format!("mark `{mark}` occurs twice, or is part of another")));
        }
    }
    let (empty, partial) = (options.flag("allow_empty")?, options.flag("partial")?);
    Ok(Box::new(Format { template: Template { pieces, empty }, partial }))
}

#[derive(Debug, PartialEq)]
enum Piece {
    Mark(String),
    Gap,
}

impl Piece {
    fn mark(&self) -> Option<&str> {
        match self {
            Self::Mark(mark) => Some(mark),
            Self::Gap => None,
        }
    }
}

/// Marks are parted by `...`, by white space and where one tag ends and the next begins.
fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (i, literal) in template.split(GAP).enumerate() {
        if i > 0 && pieces.last() != Some(&Piece::Gap) {
            pieces.push(Piece::Gap);
        }
        let spaced = literal.replace("><", "> <");
        pieces.extend(spaced.split_whitespace().map(|mark| Piece::Mark(mark.to_owned())));
    }
    pieces
}

struct Template {
    pieces: Vec<Piece>,
    empty: bool,
}

impl Template {
    /// Marks that occur once and after those before them, and whether the text keeps to the whole template.
    fn judge(&self, text: &str) -> (usize, bool) {
        let (mut kept, mut whole) = (0, true);
        let (mut end, mut gap) = (0, false);
        let fits = |between: &str, gap: bool| match between.trim() {
            "" => !gap || self.empty,
            _ => gap,
        };
        for piece in &self.pieces {
            let Some(mark) = piece.mark() else {
                gap = true;
                continue;
            };
            let mut places = text.match_indices(mark).map(|(at, _)| at);
            match (places.next(), places.next()) {
                (Some(at), None) if at >= end => {
                    whole &= fits(&text[end..at], gap);
                    (end, gap) = (at + mark.len(), false);
                    kept += 1;
                }
                _ => whole = false,
            }
        }
        (kept, whole && fits(&text[end..], gap))
    }
}

struct Format {
    template: Template,
    partial: bool,
}

impl Reward for Format {
    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        let marks = self.template.pieces.iter().filter(|p| p.mark().is_some()).count();
        let one = |c: &Completion<'_>| match self.template.judge(c.text) {
            (kept, whole) if self.partial => (kept as f64 + one_if(whole)) / (marks as f64 + 1.0),
            (_, whole) => one_if(whole),
        };
        Ok(completions.iter().map(|c| Some(one(c))).collect())
    }
}

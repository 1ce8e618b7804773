//! Preference rows: each answer behind its prompt, with what it is called.

use super::{Style, line};
use crate::commands::data::{Inspect, Stage};
use crate::progress::say;
use crate::session::Preparer;
use galen_data::preference::{PreferenceReport, tokenize_labelled, tokenize_pairs, tokenize_prompts};
use galen_data::{DatasetSpec, inspect};
use galen_types::{
    Answer, Preference, PromptRow, Rendered, RenderedAnswer, RenderedLabelled, RenderedPair, Tokenized,
    TokenizedAnswer, TokenizedPrompt,
};
use serde_json::json;

/// The asked rows, one text an answer, counted through all entries.
pub(super) fn shown(args: &Inspect, preparer: &Preparer, style: Style) -> anyhow::Result<Vec<String>> {
    let (train, test) = preparer.config.dataset_specs()?;
    let (mut out, mut before, mut taken) = (Vec::new(), 0, 0);
    for spec in train.iter().chain(&test) {
        if taken >= args.rows {
            break;
        }
        let loaded = preparer.load_preferences(spec, preparer.config.bad_rows())?;
        loaded.bad_rows.iter().take(3).for_each(|bad| say(&format!("skipped: {}", bad.text)));
        let renderer = preparer.answer_renderer(spec, &loaded.rows)?;
        let n = loaded.rows.len();
        let from = args.skip.saturating_sub(before).min(n);
        let to = from.saturating_add(args.rows - taken).min(n);
        for (i, row) in loaded.rows[from..to].iter().enumerate() {
            if let Preference::Prompt(row) = row {
                out.extend(prompt((before + from + i) as u64, row, (args, preparer, spec), style)?);
                continue;
            }
            let mut answers = Vec::new();
            for (name, answer) in named(row) {
                answers.push((name, renderer.render(row.origin(), row.prompt(), answer)?));
            }
            let number = (before + from + i) as u64;
            match args.stage {
                Stage::Rendered => {
                    out.extend(answers.iter().map(|(name, a)| rendered(number, name, a, style)));
                }
                _ => out.extend(tokenized(number, answers, preparer, style)?),
            }
        }
        taken += to - from;
        before += n;
    }
    Ok(out)
}

/// A prompt whose answers are to be sampled.
fn prompt(
    number: u64,
    row: &PromptRow,
    (args, preparer, spec): (&Inspect, &Preparer, &DatasetSpec),
    style: Style,
) -> anyhow::Result<Vec<String>> {
    let rendered = preparer.rendered_prompt(spec, row)?;
    let origin = row.origin.to_string();
    if args.stage == Stage::Rendered {
        return Ok(vec![match style {
            Style::Text { color } => {
                let shown = Rendered::new(row.origin.clone(), rendered.text, vec![], false)?;
                format!("prompt  {}", inspect::rendered(&shown, color))
            }
            Style::Json => {
                line(&json!({"origin": origin, "row": number, "answer": "prompt", "text": rendered.text}))
            }
        }]);
    }
    let (made, report) =
        tokenize_prompts(&[rendered], &preparer.base.tokenizer, preparer.config.length_limits())?;
    report.dropped_rows.iter().for_each(|row| say(&format!("left out: {row}")));
    let shown = |p: &TokenizedPrompt| match style {
        Style::Text { .. } => format!("prompt  {origin}: {} tokens\n{:?}\n", p.ids().len(), p.ids()),
        Style::Json => line(&json!({"origin": origin, "row": number, "answer": "prompt", "ids": p.ids()})),
    };
    Ok(made.iter().map(shown).collect())
}

/// A row's answers by name.
fn named(row: &Preference) -> Vec<(String, &Answer)> {
    match row {
        Preference::Pair(row) => vec![("chosen".into(), &row.chosen), ("rejected".into(), &row.rejected)],
        Preference::Labelled(row) => vec![(if row.label { "good" } else { "bad" }.into(), &row.completion)],
        Preference::Ranked(row) => {
            row.answers.iter().map(|(a, score)| (format!("score {score}"), a)).collect()
        }
        Preference::Prompt(_) => Vec::new(),
    }
}

fn rendered(number: u64, name: &str, answer: &RenderedAnswer, style: Style) -> String {
    let row = &answer.rendered;
    let Style::Text { color } = style else {
        let spans: Vec<_> = row.spans().iter().map(|s| [s.start, s.end]).collect();
        return line(
            &json!({"origin": row.origin().to_string(), "row": number, "answer": name, "text": row.text(),
                            "supervised_bytes": spans}),
        );
    };
    format!("{name}  {}", inspect::rendered(row, color))
}

fn tokenized(
    number: u64,
    mut answers: Vec<(String, RenderedAnswer)>,
    preparer: &Preparer,
    style: Style,
) -> anyhow::Result<Vec<String>> {
    let (encoder, limits) = (&preparer.base.tokenizer, preparer.config.length_limits());
    let told = |report: &PreferenceReport| {
        report.dropped_rows.iter().for_each(|row| say(&format!("left out: {row}")));
    };
    // A pair's halves are encoded together: they have one prompt.
    let is_pair = matches!(&answers[..], [(a, _), _] if a == "chosen");
    let names: Vec<String> = answers.iter().map(|(name, _)| name.clone()).collect();
    let mut made: Vec<TokenizedAnswer> = Vec::new();
    if is_pair && let (Some((_, rejected)), Some((_, chosen))) = (answers.pop(), answers.pop()) {
        let (pairs, report) =
            tokenize_pairs(&[RenderedPair { chosen, rejected, margin: None }], encoder, limits)?;
        told(&report);
        made.extend(pairs.iter().flat_map(|p| [p.chosen().clone(), p.rejected().clone()]));
    }
    for (_, answer) in answers {
        let (rows, report) = tokenize_labelled(&[RenderedLabelled { answer, label: true }], encoder, limits)?;
        told(&report);
        made.extend(rows.into_iter().map(|row| row.answer));
    }
    let mut out = Vec::new();
    for (name, answer) in names.iter().zip(made) {
        // Tokenized one by one, each was row 0.
        let tokens = answer.tokens();
        let (ids, mask) = (tokens.ids().to_vec(), tokens.mask().to_vec());
        let tokens = Tokenized::new(tokens.origin().clone(), number, ids, mask)?;
        out.push(match style {
            Style::Text { color } => format!("{name}  {}", inspect::tokenized(&tokens, encoder, color)),
            Style::Json => {
                line(&json!({"origin": tokens.origin().to_string(), "row": number, "answer": name,
                                        "ids": tokens.ids(), "supervised": tokens.mask()}))
            }
        });
    }
    Ok(out)
}

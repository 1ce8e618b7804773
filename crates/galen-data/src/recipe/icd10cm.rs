//! The clinical example: a diagnosis text to the letter of its ICD-10-CM code, from the CDC/NCHS tabular list.
//!
//! ICD-10-CM's texts are full of near-duplicates (left, right, unspecified eye ...), so a random split of rows would
//! measure memory. Texts are normalised and de-duplicated, those that occur under two letters left out, and training,
//! validation and test rows come from different sections (`A00-A09` ...) of the list.

mod tabular;

use crate::order::SplitMix64;
use crate::{DataError, write_file};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use tabular::Diagnosis;

/// Parameters of the recipe; `datasets/icd10cm.yaml` holds the same values as [`Recipe::default`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// SHA-256 of the XML file; another file is refused. Empty: any file.
    pub source_sha256: String,
    /// The classes: first letters of codes.
    pub letters: Vec<String>,
    /// Chapters left out, by number: 8 (the ear) shares its letter with 7 (the eye).
    pub leave_out_chapters: Vec<String>,
    /// Words that make variants of one diagnosis; dropped when texts are compared.
    pub variant_words: Vec<String>,
    /// Training rows of each letter.
    pub train_per_letter: usize,
    /// Validation rows of each letter, from sections of their own.
    pub validation_per_letter: usize,
    /// Rows of each letter in the balanced test set.
    pub balanced_per_letter: usize,
    /// Share of a letter's rows whose sections are held out for the test, at least the balanced rows.
    pub test_fraction: f64,
    /// What stands before the diagnosis in the user's turn.
    pub instruction: String,
    /// Decides sections and rows.
    pub seed: u64,
}

impl Default for Recipe {
    fn default() -> Self {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
        Self {
            source_sha256: "f161f8182aff3ce3a2a78e202f8259c08eaee2c670a9e45b0072445c52302935".to_owned(),
            letters: words(&["A", "C", "E", "F", "G", "H", "I", "J", "K", "L", "M", "N"]),
            leave_out_chapters: words(&["8"]),
            variant_words: words(&["left", "right", "bilateral", "unspecified"]),
            train_per_letter: 100,
            validation_per_letter: 10,
            balanced_per_letter: 30,
            test_fraction: 0.25,
            instruction: "ICD-10-CM letter: ".to_owned(),
            seed: 1,
        }
    }
}

/// Rows of each file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Diagnoses of the source.
    pub diagnoses: usize,
    /// Distinct texts of the letters.
    pub distinct: usize,
    /// Texts left out because they occur under two letters.
    pub ambiguous: usize,
    /// File name -> rows.
    pub files: BTreeMap<String, usize>,
    /// File name -> sections.
    pub sections: BTreeMap<String, usize>,
}

/// One text of the data set.
#[derive(Debug, Clone)]
struct Item {
    diagnosis: Diagnosis,
    /// What other texts were compared with; unique over all parts.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests hold the parts against it"))]
    normalized: String,
    letter: String,
}

/// Rows of the three parts; no section and no normalised text is in two of them.
#[derive(Debug, Default)]
struct Parts {
    train: Vec<Item>,
    validation: Vec<Item>,
    test: Vec<Item>,
    balanced: Vec<Item>,
}

type Line = fn(&Item, &Recipe) -> Value;

/// Builds the data set from the tabular list at `xml` into the folder `out`: `train.jsonl` and `validation.jsonl`
/// (chats), `test.jsonl` and `test360.jsonl` (evaluation items; named by its rows), and the evaluation tasks
/// `icd10_letter.yaml` (the balanced rows) and `icd10_letter_full.yaml`.
///
/// Errors: a file of another hash, XML that is not the tabular list, and letters with too few rows.
pub fn build(xml: &Path, recipe: &Recipe, out: &Path) -> Result<Summary, DataError> {
    let shown = xml.display().to_string();
    check_hash(xml, &recipe.source_sha256)?;
    let diagnoses = tabular::read(xml)?;
    let (items, distinct) = distinct_items(&diagnoses, recipe);
    let parts = split(&items, recipe).map_err(|what| DataError::file(shown, what))?;
    std::fs::create_dir_all(out).map_err(|e| DataError::io(out.display().to_string(), e))?;
    let balanced = format!("test{}", parts.balanced.len());
    let mut summary = Summary {
        diagnoses: diagnoses.len(),
        distinct,
        ambiguous: distinct - items.len(),
        files: BTreeMap::new(),
        sections: BTreeMap::new(),
    };
    let files: [(&str, &[Item], Line); 4] = [
        ("train", &parts.train, chat),
        ("validation", &parts.validation, chat),
        ("test", &parts.test, question),
        (&balanced, &parts.balanced, question),
    ];
    for (name, items, line) in files {
        let name = format!("{name}.jsonl");
        let mut text = String::new();
        for item in items {
            text.push_str(&line(item, recipe).to_string());
            text.push('\n');
        }
        write_file(&out.join(&name), text.as_bytes())?;
        let sections: BTreeSet<_> = items.iter().map(|i| &i.diagnosis.section).collect();
        summary.sections.insert(name.clone(), sections.len());
        summary.files.insert(name, items.len());
    }
    for (task, file) in [("icd10_letter", balanced.as_str()), ("icd10_letter_full", "test")] {
        write_file(&out.join(format!("{task}.yaml")), task_yaml(task, file, &recipe.letters).as_bytes())?;
    }
    Ok(summary)
}

fn check_hash(xml: &Path, expected: &str) -> Result<(), DataError> {
    if expected.is_empty() {
        return Ok(());
    }
    let shown = xml.display().to_string();
    let mut file = std::fs::File::open(xml).map_err(|e| DataError::io(&shown, e))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(|e| DataError::io(&shown, e))?;
    let found = format!("{:x}", hasher.finalize());
    if found == expected {
        return Ok(());
    }
    Err(DataError::file(shown, format!("its sha256 is `{found}`, the recipe is for `{expected}`"))
        .with_hint("the file comes from the Python package simple-icd-10-cm 1.5.0"))
}

/// Lower case, letters and digits alone, without the words that make variants.
fn normalize(text: &str, variant_words: &[String]) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    words.filter(|w| !variant_words.iter().any(|v| v == w)).collect::<Vec<_>>().join(" ")
}

/// The first diagnosis of every normalised text that occurs under one letter only; and how many texts there are.
fn distinct_items(diagnoses: &[Diagnosis], recipe: &Recipe) -> (Vec<Item>, usize) {
    let mut items: Vec<Item> = Vec::new();
    let mut place: HashMap<String, usize> = HashMap::new();
    let mut ambiguous = BTreeSet::new();
    for diagnosis in diagnoses {
        let letter = diagnosis.code.chars().take(1).collect::<String>();
        let normalized = normalize(&diagnosis.text, &recipe.variant_words);
        if !recipe.letters.contains(&letter)
            || recipe.leave_out_chapters.contains(&diagnosis.chapter)
            || normalized.is_empty()
        {
            continue;
        }
        if let Some(i) = place.get(&normalized) {
            if items[*i].letter != letter {
                ambiguous.insert(*i);
            }
            continue;
        }
        place.insert(normalized.clone(), items.len());
        items.push(Item { diagnosis: diagnosis.clone(), normalized, letter });
    }
    let distinct = items.len();
    let kept = items.into_iter().enumerate().filter(|(i, _)| !ambiguous.contains(i)).map(|(_, item)| item);
    (kept.collect(), distinct)
}

/// Sections by part, letter by letter: validation takes whole sections first, then the test, training the rest.
fn split(items: &[Item], recipe: &Recipe) -> Result<Parts, String> {
    let mut parts = Parts::default();
    for (l, letter) in recipe.letters.iter().enumerate() {
        let mut sections: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
        for item in items.iter().filter(|i| i.letter == *letter) {
            sections.entry(&item.diagnosis.section).or_default().push(item);
        }
        let rows: usize = sections.values().map(Vec::len).sum();
        let mut random = SplitMix64::keyed(&[recipe.seed, l as u64]);
        let mut sections: Vec<Vec<&Item>> = sections.into_values().collect();
        random.shuffle(&mut sections);
        let test_rows = ((rows as f64 * recipe.test_fraction) as usize).max(recipe.balanced_per_letter);
        let mut left = rows;
        let (mut validation, mut test, mut train) = (Vec::new(), Vec::new(), Vec::new());
        for section in sections {
            // A section goes to training where holding it out would leave too little of the letter to train on.
            let spare = left.saturating_sub(section.len()) >= 2 * recipe.train_per_letter;
            // Few sections are larger than the test should be (all of diabetes is one): they are trained on, so that
            // the test asks about many sections rather than one.
            let fits = |part: &[&Item]| part.len() + section.len() <= test_rows + test_rows / 4;
            let part = if spare && fits(&validation) && validation.len() < recipe.validation_per_letter {
                &mut validation
            } else if spare && fits(&test) && test.len() < test_rows {
                &mut test
            } else {
                train.push(section);
                continue;
            };
            left -= section.len();
            part.extend(section);
        }
        let too_few = |part: &str, wanted: usize, found: usize| {
            Err(format!("letter `{letter}` has `{found}` of `{wanted}` {part} rows"))
        };
        if train.iter().map(Vec::len).sum::<usize>() < recipe.train_per_letter {
            return too_few("training", recipe.train_per_letter, left);
        }
        if validation.len() < recipe.validation_per_letter {
            return too_few("validation", recipe.validation_per_letter, validation.len());
        }
        if test.len() < recipe.balanced_per_letter {
            return too_few("test", recipe.balanced_per_letter, test.len());
        }
        parts.train.extend(spread(train, recipe.train_per_letter, &mut random));
        random.shuffle(&mut validation);
        parts.validation.extend(validation.into_iter().take(recipe.validation_per_letter).cloned());
        parts.test.extend(test.iter().map(|i| (*i).clone()));
        random.shuffle(&mut test);
        parts.balanced.extend(test.into_iter().take(recipe.balanced_per_letter).cloned());
    }
    for (i, part) in [&mut parts.train, &mut parts.validation, &mut parts.balanced].into_iter().enumerate() {
        SplitMix64::keyed(&[recipe.seed, u64::MAX, i as u64]).shuffle(part);
    }
    Ok(parts)
}

/// `n` rows spread over the categories (`E10`, `E11` ...) of these sections as evenly as they allow: large
/// categories hold hundreds of nearly equal texts.
fn spread(sections: Vec<Vec<&Item>>, n: usize, random: &mut SplitMix64) -> Vec<Item> {
    let mut categories: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    for item in sections.into_iter().flatten() {
        categories.entry(item.diagnosis.category()).or_default().push(item);
    }
    let mut categories: Vec<Vec<&Item>> = categories.into_values().collect();
    random.shuffle(&mut categories);
    for category in &mut categories {
        random.shuffle(category);
    }
    let mut out = Vec::with_capacity(n);
    while out.len() < n && categories.iter().any(|c| !c.is_empty()) {
        for category in &mut categories {
            if out.len() < n {
                out.extend(category.pop().cloned());
            }
        }
    }
    out
}

fn prompt(item: &Item, recipe: &Recipe) -> String {
    format!("{}{}", recipe.instruction, item.diagnosis.text)
}

fn chat(item: &Item, recipe: &Recipe) -> Value {
    json!({"messages": [
        {"role": "user", "content": prompt(item, recipe)},
        {"role": "assistant", "content": item.letter},
    ]})
}

fn question(item: &Item, recipe: &Recipe) -> Value {
    json!({
        "diagnosis": item.diagnosis.text,
        "code": item.diagnosis.code,
        "section": item.diagnosis.section,
        "letter": item.letter,
        "prompt": prompt(item, recipe),
    })
}

fn task_yaml(task: &str, file: &str, letters: &[String]) -> String {
    let choices = letters.iter().map(|l| format!("{l:?}")).collect::<Vec<_>>().join(", ");
    format!(
        "# Multiple choice by likelihood: the first letter of a diagnosis's ICD-10-CM code. Score it with the chat template\n\
         # (`--apply_chat_template`), as the training rows were rendered.\n\
         task: {task}\n\
         dataset_path: json\n\
         dataset_kwargs:\n  data_files:\n    test: {file}.jsonl\n\
         output_type: multiple_choice\n\
         test_split: test\n\
         doc_to_text: \"{{{{prompt}}}}\"\n\
         doc_to_choice: [{choices}]\n\
         doc_to_target: letter\n\
         target_delimiter: \"\"\n\
         num_fewshot: 0\n\
         metric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n"
    )
}

#[cfg(test)]
mod tests;

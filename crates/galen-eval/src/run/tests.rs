//! Whole evaluations with a toy scorer: no model, every number worked out by hand.

use super::*;
use crate::report::{Docs, EvalReport, RunMeta, read_samples, samples_path, table, write_samples};
use crate::{ChatMessage, ChoiceRequest, Generation, QuestionTokens, ScoreError, compare};
use serde_json::json;
use std::collections::VecDeque;
use std::path::Path;

/// Scores a choice by `score(prompt, choice)`, answers prompts from a list, keeps what it was asked.
#[derive(Default)]
struct Toy {
    score: Option<fn(&str, &str) -> f64>,
    answers: VecDeque<&'static str>,
    asked: Vec<String>,
    calls: usize,
}

impl Scorer for Toy {
    fn score_choices(&mut self, requests: &[ChoiceRequest]) -> Result<Vec<QuestionScore>, ScoreError> {
        self.calls += 1;
        let score = self.score.ok_or("no score")?;
        let question = |r: &ChoiceRequest| QuestionScore {
            choices: r
                .choices
                .iter()
                .map(|c| ChoiceScore { logprob: score(r.prompt.text(), c), n_tokens: 1, is_greedy: false })
                .collect(),
            tokens: Some(QuestionTokens { ids: vec![1, 2], choices_ids: vec![vec![3]; r.choices.len()] }),
        };
        self.asked.extend(requests.iter().map(|r| format!("{}|{}", r.prompt.text(), r.choices.join("/"))));
        Ok(requests.iter().map(question).collect())
    }

    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<Generation>, ScoreError> {
        self.calls += 1;
        self.asked.extend(requests.iter().map(|r| r.prompt.text().to_owned()));
        let answer = |_| {
            Ok(Generation {
                text: self.answers.pop_front().ok_or("no answer left")?.into(),
                ..Generation::default()
            })
        };
        requests.iter().map(answer).collect()
    }

    fn apply_chat_template(&mut self, messages: &[ChatMessage], header: bool) -> Result<String, ScoreError> {
        let turns =
            messages.iter().map(|m| format!("<{}>{}", m.role, m.content)).collect::<Vec<_>>().concat();
        Ok(if header { format!("{turns}<assistant>") } else { turns })
    }
}

fn rows(folder: &Path, name: &str, rows: &[Value]) {
    let lines = rows.iter().map(|r| format!("{r}\n")).collect::<Vec<_>>().concat();
    std::fs::write(folder.join(name), lines).unwrap();
}

fn run(yaml: &str, folder: &Path, toy: &mut Toy, options: &EvalOptions) -> Result<TaskResult, EvalError> {
    evaluate(&Task::from_yaml(yaml, "task.yaml", folder)?, toy, options, &mut |_| ())
}

const CHOICE: &str = "
task: toy
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl, dev: dev.jsonl}}
test_split: test
fewshot_split: dev
fewshot_config: {sampler: first_n}
output_type: multiple_choice
description: 'About {{topic}}.'
doc_to_text: 'Q: {{q}}'
doc_to_choice: ['no', 'yes']
doc_to_target: a
metadata: {version: 2.0}
";

fn choice_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let test =
        [("x", 0), ("y", 1), ("x", 1), ("y", 1)].map(|(q, a)| json!({"q": q, "a": a, "topic": "toys"}));
    rows(folder.path(), "test.jsonl", &test);
    rows(folder.path(), "dev.jsonl", &[json!({"q": "d1", "a": 1}), json!({"q": "d2", "a": 0})]);
    folder
}

#[test]
fn multiple_choice_from_rows_to_report() {
    let folder = choice_folder();
    // Likes "yes" where the prompt ends in y: wrong on the third item.
    let sees_y = |prompt: &str, choice: &str| {
        if prompt.ends_with('y') == choice.contains("yes") { -0.5 } else { -3.0 }
    };
    let mut toy = Toy { score: Some(sees_y), ..Toy::default() };
    let mut told = Vec::new();
    let task = Task::from_yaml(CHOICE, "task.yaml", folder.path()).unwrap();
    let options = EvalOptions { chunk: 3, ..EvalOptions::default() };
    let good = evaluate(&task, &mut toy, &options, &mut |p| told.push((p.done, p.total))).unwrap();
    assert_eq!(told, [(0, 4), (3, 4), (4, 4)]);
    assert_eq!(toy.calls, 2);
    assert_eq!(toy.asked[0], "About toys.Q: x| no/ yes");
    assert_eq!((good.metrics[0].metric.as_str(), good.metrics[0].value), ("acc", 0.75));
    assert_eq!(good.metrics[0].scores, [1.0, 1.0, 0.0, 1.0]);
    assert_eq!(good.chance, Some(0.5));
    assert_eq!((good.version.as_deref(), good.samples[2].correct), (Some("2.0"), false));

    let always_no = |_: &str, choice: &str| if choice == " no" { -0.1 } else { -2.0 };
    let base =
        run(CHOICE, folder.path(), &mut Toy { score: Some(always_no), ..Toy::default() }, &options).unwrap();
    let meta =
        |name: &str, adapter: Option<&str>| RunMeta { name: name.into(), adapter: adapter.map(Into::into) };
    let runs = [(meta("base", None), vec![base]), (meta("adapter", Some("out")), vec![good])];
    let report = EvalReport::new("m", &runs);
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!((&value["model"], &value["adapter"]), (&json!("m"), &json!("out")));
    assert_eq!(value["tasks"]["toy"]["n"], 4);
    assert_eq!(value["tasks"]["toy"]["metrics"]["acc"]["value"], 0.75);
    assert_eq!(value["results"]["toy"]["acc,none"], 0.75);
    assert_eq!(value["results"]["toy"]["acc_stderr,none"], 0.25);
    assert_eq!(value["comparisons"][0]["delta"], 0.5);
    let p = value["comparisons"][0]["p_mcnemar"].as_f64().unwrap();
    assert!((p - 0.5).abs() <= 1e-12, "{p}");
    assert_eq!(
        (&value["comparisons"][0]["a"], &value["comparisons"][0]["b"]),
        (&json!("base"), &json!("adapter"))
    );

    let path = folder.path().join("eval.json");
    report.write(&path).unwrap();
    assert_eq!(EvalReport::read(&path).unwrap(), report);
    let text = table(&report);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("task  metric"), "{text}");
    assert!(
        lines[1].contains("75.0 [") && lines[1].contains("+50.0 [") && lines[1].ends_with("0.500"),
        "{text}"
    );
    assert_eq!(lines[0].chars().count(), lines[1].chars().count(), "{text}");

    let samples = samples_path(&path);
    let named = || runs.iter().map(|(m, r)| (m.name.as_str(), r.as_slice()));
    write_samples(&samples, named(), Docs::Full).unwrap();
    let read = read_samples(&samples).unwrap();
    assert_eq!(read.len(), 8);
    let line = serde_json::to_value(&read[4]).unwrap();
    assert_eq!(
        (&line["run"], &line["ids"], &line["choices_ids"]),
        (&json!("adapter"), &json!([1, 2]), &json!([[3], [3]]))
    );
    assert_eq!((&line["pred"], &line["target"], &line["correct"]), (&json!(0), &json!(0), &json!(true)));
    let flips = compare(&read[..4], &read[4..], Some("q")).unwrap();
    assert_eq!((flips[0].gained.len(), flips[0].lost.len(), flips[0].groups.len()), (2, 0, 2));
    write_samples(&samples, named(), Docs::Hashed).unwrap();
    let text = std::fs::read_to_string(&samples).unwrap();
    assert!(!text.contains("toys") && !text.contains("\"doc\""), "{text}");
}

#[test]
fn examples_in_text_and_in_chat() {
    let folder = choice_folder();
    let options = |chat, multiturn| EvalOptions {
        limit: Some(Limit::Count(1)),
        prompt: PromptOptions {
            num_fewshot: Some(2),
            apply_chat_template: chat,
            fewshot_as_multiturn: multiturn,
            system_instruction: Some("Be brief.".into()),
            ..PromptOptions::default()
        },
        ..EvalOptions::default()
    };
    for (chat, multiturn, expect) in [
        (false, true, "Be brief.\n\nAbout toys.Q: d1 yes\n\nQ: d2 no\n\nQ: x| no/ yes"),
        (
            true,
            true,
            "<system>Be brief.\n\nAbout toys.<user>Q: d1<assistant>yes<user>Q: d2<assistant>no<user>Q: x<assistant>|no/yes",
        ),
        (
            true,
            false,
            "<system>Be brief.\n\nAbout toys.<user>Q: d1 yes\n\nQ: d2 no\n\nQ: x<assistant>|no/yes",
        ),
    ] {
        let mut toy = Toy { score: Some(|_, _| -1.0), ..Toy::default() };
        run(CHOICE, folder.path(), &mut toy, &options(chat, multiturn)).unwrap();
        assert_eq!(toy.asked, [expect]);
    }
    let prefixed = format!("{CHOICE}gen_prefix: 'A:'\n");
    let mut toy = Toy { score: Some(|_, _| -1.0), ..Toy::default() };
    run(&prefixed, folder.path(), &mut toy, &options(true, true)).unwrap();
    assert!(toy.asked[0].ends_with("<assistant>A: no<user>Q: x<assistant>A:| no/ yes"), "{}", toy.asked[0]);
    let mut toy = Toy { score: Some(|_, _| -1.0), ..Toy::default() };
    run(&prefixed, folder.path(), &mut toy, &options(false, true)).unwrap();
    assert!(toy.asked[0].ends_with("Q: d2 A: no\n\nQ: x A:| no/ yes"), "{}", toy.asked[0]);
}

#[test]
fn choices_that_are_the_contexts() {
    let folder = tempfile::tempdir().unwrap();
    let row = json!({"options": ["The cat, it", "The dog, it"], "right": 1, "end": "barked."});
    rows(folder.path(), "test.jsonl", &[row]);
    let yaml = "
task: contexts
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: right
doc_to_choice: options
doc_to_target: end
";
    let mut toy =
        Toy { score: Some(|prompt, _| if prompt.contains("dog") { -1.0 } else { -2.0 }), ..Toy::default() };
    let result = run(yaml, folder.path(), &mut toy, &EvalOptions::default()).unwrap();
    assert_eq!(toy.asked, ["The cat, it| barked.", "The dog, it| barked."]);
    assert_eq!(result.metrics[0].value, 1.0);
}

#[test]
fn generated_answers_through_filters() {
    let folder = tempfile::tempdir().unwrap();
    rows(
        folder.path(),
        "test.jsonl",
        &[json!({"q": "2+2", "a": 4}), json!({"q": "3*3", "a": ["9", "nine"]})],
    );
    let yaml = "
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: '{{q}} ='
doc_to_target: a
generation_kwargs: {until: [\"\\n\", '.'], do_sample: true, temperature: 0.5, max_gen_toks: 8}
repeats: 3
filter_list:
  - name: first
    filter: [{function: regex, regex_pattern: '[0-9]+'}, {function: take_first}]
  - name: majority
    filter: [{function: regex, regex_pattern: '[0-9]+'}, {function: majority_vote}, {function: take_first}]
metric_list: [{metric: exact_match, ignore_case: true}]
";
    let answers = ["it is 5\nor 4", "4. Or 6", "so 4", "9 9", "8", "nine\n9"].into();
    let mut toy = Toy { answers, ..Toy::default() };
    let result = run(yaml, folder.path(), &mut toy, &EvalOptions::default()).unwrap();
    assert_eq!(toy.asked, ["2+2 ="; 3].into_iter().chain(["3*3 ="; 3]).collect::<Vec<_>>());
    let values: Vec<_> = result.metrics.iter().map(|m| (m.key(), m.value)).collect();
    assert_eq!(values, [("exact_match,first".to_owned(), 0.5), ("exact_match,majority".to_owned(), 1.0)]);
    assert_eq!(result.samples[0].answers.as_deref().unwrap(), ["it is 5", "4", "so 4"]);
    assert_eq!((result.chance, result.metrics[0].stderr), (None, Some(0.5)));
}

#[test]
fn a_scorer_that_breaks_its_contract() {
    let folder = choice_folder();
    let nan = run(
        CHOICE,
        folder.path(),
        &mut Toy { score: Some(|_, _| f64::NAN), ..Toy::default() },
        &EvalOptions::default(),
    );
    assert!(nan.unwrap_err().to_string().contains("`NaN` is not a log-probability"));
    let failing = run(CHOICE, folder.path(), &mut Toy::default(), &EvalOptions::default());
    assert_eq!(failing.unwrap_err().to_string(), "task `toy`: no score");
}

#[test]
fn bad_rows_are_named() {
    let folder = choice_folder();
    for (row, part) in [
        (json!({"q": "x", "a": 2, "topic": ""}), "label `2` of 2 choices"),
        (json!({"q": "x", "topic": ""}), "answer `a` is none of the choices"),
        (json!({"a": 1, "topic": ""}), "undefined"),
    ] {
        rows(folder.path(), "test.jsonl", &[json!({"q": "x", "a": 0, "topic": ""}), row]);
        let error =
            run(CHOICE, folder.path(), &mut Toy::default(), &EvalOptions::default()).unwrap_err().to_string();
        assert!(error.contains("test.jsonl:2: ") && error.contains(part), "{error}");
    }
}

#[test]
fn limits() {
    assert_eq!("10".parse(), Ok(Limit::Count(10)));
    assert_eq!("0.25".parse::<Limit>().map(|l| l.of(10)), Ok(3));
    assert_eq!("1".parse::<Limit>().map(|l| l.of(10)), Ok(1));
    for wrong in ["0", "-1", "1.5", "x", "NaN"] {
        assert!(wrong.parse::<Limit>().is_err(), "{wrong}");
    }
}

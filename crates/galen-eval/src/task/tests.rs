//! Task files: what is understood, what is refused and how it says so.

use super::*;
use std::path::Path;

const SOUND: &str = "
task: t
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: q
doc_to_choice: [yes, no]
doc_to_target: a
";

fn error(yaml: &str) -> String {
    Task::from_yaml(yaml, "t.yaml", ".").unwrap_err().to_string()
}

#[test]
fn sound_tasks() {
    let task = Task::from_yaml(SOUND, "t.yaml", ".").unwrap();
    assert_eq!((task.name(), task.output_type()), ("t", OutputType::MultipleChoice));
    // YAML 1.2: `yes` is a word.
    assert_eq!(task.doc_to_choice, Some(DocTo::List(vec!["yes".into(), "no".into()])));
    assert_eq!(task.metrics.iter().map(|m| m.entry.name).collect::<Vec<_>>(), ["acc", "acc_norm"]);
    let yaml =
        format!("{SOUND}tag: [a]\ndataset_name: null\nunsafe_code: false\nshould_decontaminate: true\n");
    let notes = Task::from_yaml(&yaml, "t.yaml", ".").unwrap().notes;
    assert_eq!(notes.len(), 3, "{notes:?}");
    for file in ["choice.yaml", "generate.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/task").join(file);
        Task::load(path.to_str().unwrap(), None).unwrap();
    }
}

#[test]
fn generation_settings() {
    let yaml = SOUND.replace("multiple_choice", "generate_until");
    let generation = |more: &str| Task::from_yaml(&format!("{yaml}{more}"), "t", ".").unwrap().generation;
    let default = generation("");
    assert_eq!(
        (default.until, default.max_gen_toks, default.temperature),
        (vec!["\n\n".to_owned()], 256, 0.0)
    );
    let sampled = generation("generation_kwargs: {until: '.', do_sample: true, max_new_tokens: 3}\n");
    assert_eq!((sampled.until, sampled.max_gen_toks, sampled.temperature), (vec![".".to_owned()], 3, 1.0));
    assert_eq!(generation("generation_kwargs: {do_sample: false, temperature: 0.7}\n").temperature, 0.0);
}

#[test]
fn refusals_say_where_and_what() {
    let with = |line: &str| format!("{SOUND}{line}\n");
    for (yaml, parts) in [
        (with("doc_to_txt: q"), vec!["t.yaml:10: unknown key `doc_to_txt`", "did you mean `doc_to_text`?"]),
        (
            SOUND.replace("doc_to_text: q", "doc_to_text: !function utils.text"),
            vec!["t.yaml:7: `doc_to_text` is `!function utils.text`", "hint:"],
        ),
        (
            with("metric_list: [{metric: acc, aggregation: !function u.mean}]"),
            vec!["`metric_list.aggregation` is `!function u.mean`"],
        ),
        (
            with("process_docs: utils.process"),
            vec!["`process_docs` is not supported", "hint: prepare the rows"],
        ),
        (with("metric_list: [{metric: exact_mach}]"), vec!["did you mean `exact_match`?"]),
        (with("metric_list: [{metric: acc, aggregation: median}]"), vec!["aggregation", "median"]),
        (with("metric_list: []"), vec!["at least one metric"]),
        (with("filter_list: [{name: x, filter: [{function: regex}]}]"), vec!["does not go with"]),
        (with("fewshot_config: {sampler: balanced}"), vec!["`fewshot_config.sampler` is `\"balanced\"`"]),
        (with("fewshot_config: {splt: dev}"), vec!["did you mean `split`?"]),
        (with("generation_kwargs: {max_gen_tokens: 3}"), vec!["did you mean `max_gen_toks`?"]),
        (with("num_fewshot: -1"), vec!["`num_fewshot` is `-1`, expected a whole number"]),
        (with("description: '{{ x'"), vec!["`description`: line 1: syntax error"]),
        (with("fewshot_split: [a]"), vec!["`fewshot_split` is `[\"a\"]`, expected text"]),
        (
            SOUND.replace("json", "GBaker/MedQA"),
            vec!["`dataset_path: GBaker/MedQA` is not a local file format", "hint:"],
        ),
        (SOUND.replace("test_split: test", "test_split: tset"), vec!["no split `tset`", "`test`"]),
        (SOUND.replace("test_split: test", ""), vec!["nothing to evaluate on"]),
        (SOUND.replace("doc_to_choice: [yes, no]", ""), vec!["needs `doc_to_choice`"]),
        (SOUND.replace("task: t\n", ""), vec!["`task` (the task's name) is missing"]),
        (SOUND.replace("multiple_choice", "loglikelihood"), vec!["`multiple_choice` or `generate_until`"]),
        (with("task: again"), vec!["t.yaml:10: not YAML: ", "duplicate"]),
        ("- a\n- b\n".into(), vec!["a YAML mapping"]),
        ("a: [".into(), vec!["not YAML"]),
        ("a: &a [*a]".into(), vec!["not YAML"]),
        (format!("a: {}", "[".repeat(100_000)), vec!["not YAML"]),
    ] {
        let text = error(&yaml);
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in:\n{text}");
        }
    }
}

#[test]
fn found_by_path_by_name_and_with_includes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("deep")).unwrap();
    std::fs::write(at("base.yaml"), SOUND.replace("task: t\n", "")).unwrap();
    std::fs::write(at("deep/one.yaml"), "include: ../base.yaml\ntask: first\ndoc_to_text: other\n").unwrap();
    std::fs::write(at("loop.yaml"), "include: loop.yaml\ntask: looping\n").unwrap();
    std::fs::write(at("broken.yaml"), "task: [").unwrap();
    let include = Some(folder.path());

    let task = Task::load("first", include).unwrap();
    assert_eq!(task.doc_to_text, DocTo::Text("other".into()));
    assert_eq!(Task::load(at("deep/one.yaml").to_str().unwrap(), None).unwrap().name(), "first");
    let names: Vec<_> = list(include).unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["first", "icd10_letter"]);
    assert!(Task::load("frist", include).unwrap_err().to_string().contains("did you mean `first`?"));
    assert!(Task::load(at("loop.yaml").to_str().unwrap(), None).unwrap_err().to_string().contains("a loop?"));
    assert!(Task::load("no.yaml", None).is_err());
    assert_eq!(Task::load("icd10_letter", None).unwrap().name(), "icd10_letter");
}

#[test]
fn fuzz() {
    let mut sound = 0;
    let inputs = galen_testkit::fuzz::run("task", &galen_testkit::fuzz::corpus("task"), |bytes| {
        let task = Task::from_yaml(&String::from_utf8_lossy(bytes), "fuzz", ".");
        sound += usize::from(task.is_ok());
    });
    println!("task: {inputs} inputs, {sound} of them still tasks");
    assert!(sound > 0);
}

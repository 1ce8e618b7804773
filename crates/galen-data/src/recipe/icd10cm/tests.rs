use super::*;

fn fixture() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/fixtures/icd10cm.xml")
}

fn small() -> Recipe {
    Recipe {
        source_sha256: String::new(),
        letters: vec!["A".to_owned(), "H".to_owned()],
        train_per_letter: 1,
        validation_per_letter: 1,
        balanced_per_letter: 1,
        test_fraction: 0.4,
        ..Recipe::default()
    }
}

#[test]
fn the_tabular_list_is_read_in_order() {
    let diagnoses = tabular::read(&fixture()).unwrap();
    assert_eq!(diagnoses.len(), 19);
    let first = &diagnoses[1];
    assert_eq!((&*first.code, &*first.section, &*first.chapter), ("A00.0", "A00-A09", "1"));
    assert_eq!(first.category(), "A00");
    assert_eq!(diagnoses[3].text, "Typhoid & paratyphoid fevers");
}

#[test]
fn near_duplicates_and_ambiguous_texts_go() {
    let words = Recipe::default().variant_words;
    assert_eq!(normalize("Hordeolum externum, LEFT upper-eyelid", &words), "hordeolum externum upper eyelid");
    let (items, distinct) = distinct_items(&tabular::read(&fixture()).unwrap(), &small());
    let texts: Vec<_> = items.iter().map(|i| i.diagnosis.code.as_str()).collect();
    // A00.9 is A00, H00.02 is H00.01, A22 and H17 share a text, B20 and the ear's H60 are no classes.
    let expect =
        ["A00", "A00.0", "A01", "A15", "A17", "A20", "A21", "H00", "H00.01", "H10", "H11", "H15", "H16"];
    assert_eq!(texts, expect);
    assert_eq!(distinct, 14);
}

#[test]
fn parts_share_no_section_and_no_text() {
    let (items, _) = distinct_items(&tabular::read(&fixture()).unwrap(), &small());
    for seed in 0..20 {
        let parts = split(&items, &Recipe { seed, ..small() }).unwrap();
        let sections = |p: &[Item]| p.iter().map(|i| i.diagnosis.section.clone()).collect::<BTreeSet<_>>();
        let texts = |p: &[Item]| p.iter().map(|i| i.normalized.clone()).collect::<BTreeSet<_>>();
        for (a, b) in
            [(&parts.train, &parts.test), (&parts.train, &parts.validation), (&parts.validation, &parts.test)]
        {
            assert!(sections(a).is_disjoint(&sections(b)), "seed {seed}");
            assert!(texts(a).is_disjoint(&texts(b)), "seed {seed}");
        }
        assert_eq!((parts.train.len(), parts.validation.len(), parts.balanced.len()), (2, 2, 2));
        assert!(texts(&parts.balanced).is_subset(&texts(&parts.test)));
    }
}

#[test]
fn files_are_the_same_bytes_every_time() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let summary = build(&fixture(), &small(), a.path()).unwrap();
    assert_eq!(summary, build(&fixture(), &small(), b.path()).unwrap());
    assert_eq!((summary.diagnoses, summary.distinct, summary.ambiguous), (19, 14, 1));
    let names = [
        "train.jsonl",
        "validation.jsonl",
        "test.jsonl",
        "test2.jsonl",
        "icd10_letter.yaml",
        "icd10_letter_full.yaml",
    ];
    for name in names {
        assert_eq!(std::fs::read(a.path().join(name)).unwrap(), std::fs::read(b.path().join(name)).unwrap());
    }
    assert_eq!(std::fs::read_dir(a.path()).unwrap().count(), names.len());
    let first = |name: &str| -> Value {
        let text = std::fs::read_to_string(a.path().join(name)).unwrap();
        serde_json::from_str(text.lines().next().unwrap()).unwrap()
    };
    let train = first("train.jsonl");
    assert!(train["messages"][0]["content"].as_str().unwrap().starts_with(&small().instruction));
    assert!(["A", "H"].contains(&train["messages"][1]["content"].as_str().unwrap()));
    let test = first("test.jsonl");
    assert_eq!(test["prompt"], format!("{}{}", small().instruction, test["diagnosis"].as_str().unwrap()));
    assert_eq!(test["code"].as_str().unwrap()[..1], test["letter"]);
    let task = std::fs::read_to_string(a.path().join("icd10_letter.yaml")).unwrap();
    assert!(task.contains("test: test2.jsonl") && task.contains("doc_to_choice: [\"A\", \"H\"]"), "{task}");
}

#[test]
fn the_published_parameters_are_the_defaults() {
    let text = include_str!("../../../../../datasets/icd10cm.yaml");
    let recipe: Recipe = serde_saphyr::from_str(text).unwrap();
    assert_eq!(recipe, Recipe::default());
}

#[test]
#[ignore = "needs the tabular list: GALEN_ICD10CM_XML=/path/to/icd10c-tabular-April-1-2026.xml"]
fn the_published_data_set_has_its_rows() {
    let xml = std::path::PathBuf::from(std::env::var_os("GALEN_ICD10CM_XML").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let out = std::env::var_os("GALEN_ICD10CM_OUT").map_or(folder.path().to_owned(), Into::into);
    for seed in 2..30 {
        let rows =
            build(&xml, &Recipe { seed, ..Recipe::default() }, folder.path()).unwrap().files["test.jsonl"];
        assert!(rows >= 2400, "seed {seed}: {rows}");
    }
    let summary = build(&xml, &Recipe::default(), &out).unwrap();
    println!("{summary:#?}");
    let rows = |name: &str| summary.files[name];
    assert_eq!((rows("train.jsonl"), rows("validation.jsonl"), rows("test360.jsonl")), (1200, 120, 360));
    assert!(rows("test.jsonl") >= 2400);
    assert_eq!(summary.diagnoses, 46_881);
}

#[test]
fn refusals() {
    let folder = tempfile::tempdir().unwrap();
    let error = |recipe: &Recipe, xml: &Path| build(xml, recipe, folder.path()).unwrap_err().to_string();
    let e = error(&Recipe::default(), &fixture());
    assert!(e.contains("its sha256 is `") && e.contains("hint: the file comes from"), "{e}");
    let e = error(&Recipe { train_per_letter: 50, ..small() }, &fixture());
    assert!(e.contains("letter `A` has `7` of `50` training rows"), "{e}");
    let deep = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
    let long = format!("<diag><name>{}</name></diag>", "x".repeat(9999));
    for (xml, expect) in [
        ("", "it has no diagnoses"),
        ("<chapter>", "the file ends within an element"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><x/>", "a document type definition"),
        ("<diag><name>&a;</name></diag>", "unknown entity `a`"),
        ("<diag><name>A</name><desc>x</desc></diag>", "diagnosis `A` lacks its name, text or section"),
        (&deep, "elements nested deeper than `32`"),
        (&long, "a text of more than `4096` bytes"),
        ("<a></b>", "not the tabular list"),
        ("</b>", "not the tabular list"),
    ] {
        let path = folder.path().join("bad.xml");
        std::fs::write(&path, xml).unwrap();
        let e = error(&small(), &path);
        assert!(e.contains(expect), "{xml}: {e}");
    }
}

#[test]
fn fuzz() {
    let folder = galen_testkit::fuzz::folder();
    let path = folder.path().join("list.xml");
    let mut sound = 0;
    let inputs = galen_testkit::fuzz::run("tabular", &galen_testkit::fuzz::corpus("tabular"), |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let Ok(diagnoses) = tabular::read(&path) else { return };
        assert!(diagnoses.iter().all(|d| !d.code.is_empty() && !d.category().contains('.')));
        let _ = distinct_items(&diagnoses, &small());
        sound += 1;
    });
    println!("tabular: {inputs} inputs, {sound} of them still lists");
    assert!(sound > 0);
}

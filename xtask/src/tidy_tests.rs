//! The tree is in order, and every rule can fail.

use super::*;

#[test]
fn the_tree_is_in_order() {
    super::run().unwrap();
}

fn check(rule: Rule, path: &str, text: &str, expect: Option<&str>) {
    let found = rule(&[File { path: path.into(), text: text.into() }]);
    let texts: Vec<_> = found.iter().map(|f| f.text.as_str()).collect();
    match expect {
        None => assert!(texts.is_empty(), "{texts:?}"),
        Some(expect) => assert!(texts.iter().any(|t| t.contains(expect)), "{expect}: {texts:?}"),
    }
}

#[test]
fn every_rule_can_fail() {
    let manifest = "crates/galen-loss/Cargo.toml";
    check(imports, manifest, "[dependencies]\ngalen-types.workspace = true\n", None);
    check(imports, manifest, "[dev-dependencies]\ngalen-ops.workspace = true\n", None);
    check(
        imports,
        manifest,
        "[dependencies]\ngalen-ops = { path = \"x\" }\n",
        Some("may not import `galen-ops`"),
    );
    check(imports, manifest, "[build-dependencies]\ngalen-data.workspace = true\n", Some("galen-data"));
    check(imports, manifest, "[dependencies]\nanyhow = \"1\"\n", Some("only `galen` imports `anyhow`"));
    check(imports, "crates/galen-endpoint/Cargo.toml", "[dependencies]\nureq = \"3\"\n", None);
    check(imports, manifest, "[dependencies]\nureq = \"3\"\n", Some("only `galen-hub`, `galen-endpoint`"));
    check(imports, "crates/galen-new/Cargo.toml", "", Some("not in the table"));

    let header = "//! Owns: a\n//! b.\n//! Takes: c.\n//! Gives: d.\n//! Never: e.\n";
    check(headers, "crates/galen-x/src/lib.rs", header, None);
    check(headers, "crates/galen-x/src/lib.rs", &header.replace("Gives", "Makes"), Some("Owns/Takes"));
    check(headers, "crates/galen-x/src/lib.rs", "use x;\n", Some("Owns/Takes"));

    let lines = |n: usize| "x\n".repeat(n);
    check(lengths, "a.rs", &lines(400), None);
    assert!(lengths(&[File { path: "a.rs".into(), text: lines(401) }])[0].warning);
    assert!(!lengths(&[File { path: "a.rs".into(), text: lines(801) }])[0].warning);
    let excused = lines(801) + "// tidy: long because it is a table\n";
    assert!(lengths(&[File { path: "a.rs".into(), text: excused }])[0].warning);

    check(no_unsafe, "crates/galen-ops/src/a.rs", "unsafe { x }", None);
    check(no_unsafe, "crates/galen-hub/src/a.rs", "// unsafe { x }", None);
    check(no_unsafe, "crates/galen-hub/src/a.rs", "let y = unsafe { x };", Some("a.rs:1"));

    for (word, _) in FORBIDDEN {
        check(forbidden_words, "README.md", &format!("a\nb {word} c"), Some("README.md:2"));
    }
    check(forbidden_words, "crates/galen/src/a.rs", "\"https://huggingface.co\"", Some("alone"));
    check(forbidden_words, "README.md", "https://huggingface.co/org/repo", None);

    check(goldens_have_scripts, "tests/goldens/a.json", "{}", Some("no script"));
    let script = File { path: "tests/goldens/make.py".into(), text: "open('a.json')".into() };
    let golden = File { path: "tests/goldens/a.json".into(), text: String::new() };
    assert!(goldens_have_scripts(&[script, golden]).is_empty());

    check(workspace_lints, "xtask/Cargo.toml", "[package]\n", Some("is missing"));
    check(workspace_lints, "xtask/Cargo.toml", "[lints]\nworkspace = true\n", None);
}

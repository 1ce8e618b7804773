//! Small cases of every kernel again under AddressSanitizer and UndefinedBehaviorSanitizer, with buffers of exactly
//! their size.

use crate::compile::{compile, kernels, units};
use galen_kernels::{Device, Recorder, checks};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::Command;
use std::rc::Rc;
use std::sync::Mutex;

#[test]
fn small_cases_are_clean() {
    let recorder = Rc::new(RefCell::new(Recorder::default()));
    let device = Device::new().unwrap().with_seeds([5]).recording(Rc::clone(&recorder));
    checks::small(&device).unwrap();
    let all: BTreeSet<String> = device.kernels().into_iter().collect();
    let left: Vec<_> = all.difference(recorder.borrow().kernels()).cloned().collect();
    assert!(left.is_empty(), "no small case of {left:?}");

    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    recorder.borrow().write(&record).unwrap();
    let names = units();
    let table: String = names
        .iter()
        .map(|n| format!("extern \"C\" void galen_unit_{n}();\n"))
        .chain(["extern \"C\" void galen_units() {\n".to_owned()])
        .chain(names.iter().map(|n| format!("    galen_unit_{n}();\n")))
        .chain(["}\n".to_owned()])
        .collect();
    std::fs::write(folder.path().join("table.cpp"), table).unwrap();
    let mut sources = vec![folder.path().join("table.cpp")];
    for name in &names {
        let unit = folder.path().join(format!("{name}.cpp"));
        let include = kernels().join(name).with_extension("cu");
        let text =
            format!("#include \"{}\"\nextern \"C\" void galen_unit_{name}() {{}}\n", include.display());
        std::fs::write(&unit, text).unwrap();
        sources.push(unit);
    }
    sources.extend(["runtime.cpp", "replay.cpp"].map(|n| kernels().join("host").join(n)));
    let flags = [
        "-O1",
        "-g1",
        "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ];
    let objects = Mutex::new(Vec::new());
    let next = Mutex::new(sources);
    let work = || {
        loop {
            let Some(source) = next.lock().unwrap().pop() else { return };
            let object = folder.path().join(source.file_name().unwrap()).with_extension("o");
            let [source, name] = [&source, &object].map(|p| p.to_string_lossy().into_owned());
            compile(&[&flags[..], &["-c", &source, "-o", &name]].concat()).unwrap();
            objects.lock().unwrap().push(name);
        }
    };
    std::thread::scope(|s| (0..2).for_each(|_| drop(s.spawn(work))));
    let program = folder.path().join("replay");
    let name = program.to_string_lossy().into_owned();
    let objects = objects.into_inner().unwrap();
    let mut link: Vec<&str> = flags.to_vec();
    link.extend(objects.iter().map(String::as_str));
    compile(&[&link[..], &["-o", &name]].concat()).unwrap();
    let out = Command::new(&program).arg(&record).output().unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}{wrong}");
    assert_eq!(said.trim(), format!("{} launches", recorder.borrow().launches()));
}

//! Small cases of every kernel again under AddressSanitizer and UndefinedBehaviorSanitizer, with buffers of exactly
//! their size.

use crate::compile::{compile, kernels, units};
use crate::qmatmul::{BASE, Case, Kind};
use crate::{attention, elementwise, qmatmul, training};
use galen_kernels::{Device, Recorder};
use galen_ops::quant::WeightDtype;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::Command;
use std::rc::Rc;
use std::sync::Mutex;

/// The smallest cases that go through every kernel.
fn cases(device: &Device) -> Result<(), String> {
    for dtype in WeightDtype::with_kernels() {
        for (kind, m) in [(Kind::Forward, 3), (Kind::Backward, 3), (Kind::Few, 1), (Kind::Few, 9)] {
            qmatmul::check(device, Case { dtype, kind, m, n: 33, ..BASE })?;
        }
        qmatmul::check_dequantize(device, dtype, 3, 256)?;
        training::check_log_prob(device, dtype, 1.0)?;
    }
    for d in [64, 96, 128, 256] {
        attention::check(
            device,
            &attention::Case { of: vec![(5, None), (1, Some(0))], ..attention::plain(d) },
        )?;
    }
    elementwise::check_rms_norm(device, 2, 72)?;
    elementwise::check_qk_norm(device, 3, 64)?;
    elementwise::check_rope(device, 2, 1, 64)?;
    elementwise::check_gated(device, 24)?;
    elementwise::check_dropout(device, 2, 16)?;
    elementwise::check_plain(device)?;
    training::check_lora_gradient(device, 70, 3, 12, 64)?;
    training::check_adamw(device, 8)?;
    training::check_adamw_8bit(device, 300)?;
    training::check_nf4_quantize(device, 3, 64)
}

#[test]
fn small_cases_are_clean() {
    let recorder = Rc::new(RefCell::new(Recorder::default()));
    let device = Device::new().unwrap().with_seeds([5]).recording(Rc::clone(&recorder));
    cases(&device).unwrap();
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

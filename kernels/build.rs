//! Compiles the kernels and the host runtime with the C++ compiler into one static library. A unit is generated for
//! each `.cu` file, whose function the table of units calls: so the linker keeps every kernel's registration. The headers'
//! machine-readable lines go into a file that the library includes.

use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for part in ["include", "host"] {
        println!("cargo::rerun-if-changed={}", here.join(part).display());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&here)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "cu") {
            println!("cargo::rerun-if-changed={}", path.display());
            names.extend(path.file_stem().map(|n| n.to_string_lossy().into_owned()));
        }
    }
    println!("cargo::rerun-if-changed={}", here.display());
    names.sort();
    let mut lines = String::new();
    for name in &names {
        let text = fs::read_to_string(here.join(name).with_extension("cu"))?;
        let of_manifest =
            |l: &&str| ["// launch: ", "// sass: ", "// roofline: "].iter().any(|k| l.starts_with(k));
        for line in text.lines().filter(of_manifest) {
            lines.push_str(line);
            lines.push('\n');
        }
    }
    write(&out.join("headers.txt"), &lines)?;
    if std::env::var_os("CARGO_FEATURE_HOST").is_none() {
        return Ok(());
    }
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).define("GALEN_HOST", None).warnings(true);
    // Contraction would round once where the device is told to round twice.
    build.flag("-ffp-contract=off").flag("-Wno-unknown-pragmas");
    for name in &names {
        let unit = out.join(format!("{name}.cpp"));
        let text = format!(
            "#include \"{}\"\nextern \"C\" void galen_unit_{name}() {{}}\n",
            here.join(name).with_extension("cu").display()
        );
        write(&unit, &text)?;
        build.file(unit);
    }
    let declared: String = names.iter().map(|n| format!("extern \"C\" void galen_unit_{n}();\n")).collect();
    let called: String = names.iter().map(|n| format!("    galen_unit_{n}();\n")).collect();
    let table = out.join("units.cpp");
    write(&table, &format!("{declared}extern \"C\" void galen_units() {{\n{called}}}\n"))?;
    build.file(table).file(here.join("host/runtime.cpp"));
    build.compile("galen_kernels");
    Ok(())
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) { Ok(()) } else { fs::write(path, text) }
}

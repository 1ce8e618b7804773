//! Recipes that build data sets from public sources. Each is one module; its parameters are a YAML file in
//! `datasets/`, its source an entry of `datasets/MANIFEST.toml`.

pub mod icd10cm;

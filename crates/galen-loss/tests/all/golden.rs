//! Reading the golden files, and comparing.

use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;

/// Numbers that equal TRL's lie this close, relative to TRL's. Where TRL narrows to f32 (alpha divergence,
/// odds ratio) its own rounding is what differs.
const RELATIVE: f64 = 1e-5;
/// For numbers that are nearly 0. Gradients here are of the order of 0.01 to 1.
const ABSOLUTE: f64 = 1e-7;

pub struct Golden {
    bytes: Vec<u8>,
    metadata: Value,
}

impl Golden {
    pub fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = serde_json::from_str(&header.metadata().as_ref().unwrap()["golden"]).unwrap();
        Self { bytes, metadata }
    }

    /// A value of the header.
    pub fn json(&self, key: &str) -> Value {
        self.metadata[key].clone()
    }

    /// Names of metrics.
    pub fn names(&self, key: &str) -> Vec<String> {
        serde_json::from_value(self.json(key)).unwrap()
    }

    /// Variants and their settings whose names begin with `prefix`.
    pub fn variants(&self, prefix: &str) -> Vec<(String, Value)> {
        let all = self.json("variants");
        let all = all.as_object().unwrap().iter();
        let found: Vec<_> =
            all.filter(|(n, _)| n.starts_with(prefix)).map(|(n, v)| (n.clone(), v.clone())).collect();
        assert!(!found.is_empty(), "{prefix}");
        found
    }

    /// All numbers of a tensor.
    pub fn numbers(&self, name: &str) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap();
        let data = tensor.data();
        match tensor.dtype() {
            safetensors::Dtype::F64 => {
                data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
            }
            safetensors::Dtype::F32 => {
                data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
            }
            safetensors::Dtype::I32 => {
                data.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()).into()).collect()
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    pub fn f32s(&self, name: &str) -> Vec<f32> {
        self.numbers(name).into_iter().map(|v| v as f32).collect()
    }

    pub fn counts(&self, name: &str) -> Vec<usize> {
        self.numbers(name).into_iter().map(|v| v as usize).collect()
    }

    /// Sequences of all cases: `[case][row][token]`.
    pub fn sequences(&self, name: &str, lengths: &str) -> Vec<Vec<Vec<f32>>> {
        let mut values = self.f32s(name).into_iter();
        let mut lengths = self.counts(lengths).into_iter();
        let mut take = |n: usize| values.by_ref().take(n).collect::<Vec<f32>>();
        let cases = self.counts("rows");
        let found: Vec<Vec<Vec<f32>>> =
            cases.iter().map(|rows| lengths.by_ref().take(*rows).map(&mut take).collect()).collect();
        assert!(lengths.next().is_none() && values.next().is_none(), "{name}");
        found
    }
}

/// Slices of the sequences of a case.
pub fn slices(sequences: &[Vec<f32>]) -> Vec<&[f32]> {
    sequences.iter().map(Vec::as_slice).collect()
}

pub fn near(found: f64, wanted: f64, what: &str) {
    assert!(
        (found - wanted).abs() <= RELATIVE * wanted.abs() + ABSOLUTE,
        "{what}: {found} for TRL's {wanted}"
    );
}

/// Elementwise, so that a NaN fails.
pub fn all_near(found: &[Vec<f32>], wanted: &[Vec<f32>], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert_eq!(found.len(), wanted.len(), "{what}[{i}]");
        for (t, (f, w)) in found.iter().zip(wanted).enumerate() {
            near(f64::from(*f), f64::from(*w), &format!("{what}[{i}][{t}]"));
        }
    }
}

/// Metrics of one case; NaN stands for one that TRL does not log.
pub fn same_metrics(found: &galen_loss::Metrics, names: &[String], wanted: &[f64], what: &str) {
    assert_eq!(names.len(), wanted.len());
    for (name, wanted) in names.iter().zip(wanted) {
        match found.get(name) {
            Some(found) => near(found, *wanted, &format!("{what}: {name}")),
            None => assert!(wanted.is_nan(), "{what}: {name} is missing, TRL has {wanted}"),
        }
    }
}

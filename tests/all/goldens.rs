//! Reading committed goldens.

use safetensors::{Dtype, SafeTensors};
use std::path::PathBuf;

/// A path below `tests/goldens`.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name)
}

/// A safetensors file of goldens.
pub struct Golden(Vec<u8>);

impl Golden {
    pub fn open(name: &str) -> Self {
        Self(std::fs::read(path(name)).unwrap_or_else(|e| panic!("{name}: {e}")))
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).expect("a golden file is safetensors")
    }

    /// Values as f64, whatever the dtype.
    pub fn f64s(&self, key: &str) -> Vec<f64> {
        let file = self.file();
        let t = file.tensor(key).unwrap_or_else(|e| panic!("{key}: {e}"));
        let d = t.data();
        match t.dtype() {
            Dtype::F32 => d.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::F64 => d.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::I32 => d.as_chunks().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect(),
            Dtype::U8 => d.iter().map(|b| f64::from(*b)).collect(),
            other => panic!("{key} has dtype {other:?}"),
        }
    }

    pub fn f32s(&self, key: &str) -> Vec<f32> {
        self.f64s(key).into_iter().map(|x| x as f32).collect()
    }

    pub fn ids(&self, key: &str) -> Vec<u32> {
        self.f64s(key).into_iter().map(|x| x as u32).collect()
    }
}

/// Elementwise; NaN fails.
pub fn assert_close(
    name: &str,
    got: impl IntoIterator<Item = f64>,
    want: impl IntoIterator<Item = f64>,
    tol: f64,
) {
    let (got, want): (Vec<f64>, Vec<f64>) = (got.into_iter().collect(), want.into_iter().collect());
    assert_eq!(got.len(), want.len(), "{name}: lengths");
    let mut worst = (0, 0.0f64);
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        let d = (g - w).abs();
        assert!(d <= tol, "{name}[{i}]: {g} for {w} (difference {d:e}, tolerance {tol:e})");
        if d > worst.1 {
            worst = (i, d);
        }
    }
    println!("{name}: {} values, largest difference {:e} at {}", got.len(), worst.1, worst.0);
}

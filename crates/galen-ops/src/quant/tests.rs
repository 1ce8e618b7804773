//! Contracts every format keeps, and goldens made by the formats' own authors.

use super::*;
use crate::mmap::Bytes;

/// Bytes without pattern; the same for the same seed.
fn noise(mut seed: u64, len: usize) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
}

#[test]
fn the_registry_is_in_the_order_of_the_enum() {
    for (i, format) in FORMATS.iter().enumerate() {
        assert_eq!(format.dtype as usize, i, "{}", format.name);
        assert_eq!(
            (format.dtype.block_size(), format.dtype.block_bytes()),
            (format.block_size, format.block_bytes)
        );
        if let Some(id) = format.ggml_id {
            assert_eq!(WeightDtype::from_ggml(id).unwrap(), format.dtype);
            assert!(!UNSUPPORTED.iter().any(|(other, _)| *other == id));
        }
    }
}

#[test]
fn unsupported_types_are_named() {
    for (id, name) in [(16, "IQ2_XXS"), (34, "TQ1_0"), (39, "MXFP4"), (4000, "unknown")] {
        let error = WeightDtype::from_ggml(id).unwrap_err().to_string();
        assert!(error.starts_with(&format!("tensor type `{name}`")) && error.contains("hint: "), "{error}");
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for format in FORMATS {
        let bytes = noise(7, 4 * format.block_bytes * 37);
        let n = bytes.len() / format.block_bytes * format.block_size;
        let (mut wide, mut plain) = (vec![0.0; n], vec![0.0; n]);
        (format.dequantize)(&bytes, &mut wide);
        dequantize_inline(format.dtype, &bytes, &mut plain);
        assert!(same(&wide, &plain), "{}", format.name);
    }
}

#[test]
fn ranges_are_parts_of_the_row() {
    for format in FORMATS.iter().filter(|f| f.dtype != WeightDtype::Nf4) {
        let cols = 3 * format.block_size.max(32);
        let width = format.dtype.row_bytes(cols).unwrap();
        let bytes = noise(3, 2 * width);
        let matrix = QuantMatrix::new(format.dtype, 2, cols, Bytes::from(bytes.clone())).unwrap();
        let mut row = vec![0.0; cols];
        dequantize(format.dtype, &bytes[width..], &mut row).unwrap();
        for (first, len) in [(0, cols), (0, 1), (cols / 3, cols / 3), (5, cols - 9), (cols - 1, 1), (cols, 0)]
        {
            let mut out = vec![0.0; len];
            matrix.dequantize_block(1, first, &mut out);
            assert!(same(&out, &row[first..first + len]), "{} {first} {len}", format.name);
            out.fill(0.0);
            matrix.dequantize_block_inline(1, first, &mut out);
            assert!(same(&out, &row[first..first + len]), "{} {first} {len} inline", format.name);
            out.fill(0.0);
            dequantize_range(format.dtype, &bytes[width..], first, &mut out).unwrap();
            assert!(same(&out, &row[first..first + len]), "{} {first} {len} range", format.name);
        }
        assert!(dequantize_range(format.dtype, &bytes, 2 * cols, &mut [0.0]).is_err());
    }
}

#[test]
fn wrong_sizes_are_refused() {
    for format in FORMATS {
        let dtype = format.dtype;
        let (size, width) = (format.block_size, format.block_bytes);
        let new = |rows, cols, len| QuantMatrix::new(dtype, rows, cols, Bytes::from(vec![0; len]));
        assert_eq!(new(3, size, 3 * width).is_ok(), dtype != WeightDtype::Nf4);
        assert!(new(3, size, 3 * width - 1).is_err());
        assert!(new(3, size, 3 * width + 1).is_err());
        assert!(new(usize::MAX, size, width).is_err());
        assert!(new(usize::MAX / size, usize::MAX / size * size, width).is_err());
        if size > 1 {
            assert!(new(1, size + 1, width).is_err());
            assert!(dequantize(dtype, &vec![0; width], &mut vec![0.0; size - 1]).is_err());
        }
    }
}

#[test]
fn rows_can_be_reordered_without_loss() {
    let dtype = WeightDtype::Q4_1;
    let matrix = QuantMatrix::new(dtype, 4, 64, Bytes::from(noise(1, 4 * 40))).unwrap();
    let turned = matrix.select_rows([2, 0, 3]).unwrap();
    let (all, some) = (matrix.to_f32(), turned.to_f32());
    assert!(same(&some, &[&all[128..192], &all[..64], &all[192..]].concat()));
    assert!(matrix.select_rows([4]).is_err());
}

#[test]
fn nf4_blocks_of_any_shape_decode_by_range() {
    // 100 columns: blocks of 64 straddle rows and the last is short.
    let values: Vec<f32> = noise(5, 700).iter().map(|b| f32::from(*b) / 100.0 - 1.3).collect();
    let matrix = QuantMatrix::quantize_nf4(7, 100, &values).unwrap();
    let all = matrix.to_f32();
    for (i, (got, want)) in all.iter().zip(&values).enumerate() {
        // Widest gap between levels is 0.3039 of a magnitude of at most 1.3; the magnitude itself is off by < 1 %.
        assert!((got - want).abs() <= 1.3 * (0.152 + 0.01), "{i}: {got} {want}");
    }
    for (row, first, len) in [(0, 0, 100), (3, 28, 64), (3, 27, 66), (6, 90, 10), (6, 99, 1)] {
        let mut out = vec![0.0; len];
        matrix.dequantize_block(row, first, &mut out);
        assert!(same(&out, &all[row * 100 + first..][..len]), "{row} {first} {len}");
    }
    assert_eq!(matrix.nbytes(), 350 + 11 + 4 + 4);
}

/// Tensors made by gguf-py and bitsandbytes (`tests/goldens/quant.py`).
struct Goldens(Vec<u8>);

impl Goldens {
    fn open() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/quant.safetensors");
        Self(std::fs::read(path).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).unwrap().data().to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

#[test]
fn every_format_decodes_to_the_bits_of_gguf_py() {
    let goldens = Goldens::open();
    for format in FORMATS.iter().filter(|f| f.dtype != WeightDtype::F32 && f.dtype != WeightDtype::Nf4) {
        let bytes = goldens.bytes(&format!("{}.bytes", format.name));
        let want = goldens.floats(&format!("{}.values", format.name));
        let mut got = vec![0.0; want.len()];
        dequantize(format.dtype, &bytes, &mut got).unwrap();
        let wrong = got.iter().zip(&want).position(|(g, w)| g.to_bits() != w.to_bits());
        assert_eq!(
            wrong,
            None,
            "{}: {:?} against {:?}",
            format.name,
            wrong.map(|i| got[i]),
            wrong.map(|i| want[i])
        );
    }
}

#[test]
fn nf4_equals_bitsandbytes() {
    let goldens = Goldens::open();
    let source = goldens.floats("nf4.source");
    let (codes, scales) = quantize_nf4(&source);
    assert_eq!(codes, goldens.bytes("nf4.dq.codes"));
    let offset = goldens.floats("nf4.dq.offset")[0];
    assert!((scales.offset - offset).abs() <= 2e-7 * offset, "{} {offset}", scales.offset);
    for (got, want) in scales.scale.iter().zip(goldens.floats("nf4.dq.absmax")) {
        assert!((got - want).abs() <= 1e-6 * want, "{got} {want}");
    }
    // bitsandbytes' CPU kernel is one off the nearest code here and there; ours is the nearest.
    let theirs = goldens.bytes("nf4.dq.absmax_codes");
    let off = scales.absmax.iter().zip(&theirs).filter(|(a, b)| a != b).count();
    let far = scales.absmax.iter().zip(&theirs).filter(|(a, b)| a.abs_diff(**b) > 1).count();
    assert!(off <= 4 && far == 0, "{off} of {} codes differ, {far} by more than one", theirs.len());

    // Their codes and magnitudes give their values.
    let theirs = Nf4Scales { absmax: theirs.into(), scale: goldens.floats("nf4.dq.absmax").into(), offset };
    let matrix = QuantMatrix::new_nf4(80, 256, Bytes::from(goldens.bytes("nf4.dq.codes")), theirs).unwrap();
    for (i, (got, want)) in matrix.to_f32().iter().zip(goldens.floats("nf4.dq.values")).enumerate() {
        assert!((got - want).abs() <= 1e-7, "{i}: {got} {want}");
    }
}

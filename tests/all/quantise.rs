//! Our quantiser against ggml's.

use crate::goldens::Golden;
use galen_ops::mmap::Bytes;
use galen_ops::quant::{QuantMatrix, WeightDtype, dequantize, quantize};

const DTYPES: [WeightDtype; 8] = [
    WeightDtype::Q4_0,
    WeightDtype::Q4_1,
    WeightDtype::Q5_0,
    WeightDtype::Q5_1,
    WeightDtype::Q8_0,
    WeightDtype::Q4_K,
    WeightDtype::Q5_K,
    WeightDtype::Q6_K,
];

fn rmse(dtype: WeightDtype, values: &[f32]) -> f64 {
    let blocks = quantize(dtype, 256, values).expect("the values fit");
    let mut back = vec![0f32; values.len()];
    dequantize(dtype, &blocks, &mut back).expect("whole blocks");
    let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
    (values.iter().zip(&back).map(square).sum::<f64>() / values.len() as f64).sqrt()
}

#[test]
fn errors_are_at_most_those_of_ggml() {
    let golden = Golden::open("quantise.safetensors");
    let values = golden.f32s("values");
    for dtype in DTYPES {
        let (ours, theirs) = (rmse(dtype, &values), golden.f64s(&format!("{dtype}.rmse"))[0]);
        println!("{dtype}: {ours:.3e}, ggml {theirs:.3e}: {:.3}", ours / theirs);
        assert!(ours <= 1.02 * theirs, "{dtype}: {ours} instead of {theirs}");
    }
}

#[test]
fn tiny_weights_keep_their_sub_blocks() {
    // Below 6e-5 a half is subnormal (and from some 3e-8 on nothing): a scale of scales may be rounded down by more than the last integer makes up for.
    let values = Golden::open("quantise.safetensors").f32s("values");
    let size =
        (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt() as f32;
    for sigma in [4e-4, 2e-4] {
        let values: Vec<f32> = values.iter().map(|v| v / size * sigma).collect();
        for dtype in [WeightDtype::Q4_K, WeightDtype::Q5_K] {
            for (i, block) in values.chunks_exact(256).enumerate() {
                let size = (block.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 256.0).sqrt();
                if size < f64::from(sigma) / 2.0 {
                    continue;
                }
                let relative = rmse(dtype, block) / size;
                assert!(relative < 0.2, "{dtype}, sigma {sigma}, block {i}: {relative}");
            }
        }
    }
}

#[test]
fn q8_0_has_ggmls_bits() {
    let golden = Golden::open("quantise.safetensors");
    let blocks = quantize(WeightDtype::Q8_0, 256, &golden.f32s("values")).expect("the values fit");
    let theirs: Vec<u8> = golden.f64s("Q8_0.blocks").iter().map(|b| *b as u8).collect();
    assert!(blocks == theirs);
}

#[test]
fn products_read_what_was_written() {
    let values = Golden::open("quantise.safetensors").f32s("values");
    for dtype in DTYPES {
        let blocks = quantize(dtype, 256, &values).expect("the values fit");
        let matrix = QuantMatrix::new(dtype, 48, 256, Bytes::from(blocks.clone())).expect("whole rows");
        let mut whole = vec![0f32; values.len()];
        dequantize(dtype, &blocks, &mut whole).expect("whole blocks");
        assert_eq!(matrix.to_f32(), whole, "{dtype}");
    }
}

#[test]
fn values_without_a_block_are_refused() {
    for (dtype, value) in
        [(WeightDtype::Q4_K, f32::NAN), (WeightDtype::F16, 1e6), (WeightDtype::F32, f32::INFINITY)]
    {
        assert!(quantize(dtype, 256, &[value; 256]).is_err(), "{dtype} {value}");
    }
    assert!(quantize(WeightDtype::Q4_K, 32, &[0.0; 32]).is_err(), "a row shorter than a block");
    assert!(quantize(WeightDtype::Q2_K, 256, &[0.0; 256]).is_err(), "a type that is not written");
    for dtype in DTYPES {
        let zeros = quantize(dtype, 256, &[0.0; 256]).expect("zeros fit");
        let mut back = [1f32; 256];
        dequantize(dtype, &zeros, &mut back).expect("whole blocks");
        assert_eq!(back, [0.0; 256], "{dtype}");
    }
}

//! What a library of products computes, in plain loops: the host's stand-in for cuBLAS.

use galen_ops::device::{Gemm, Number, Way};
use half::bf16;

/// What y's buffer holds afterwards. Errors: a matrix that does not lie in its buffer.
pub fn plain(product: &Gemm<Vec<u8>>) -> Result<Vec<u8>, String> {
    let Gemm { way, m, out, inner, x, w, y, number, accumulate } = *product;
    let (w_rows, w_cols) = if way == Way::Forward { (out, inner) } else { (inner, out) };
    let x = matrix("x", x, m, inner)?;
    let w = matrix("w", w, w_rows, w_cols)?;
    let (before, first, stride) = y;
    let mut found = before.clone();
    for i in 0..m {
        for o in 0..out {
            let of_w = |j: usize| if way == Way::Forward { w[o * inner + j] } else { w[j * out + o] };
            let sum: f32 = (0..inner).map(|j| x[i * inner + j] * of_w(j)).sum();
            let at = first + (i * stride + o) * number.bytes();
            let place = found.get_mut(at..at + number.bytes()).ok_or("y does not lie in its buffer")?;
            match *place {
                [a, b] => {
                    let old = if accumulate { bf16::from_le_bytes([a, b]).to_f32() } else { 0.0 };
                    place.copy_from_slice(&bf16::from_f32(old + sum).to_le_bytes());
                }
                [a, b, c, d] if number == Number::F32 => {
                    let old = if accumulate { f32::from_le_bytes([a, b, c, d]) } else { 0.0 };
                    place.copy_from_slice(&(old + sum).to_le_bytes());
                }
                _ => return Err("numbers of another size".to_owned()),
            }
        }
    }
    Ok(found)
}

/// The values of a bf16 matrix without what lies between its rows.
fn matrix(
    name: &str,
    (bytes, first, stride): (&Vec<u8>, usize, usize),
    rows: usize,
    cols: usize,
) -> Result<Vec<f32>, String> {
    if stride < cols {
        return Err(format!("{name}: rows of {cols} every {stride}"));
    }
    let mut values = Vec::with_capacity(rows * cols);
    for row in 0..rows {
        let at = first + 2 * row * stride;
        let row = bytes.get(at..at + 2 * cols).ok_or_else(|| format!("{name} does not lie in its buffer"))?;
        values.extend(row.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()));
    }
    Ok(values)
}

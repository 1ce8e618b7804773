//! Some rows of a matrix.

use super::{Argument, Backend, DeviceMatrix, Number, int_bytes, ints};
use crate::error::{Result, shape_error};

/// y `[N, C]` f32, `y_i = x[rows_i]`, of x `[T, C]` f32. Errors: a row that is not there.
pub fn gather_rows<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    rows: &[u32],
) -> Result<DeviceMatrix<B>> {
    let (tokens, c) = whole(x)?;
    check(rows, tokens)?;
    let y = DeviceMatrix::new(on, rows.len(), c, Number::F32)?;
    if !rows.is_empty() {
        let index = on.upload(&int_bytes(&rows.iter().map(|r| *r as i32).collect::<Vec<_>>()))?;
        let args = [x.read(), Argument::Read(&index, 0), Argument::Int(c), y.write()];
        on.launch("gather_rows", [rows.len(), 1, 1], &args)?;
    }
    Ok(y)
}

/// dx `[T, C]` f32: `dx[rows_i] += dy_i` from zeros, in the order of the rows.
pub fn scatter_rows<B>(
    on: &impl Backend<Buffer = B>,
    dy: &DeviceMatrix<B>,
    rows: &[u32],
    tokens: usize,
) -> Result<DeviceMatrix<B>> {
    let (n, c) = whole(dy)?;
    check(rows, tokens)?;
    if n != rows.len() {
        return shape_error("select_rows", format!("{n} gradients of {} rows", rows.len()));
    }
    let dx = DeviceMatrix::new(on, tokens, c, Number::F32)?;
    if tokens == 0 {
        return Ok(dx);
    }
    let mut order: Vec<i32> = (0..n as i32).collect();
    order.sort_by_key(|i| rows[*i as usize]);
    let mut offsets = vec![0i32; tokens + 1];
    rows.iter().for_each(|r| offsets[*r as usize + 1] += 1);
    (1..offsets.len()).for_each(|i| offsets[i] += offsets[i - 1]);
    let (offsets, order) = (on.upload(&int_bytes(&offsets))?, on.upload(&int_bytes(&order))?);
    let mut args = vec![dy.read(), Argument::Read(&offsets, 0), Argument::Read(&order, 0)];
    args.extend([Argument::Int(c), dx.write()]);
    on.launch("scatter_rows", [tokens, 1, 1], &args)?;
    Ok(dx)
}

fn whole<B>(x: &DeviceMatrix<B>) -> Result<(usize, usize)> {
    x.expect("select_rows", x.rows, x.cols, Number::F32)?;
    ints("select_rows", &[x.rows, x.cols])?;
    if x.stride == x.cols {
        return Ok((x.rows, x.cols));
    }
    shape_error("select_rows", format!("{} columns are not whole pieces of 8", x.cols))
}

fn check(rows: &[u32], tokens: usize) -> Result<()> {
    match rows.iter().find(|r| **r as usize >= tokens) {
        Some(row) => shape_error("select_rows", format!("row `{row}` of `{tokens}`")),
        None => ints("select_rows", &[rows.len(), tokens]),
    }
}

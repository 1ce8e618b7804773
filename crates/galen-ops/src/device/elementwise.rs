//! Operations bound by memory.

use super::{Argument, Backend, DeviceMatrix, Number, bytes, ints};
use crate::error::{Result, shape_error};
use crate::ops::Activation;

/// Errors: rows with gaps, where a kernel goes over all elements.
fn whole<B>(op: &'static str, x: &DeviceMatrix<B>) -> Result<usize> {
    if x.stride != x.cols {
        return shape_error(op, format!("{} columns are not whole pieces of 8", x.cols));
    }
    bytes(op, &[x.rows, x.cols])
}

/// bf16 of `scale x`.
pub fn to_bf16<B>(on: &impl Backend<Buffer = B>, x: &DeviceMatrix<B>, scale: f32) -> Result<DeviceMatrix<B>> {
    x.expect("to_bf16", x.rows, x.cols, Number::F32)?;
    let y = DeviceMatrix::new(on, x.rows, x.cols, Number::Bf16)?;
    let n = x.rows * x.stride;
    if n > 0 {
        let args = [x.read(), Argument::Float(scale), Argument::Long(n as u64), y.write()];
        on.launch("cast_bf16", [n.div_ceil(8 * 256), 1, 1], &args)?;
    }
    Ok(y)
}

/// `a + b` in the number of a, which is f32 where b is.
pub fn sum<B>(
    on: &impl Backend<Buffer = B>,
    a: &DeviceMatrix<B>,
    b: &DeviceMatrix<B>,
) -> Result<DeviceMatrix<B>> {
    let number = if b.number == Number::F32 { Number::F32 } else { a.number };
    a.expect("add", b.rows, b.cols, number)?;
    let y = DeviceMatrix::new(on, a.rows, a.cols, number)?;
    add(on, a, b, &y)?;
    Ok(y)
}

/// `a += b`, of the same numbers.
pub(super) fn add_to<B>(
    on: &impl Backend<Buffer = B>,
    a: &DeviceMatrix<B>,
    b: &DeviceMatrix<B>,
) -> Result<()> {
    a.expect("add", b.rows, b.cols, Number::F32)?;
    // Each thread reads what it writes before it does.
    add(on, a, b, a)
}

fn add<B>(
    on: &impl Backend<Buffer = B>,
    a: &DeviceMatrix<B>,
    b: &DeviceMatrix<B>,
    y: &DeviceMatrix<B>,
) -> Result<()> {
    let n = bytes("add", &[a.rows, a.stride])?;
    if n == 0 {
        return Ok(());
    }
    let kernel = match (a.number, b.number) {
        (Number::Bf16, _) => "add_both_bf16",
        (Number::F32, Number::Bf16) => "add_bf16",
        (Number::F32, Number::F32) => "add_f32",
    };
    let args = [a.read(), b.read(), Argument::Long(n as u64), y.write()];
    on.launch(kernel, [n.div_ceil(8 * 256), 1, 1], &args)
}

/// The sum of the residual stream x f32 and a branch bf16 (x itself is meant where there is none), and its norm bf16.
pub fn rms_norm_forward<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    branch: Option<&DeviceMatrix<B>>,
    (weight, eps): (&B, f32),
) -> Result<(Option<DeviceMatrix<B>>, DeviceMatrix<B>)> {
    let (rows, c) = (x.rows, x.cols);
    x.expect("rms_norm", rows, c, Number::F32)?;
    whole("rms_norm", x)?;
    ints("rms_norm", &[rows, c])?;
    let y = DeviceMatrix::new(on, rows, c, Number::Bf16)?;
    let r = match branch {
        Some(b) => {
            b.expect("rms_norm", rows, c, Number::Bf16)?;
            Some(DeviceMatrix::new(on, rows, c, Number::F32)?)
        }
        None => None,
    };
    if rows > 0 {
        let args = [
            x.read(),
            branch.map_or(Argument::Null, DeviceMatrix::read),
            Argument::Read(weight, 0),
            Argument::Float(eps),
            Argument::Int(c),
            r.as_ref().map_or(Argument::Null, DeviceMatrix::write),
            y.write(),
        ];
        on.launch("rms_norm_forward", [rows, 1, 1], &args)?;
    }
    Ok((r, y))
}

/// The gradient f32 of the residual stream r: of its norm, and what else flows in.
pub fn rms_norm_backward<B>(
    on: &impl Backend<Buffer = B>,
    r: &DeviceMatrix<B>,
    (weight, eps): (&B, f32),
    dy: &DeviceMatrix<B>,
    dr: Option<&DeviceMatrix<B>>,
) -> Result<DeviceMatrix<B>> {
    let (rows, c) = (r.rows, r.cols);
    r.expect("rms_norm", rows, c, Number::F32)?;
    dy.expect("rms_norm", rows, c, Number::Bf16)?;
    whole("rms_norm", r)?;
    ints("rms_norm", &[rows, c])?;
    if let Some(dr) = dr {
        dr.expect("rms_norm", rows, c, Number::F32)?;
    }
    let dx = DeviceMatrix::new(on, rows, c, Number::F32)?;
    if rows > 0 {
        let args = [
            r.read(),
            Argument::Read(weight, 0),
            Argument::Float(eps),
            Argument::Int(c),
            dy.read(),
            dr.map_or(Argument::Null, DeviceMatrix::read),
            dx.write(),
        ];
        on.launch("rms_norm_backward", [rows, 1, 1], &args)?;
    }
    Ok(dx)
}

/// Errors: heads that do not divide rows of x without gaps, or the kernels' pieces.
fn heads<B>(x: &DeviceMatrix<B>, d: usize) -> Result<usize> {
    x.expect("head_norm", x.rows, x.cols, Number::Bf16)?;
    if d == 0 || !d.is_multiple_of(8) || !x.cols.is_multiple_of(d) {
        return shape_error("head_norm", format!("heads of {d} in rows of {}", x.cols));
    }
    let rows = whole("head_norm", x)? / d;
    ints("head_norm", &[rows, d])?;
    Ok(rows)
}

/// The norm of each head of `d` values of x bf16 (or of whole rows, where `d` is their width): bf16.
pub fn head_norm_forward<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    (weight, eps): (&B, f32),
    d: usize,
) -> Result<DeviceMatrix<B>> {
    let rows = heads(x, d)?;
    let y = DeviceMatrix::new(on, x.rows, x.cols, Number::Bf16)?;
    if rows > 0 {
        let args = [
            x.read(),
            Argument::Read(weight, 0),
            Argument::Float(eps),
            Argument::Int(d),
            Argument::Int(rows),
            y.write(),
        ];
        on.launch("qk_norm_forward", [rows.div_ceil(8), 1, 1], &args)?;
    }
    Ok(y)
}

/// The gradient bf16 of x.
pub fn head_norm_backward<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    (weight, eps): (&B, f32),
    dy: &DeviceMatrix<B>,
    d: usize,
) -> Result<DeviceMatrix<B>> {
    let rows = heads(x, d)?;
    dy.expect("head_norm", x.rows, x.cols, Number::Bf16)?;
    let dx = DeviceMatrix::new(on, x.rows, x.cols, Number::Bf16)?;
    if rows > 0 {
        let args = [
            x.read(),
            Argument::Read(weight, 0),
            Argument::Float(eps),
            Argument::Int(d),
            Argument::Int(rows),
            dy.read(),
            dx.write(),
        ];
        on.launch("qk_norm_backward", [rows.div_ceil(8), 1, 1], &args)?;
    }
    Ok(dx)
}

/// x with heads of `d` rotated by angles whose cosines and sines `[T, d / 2]` are given; back with `sign` -1.
pub fn rope<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    (cos, sin): (&B, &B),
    d: usize,
    sign: f32,
) -> Result<DeviceMatrix<B>> {
    x.expect("rope", x.rows, x.cols, Number::Bf16)?;
    if d == 0 || !d.is_multiple_of(16) || !x.cols.is_multiple_of(d) {
        return shape_error("rope", format!("heads of {d} in rows of {}", x.cols));
    }
    ints("rope", &[x.rows, x.stride])?;
    let y = DeviceMatrix::new(on, x.rows, x.cols, Number::Bf16)?;
    let n = x.rows * x.cols;
    if n == 0 {
        return Ok(y);
    }
    let args = [
        x.read(),
        Argument::Read(cos, 0),
        Argument::Read(sin, 0),
        Argument::Int(x.rows),
        Argument::Int(x.cols / d),
        Argument::Int(d),
        Argument::Int(x.stride),
        Argument::Float(sign),
        y.write(),
    ];
    on.launch("rope", [n.div_ceil(16 * 256), 1, 1], &args)?;
    Ok(y)
}

fn kind<'a, B>(activation: Activation) -> Argument<'a, B> {
    Argument::Int(match activation {
        Activation::Silu => 0,
        Activation::GeluTanh => 1,
    })
}

/// `act(gate) up`.
pub fn gated_forward<B>(
    on: &impl Backend<Buffer = B>,
    activation: Activation,
    gate: &DeviceMatrix<B>,
    up: &DeviceMatrix<B>,
) -> Result<DeviceMatrix<B>> {
    gate.expect("gated", up.rows, up.cols, Number::Bf16)?;
    up.expect("gated", up.rows, up.cols, Number::Bf16)?;
    let n = whole("gated", up)?;
    let y = DeviceMatrix::new(on, up.rows, up.cols, Number::Bf16)?;
    if n > 0 {
        let args = [gate.read(), up.read(), Argument::Long(n as u64), kind(activation), y.write()];
        on.launch("gated_forward", [n.div_ceil(8 * 256), 1, 1], &args)?;
    }
    Ok(y)
}

/// d gate and d up.
pub fn gated_backward<B>(
    on: &impl Backend<Buffer = B>,
    activation: Activation,
    (gate, up): (&DeviceMatrix<B>, &DeviceMatrix<B>),
    dy: &DeviceMatrix<B>,
) -> Result<[DeviceMatrix<B>; 2]> {
    for x in [gate, up, dy] {
        x.expect("gated", up.rows, up.cols, Number::Bf16)?;
    }
    let n = whole("gated", up)?;
    let new = || DeviceMatrix::new(on, up.rows, up.cols, Number::Bf16);
    let found = [new()?, new()?];
    if n > 0 {
        let args = [
            gate.read(),
            up.read(),
            dy.read(),
            Argument::Long(n as u64),
            kind(activation),
            found[0].write(),
            found[1].write(),
        ];
        on.launch("gated_backward", [n.div_ceil(8 * 256), 1, 1], &args)?;
    }
    Ok(found)
}

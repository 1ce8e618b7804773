//! Some rows of a matrix: what a head reads that looks at few tokens.

use crate::device::{Accelerator, DeviceTensor};
use crate::error::{Result, shape_error};
use crate::ops::on_device;
use crate::tape::{Launched, Op, Saved};
use crate::tensor::{dims2, f32_tensor, f32_view};
use candle_core::Tensor;
use std::sync::Arc;

/// Input x `[T, C]`, output y `[N, C]`: `y_i = x[rows_i]`. A row may be taken several times; its gradients add up.
pub struct SelectRows {
    /// Which rows.
    pub rows: Arc<[u32]>,
}

impl Op for SelectRows {
    fn name(&self) -> &'static str {
        "select_rows"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let [x] = inputs else { return shape_error("select_rows", "takes one input") };
        let (tokens, c) = dims2("select_rows", x)?;
        if let Some(row) = self.rows.iter().find(|r| **r as usize >= tokens) {
            return shape_error("select_rows", format!("row `{row}` of `{tokens}`"));
        }
        let view = f32_view(x)?;
        let mut y = Vec::with_capacity(self.rows.len() * c);
        self.rows.iter().for_each(|r| y.extend_from_slice(&view[*r as usize * c..(*r as usize + 1) * c]));
        // The second remembers T.
        Ok((vec![f32_tensor(y, (self.rows.len(), c))?], vec![f32_tensor(vec![], (0, tokens))?]))
    }

    /// `dx[rows_i] += dy_i`.
    fn backward(&self, saved: &Saved, grads: Vec<Option<Tensor>>, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let ([Some(dy)], [shape]) = (&grads[..], &saved[..]) else { return Ok(vec![None]) };
        let (_, tokens) = dims2("select_rows", shape)?;
        let (_, c) = dims2("select_rows", dy)?;
        let dy = f32_view(dy)?;
        let mut dx = vec![0f32; tokens * c];
        for (row, dy) in self.rows.iter().zip(dy.chunks_exact(c.max(1))) {
            let start = *row as usize * c;
            dx[start..start + c].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy);
        }
        Ok(vec![Some(f32_tensor(dx, (tokens, c))?)])
    }

    fn on_device(&self, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
        on_device::select_rows(self, on, inputs)
    }
}

//! LoRA (Hu et al. 2021) and, by its scale alone, rsLoRA (Kalajdzievski 2023).

use crate::config::Init;
use crate::method::{Extent, Member, Method, Parameter};
use galen_ops::ops::{Branch, Projection, Projections, Prologue};
use galen_ops::{Result, Tape, Traced};

pub(crate) struct Lora;

impl Method for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn shown(&self) -> &'static str {
        "LoRA"
    }

    fn about(&self) -> &'static str {
        "a low-rank change of each weight"
    }

    fn parameters(&self, r: usize, inputs: usize, outputs: usize) -> Vec<Parameter> {
        vec![
            Parameter { suffix: "lora_A.weight", dims: vec![r, inputs], faster: false },
            Parameter { suffix: "lora_B.weight", dims: vec![outputs, r], faster: true },
        ]
    }

    fn init(
        &self,
        init: Init,
        extent: Extent,
        _: Option<&Projection>,
        key: [u64; 3],
    ) -> crate::Result<Vec<Vec<f32>>> {
        let (a, b) = crate::init::lora(init, extent.r, extent.inputs, extent.outputs, key);
        Ok(vec![a, b])
    }

    fn project(
        &self,
        tape: &mut Tape,
        prologue: Prologue,
        inputs: &[&Traced],
        members: Vec<Member>,
    ) -> Result<Vec<Traced>> {
        let mut inputs = inputs.to_vec();
        let mut projections = Vec::new();
        for Member { base, adapted } in members {
            let branch = adapted.map(|adapted| {
                inputs.extend(adapted.leaves);
                Branch { scale: adapted.scale, dropout: adapted.dropout, unrounded: false }
            });
            projections.push((base.clone(), branch));
        }
        tape.apply_many(Projections { prologue, members: projections }, &inputs)
    }

    fn merge(&self, values: &[&[f32]], extent: Extent, weight: &mut [f32]) {
        if let [a, b, ..] = values {
            add_product(a, b, extent, weight);
        }
    }
}

/// `W + s B A`, row by row: the change of a row is summed before it is added.
pub(crate) fn add_product(a: &[f32], b: &[f32], extent: Extent, weight: &mut [f32]) {
    let Extent { r, inputs, scale, .. } = extent;
    let mut delta = vec![0f32; inputs];
    for (row, b) in weight.chunks_exact_mut(inputs.max(1)).zip(b.chunks_exact(r.max(1))) {
        delta.fill(0.0);
        for (a, b) in a.chunks_exact(inputs).zip(b) {
            delta.iter_mut().zip(a).for_each(|(d, a)| *d += scale * b * a);
        }
        row.iter_mut().zip(&delta).for_each(|(w, d)| *w += d);
    }
}

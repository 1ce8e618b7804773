//! DoRA (Liu et al. 2024, arXiv 2402.09353): the weight's direction is changed by a low-rank branch, the length of its rows by a
//! vector m, `W' = m / |W + s B A| (W + s B A)` row by row (equation 5). The norms count as constants in backward
//! (section 4.3), as in PEFT's `use_dora`.

use crate::config::Init;
use crate::error::Error;
use crate::lora::{Lora, add_product};
use crate::method::{Adapted, Extent, Member, Method, Parameter};
use galen_ops::ops::{
    Add, Branch, Dropout, DroppedPart, Magnitude, Projection, Projections, Prologue, adapted_norms,
    adapted_norms_of,
};
use galen_ops::{Result, Tape, Traced};
use std::sync::Arc;

pub(crate) struct Dora;

impl Method for Dora {
    fn name(&self) -> &'static str {
        "dora"
    }

    fn shown(&self) -> &'static str {
        "DoRA"
    }

    fn about(&self) -> &'static str {
        "a low-rank change of each weight's direction, and the length of its rows"
    }

    fn parameters(&self, r: usize, inputs: usize, outputs: usize) -> Vec<Parameter> {
        let mut pair = Lora.parameters(r, inputs, outputs);
        pair.push(Parameter { suffix: "lora_magnitude_vector", dims: vec![outputs], faster: true });
        pair
    }

    fn init(
        &self,
        init: Init,
        extent: Extent,
        base: Option<&Projection>,
        key: [u64; 3],
    ) -> crate::Result<Vec<Vec<f32>>> {
        let Some(base) = base else {
            return Err(Error::Config("`dora` starts from the norms of the base's weights".into()));
        };
        let mut start = Lora.init(init, extent, None, key)?;
        // The adapted weight's own norms: the adapter begins as its branch alone would.
        let norms = adapted_norms(base.weight(), &start[0], &start[1], extent.scale)?;
        start.push(norms);
        Ok(start)
    }

    fn constants(&self, leaves: &[Traced], extent: Extent, base: &Projection) -> Result<Vec<Traced>> {
        let [a, b, ..] = leaves else {
            let what = format!("{} matrices", leaves.len());
            return Err(galen_ops::Error::Shape { op: "dora", what });
        };
        let norms = adapted_norms_of(base.weight(), a.value(), b.value(), extent.scale)?;
        Ok(vec![Traced::constant(norms)])
    }

    /// Without dropout the magnitude goes over the products of all members together. PEFT drops the base's input too where
    /// there is dropout: `y = W x + b + (g - 1) W x' + g s B A x'`, which is `W (x - x') + b + g (W + s B A) x'`.
    fn project(
        &self,
        tape: &mut Tape,
        prologue: Prologue,
        inputs: &[&Traced],
        members: Vec<Member>,
    ) -> Result<Vec<Traced>> {
        let mut outputs: Vec<Option<Traced>> = Vec::with_capacity(members.len());
        let (mut together, mut plain, mut of_all) = (Vec::new(), Vec::new(), inputs.to_vec());
        for (i, Member { base, adapted }) in members.iter().enumerate() {
            let dropout = adapted.as_ref().and_then(|a| a.dropout.as_ref());
            if let (Some(adapted), Some(dropout)) = (adapted, dropout) {
                outputs.push(Some(dropped(tape, &prologue, inputs, base, adapted, dropout)?));
                continue;
            }
            let branch = adapted.as_ref().map(|adapted| {
                of_all.extend(&adapted.leaves[..adapted.leaves.len().min(2)]);
                Branch { scale: adapted.scale, dropout: None, unrounded: true }
            });
            together.push(((*base).clone(), branch));
            plain.push(i);
            outputs.push(None);
        }
        if !plain.is_empty() {
            let products = tape.apply_many(Projections { prologue, members: together }, &of_all)?;
            for (i, product) in plain.into_iter().zip(products) {
                let Member { base, adapted } = &members[i];
                outputs[i] = Some(match adapted {
                    Some(adapted) => magnified(tape, base, base.bias().cloned(), adapted, &product)?,
                    None => product,
                });
            }
        }
        Ok(outputs.into_iter().flatten().collect())
    }

    fn merge(&self, values: &[&[f32]], extent: Extent, weight: &mut [f32]) {
        let [a, b, m] = values else { return };
        add_product(a, b, extent, weight);
        for (row, m) in weight.chunks_exact_mut(extent.inputs.max(1)).zip(*m) {
            let norm = row.iter().map(|w| f64::from(*w) * f64::from(*w)).sum::<f64>().sqrt() as f32;
            let gain = if norm > 0.0 { m / norm } else { 0.0 };
            row.iter_mut().for_each(|w| *w *= gain);
        }
    }
}

/// `g (h - b) + b`.
fn magnified(
    tape: &mut Tape,
    base: &Projection,
    bias: Option<Arc<[f32]>>,
    adapted: &Adapted,
    h: &Traced,
) -> Result<Traced> {
    let ([_, _, m], [norms]) = (adapted.leaves, adapted.constants) else {
        let what = format!("{} matrices and {} constants", adapted.leaves.len(), adapted.constants.len());
        return Err(galen_ops::Error::Shape { op: "dora", what });
    };
    tape.apply(Magnitude { bias, compute: base.weight().compute() }, &[h, m, norms])
}

/// `W (x - x') + b + g (W + s B A) x'`, x' being x after dropout.
fn dropped(
    tape: &mut Tape,
    prologue: &Prologue,
    inputs: &[&Traced],
    base: &Projection,
    adapted: &Adapted,
    dropout: &Dropout,
) -> Result<Traced> {
    let of_part =
        |part| Prologue::Dropped { inner: Box::new(prologue.clone()), dropout: dropout.clone(), part };
    let branch = Some(Branch { scale: adapted.scale, dropout: None, unrounded: true });
    let members = vec![(base.clone().without_bias(), branch)];
    let mut of_kept = inputs.to_vec();
    of_kept.extend(&adapted.leaves[..adapted.leaves.len().min(2)]);
    let h = tape.apply(Projections { prologue: of_part(DroppedPart::Kept), members }, &of_kept)?;
    let h = magnified(tape, base, None, adapted, &h)?;
    let members = vec![(base.clone(), None)];
    let rest = tape.apply(Projections { prologue: of_part(DroppedPart::Taken), members }, inputs)?;
    tape.apply(Add, &[&h, &rest])
}

//! LoRA (Hu et al. 2021) and, by its scale alone, rsLoRA (Kalajdzievski 2023).

use crate::config::Init;
use crate::method::{Member, Method, Parameter};
use galen_ops::ops::{Branch, Projections, Prologue};
use galen_ops::{Result, Tape, Traced};

pub(crate) struct Lora;

impl Method for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn parameters(&self, r: usize, inputs: usize, outputs: usize) -> Vec<Parameter> {
        vec![
            Parameter { suffix: "lora_A.weight", dims: [r, inputs] },
            Parameter { suffix: "lora_B.weight", dims: [outputs, r] },
        ]
    }

    fn init(&self, init: Init, r: usize, inputs: usize, outputs: usize, key: [u64; 3]) -> Vec<Vec<f32>> {
        let (a, b) = crate::init::lora(init, r, inputs, outputs, key);
        vec![a, b]
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
                Branch { scale: adapted.scale, dropout: adapted.dropout }
            });
            projections.push((base.clone(), branch));
        }
        tape.apply_many(Projections { prologue, members: projections }, &inputs)
    }

    fn delta(&self, values: &[&[f32]], r: usize, inputs: usize, outputs: usize, scale: f32) -> Vec<f32> {
        let mut delta = vec![0f32; outputs * inputs];
        if let [a, b] = values {
            for (row, b) in delta.chunks_exact_mut(inputs).zip(b.chunks_exact(r)) {
                for (a, b) in a.chunks_exact(inputs).zip(b) {
                    row.iter_mut().zip(a).for_each(|(d, a)| *d += scale * b * a);
                }
            }
        }
        delta
    }
}

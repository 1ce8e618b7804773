//! Adapters of different rows of one step of generation.

use galen_ops::hook::{Bases, HookContext, ProjectionHook, Site};
use galen_ops::ops::{Projection, Projections, Prologue};
use galen_ops::tensor::{f32_tensor, f32_view};
use galen_ops::{Result, Tape, Traced};

/// Rows side by side under one adapter or none.
pub(crate) struct Run<'a> {
    pub rows: usize,
    pub hook: Option<&'a dyn ProjectionHook>,
    /// The adapter's tensors, by block.
    pub leaves: &'a [Vec<Traced>],
}

impl<'a> Run<'a> {
    pub fn leaves_of(&self, layer: usize) -> &'a [Traced] {
        self.leaves.get(layer).map_or(&[], |l| &l[..])
    }
}

/// Each run of rows through its own adapter, over products with the base that are formed once for all rows: the base's
/// product comes first, and each adapter is given its rows of it ([`Projection::with_product`]). So a row's bits are
/// those of a step under its adapter alone.
pub(crate) struct Routed<'a> {
    pub runs: &'a [Run<'a>],
}

impl ProjectionHook for Routed<'_> {
    fn leaves(&self, _: usize, _: &dyn Bases, _: &mut Tape) -> Result<Vec<Traced>> {
        Ok(Vec::new())
    }

    fn has_leaves(&self, layer: usize) -> bool {
        self.runs.iter().any(|r| r.hook.is_some_and(|h| h.has_leaves(layer)))
    }

    fn project(
        &self,
        tape: &mut Tape,
        _: &[Traced],
        sites: &[Site],
        prologue: Prologue,
        inputs: &[&Traced],
        bases: &[&Projection],
        context: &HookContext,
    ) -> Result<Vec<Traced>> {
        let layer = sites.first().map_or(0, |s| s.layer);
        let members = bases.iter().map(|b| ((*b).clone(), None)).collect();
        let products = tape.apply_many(Projections { prologue: prologue.clone(), members }, inputs)?;
        let mut outputs: Vec<Vec<f32>> =
            products.iter().map(|p| Ok(f32_view(p.tensor()?)?.to_vec())).collect::<Result<_>>()?;
        let total: usize = self.runs.iter().map(|r| r.rows).sum();
        let mut first = 0;
        for run in self.runs {
            let rows = |t: &Traced| Ok(Traced::constant(t.tensor()?.narrow(0, first, run.rows)?));
            if let Some(hook) = run.hook.filter(|h| h.has_leaves(layer)) {
                let own = inputs.iter().map(|i| rows(i)).collect::<Result<Vec<_>>>()?;
                let given = bases.iter().zip(&products).map(|(base, product)| {
                    Ok((*base).clone().with_product(rows(product)?.tensor()?.clone()))
                });
                let given = given.collect::<Result<Vec<_>>>()?;
                // The context keys dropout, and nothing drops out in generation: that it is of all rows does not matter.
                let adapted = hook.project(
                    tape,
                    run.leaves_of(layer),
                    sites,
                    prologue.clone(),
                    &own.iter().collect::<Vec<_>>(),
                    &given.iter().collect::<Vec<_>>(),
                    context,
                )?;
                for (output, adapted) in outputs.iter_mut().zip(&adapted) {
                    let width = output.len() / total.max(1);
                    output[first * width..(first + run.rows) * width]
                        .copy_from_slice(&f32_view(adapted.tensor()?)?);
                }
            }
            first += run.rows;
        }
        outputs
            .into_iter()
            .map(|o| {
                let width = o.len() / total.max(1);
                Ok(Traced::constant(f32_tensor(o, (total, width))?))
            })
            .collect()
    }
}

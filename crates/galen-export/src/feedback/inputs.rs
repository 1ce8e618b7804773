//! What goes into each projection on sample texts.

use crate::error::{Error, Result};
use galen_adapter::Adapter;
use galen_model::{Model, Session};
use galen_ops::hook::{Bases, HookContext, ProjectionHook, Site};
use galen_ops::ops::{Compute, Frozen, Projection, Projections, Prologue};
use galen_ops::quant::{QuantError, QuantMatrix};
use galen_ops::tensor::f32_view;
use galen_ops::{Tape, Traced};
use nalgebra::{DMatrix, DMatrixViewMut};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Columns of moments that a thread takes at a time.
const PANEL: usize = 96;

/// The inputs of one projection: their second moments, or themselves where that is smaller.
pub(crate) struct Inputs {
    cols: usize,
    moments: Option<DMatrix<f32>>,
    rows: Vec<f32>,
}

impl Inputs {
    /// Of `cols` features, for at most about `tokens` tokens.
    pub(crate) fn new(cols: usize, tokens: usize) -> Self {
        let moments = (cols <= tokens).then(|| DMatrix::zeros(cols, cols));
        Self { cols, moments, rows: Vec::new() }
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Adds tokens `[T, cols]`, row-major.
    pub(crate) fn add(&mut self, x: &[f32]) {
        match &mut self.moments {
            Some(moments) => {
                // Column-major: a token is a column. Each panel of columns by itself, and of it the lower part alone.
                let x = DMatrix::from_column_slice(self.cols, x.len() / self.cols, x);
                let cols = self.cols;
                moments.as_mut_slice().par_chunks_mut(PANEL * cols).enumerate().for_each(|(p, panel)| {
                    let (first, n) = (p * PANEL, panel.len() / cols);
                    let mut panel = DMatrixViewMut::from_slice(panel, cols, n);
                    let (below, right) = (x.rows(first, cols - first), x.rows(first, n).transpose());
                    panel.rows_mut(first, cols - first).gemm(1.0, &below, &right, 1.0);
                });
            }
            None => self.rows.extend_from_slice(x),
        }
    }

    /// The lower part of `X' X`.
    pub(super) fn moments(&self) -> DMatrix<f32> {
        if let Some(moments) = &self.moments {
            return moments.clone();
        }
        let mut whole = Self::new(self.cols, self.cols);
        whole.add(&self.rows);
        whole.moments.unwrap_or_default()
    }
}

/// The inputs of every projection that an adapter changes, by the first module of those that read them.
pub struct Calibration {
    inputs: BTreeMap<(usize, &'static str), Inputs>,
    /// Module to the first of its group.
    groups: BTreeMap<&'static str, &'static str>,
}

impl Calibration {
    /// Runs samples through a model with its adapter, and keeps what goes into the projections that it changes.
    pub fn run(model: &Model, adapter: &Adapter, samples: &[Vec<u32>]) -> Result<Self> {
        let tokens = samples.iter().map(Vec::len).sum();
        let found = Self { inputs: BTreeMap::new(), groups: BTreeMap::new() };
        let capture =
            Capture { adapter, tokens, found: Mutex::new(found), eyes: Mutex::new(BTreeMap::new()) };
        for ids in samples.iter().filter(|ids| !ids.is_empty()) {
            Session::new(model, Some(&capture)).feed(ids).map_err(Error::Ops)?;
        }
        Ok(capture.found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The group's first module, and the inputs of all of it.
    pub(crate) fn inputs(&self, layer: usize, module: &str) -> Option<(&'static str, &Inputs)> {
        let first = *self.groups.get(module)?;
        Some((first, self.inputs.get(&(layer, first))?))
    }
}

/// The adapter, looked over its shoulder.
struct Capture<'a> {
    adapter: &'a Adapter,
    tokens: usize,
    found: Mutex<Calibration>,
    /// Identity matrices by size: their projection of x is x, whatever the prologue.
    eyes: Mutex<BTreeMap<usize, Arc<QuantMatrix>>>,
}

impl Capture<'_> {
    fn eye(&self, n: usize) -> galen_ops::Result<Projection> {
        let mut eyes = self.eyes.lock().unwrap_or_else(PoisonError::into_inner);
        let eye = if let Some(eye) = eyes.get(&n) {
            eye.clone()
        } else {
            let mut values = vec![0f32; n * n];
            (0..n).for_each(|i| values[i * n + i] = 1.0);
            let shape = |e: QuantError| galen_ops::Error::Shape { op: "eye", what: e.to_string() };
            let eye = Arc::new(QuantMatrix::from_f32(n, n, &values).map_err(shape)?);
            eyes.insert(n, eye.clone());
            eye
        };
        Projection::new(Frozen::new(eye, Compute::F32), None)
    }
}

impl ProjectionHook for Capture<'_> {
    fn leaves(&self, layer: usize, bases: &dyn Bases, tape: &mut Tape) -> galen_ops::Result<Vec<Traced>> {
        self.adapter.leaves(layer, bases, tape)
    }

    fn has_leaves(&self, layer: usize) -> bool {
        self.adapter.has_leaves(layer)
    }

    fn project(
        &self,
        tape: &mut Tape,
        leaves: &[Traced],
        sites: &[Site],
        prologue: Prologue,
        inputs: &[&Traced],
        bases: &[&Projection],
        context: &HookContext,
    ) -> galen_ops::Result<Vec<Traced>> {
        let changed = |s: &Site| self.adapter.covers(s.layer, s.module);
        if let (Some(first), Some(base), true) = (sites.first(), bases.first(), sites.iter().any(changed)) {
            let cols = base.in_features();
            let members = vec![(self.eye(cols)?, None)];
            let x = tape.apply_many(
                Projections { prologue: prologue.clone(), members },
                &inputs[..prologue.inputs()],
            )?;
            if let Some(x) = x.first() {
                let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                found.groups.extend(sites.iter().map(|s| (s.module, first.module)));
                let key = (first.layer, first.module);
                let of = found.inputs.entry(key).or_insert_with(|| Inputs::new(cols, self.tokens));
                of.add(&f32_view(x.tensor()?)?);
            }
        }
        self.adapter.project(tape, leaves, sites, prologue, inputs, bases, context)
    }
}

//! A model ready to run: frozen weights in their blocks.

use crate::arch::{self, Architecture};
use crate::block::{Block, MODULES};
use crate::cache::{Cache, KvLayer};
use crate::precision::Precision;
use crate::weights::{ModelConfig, Weights, WeightsError};
use galen_ops::device::{Accelerator, KvPool, KvSequence, KvShape, PAGE_TOKENS};
use galen_ops::hook::{Bases, Site};
use galen_ops::ops::{AttentionShape, Compute, Frozen, Projection, RopeTable};
use galen_ops::quant::{Dots, QuantMatrix};
use std::sync::Arc;

/// Where products with frozen weights read them, when they are computed in bfloat16. The bits are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightCache {
    /// From a copy that is rounded and packed once, two bytes an element: fast.
    Packed,
    /// From the stored blocks, decoded panel by panel: small.
    #[default]
    Stream,
}

/// How a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// How the base is held.
    pub precision: Precision,
    /// The arithmetic of its matrix products.
    pub compute: Compute,
    /// For [`Compute::Bf16`].
    pub weight_cache: WeightCache,
    /// The arithmetic of generation's steps through [`crate::StepKernels::Blocks`].
    pub dots: Dots,
    /// Keep a copy of the weights for those steps where this processor has kernels for it
    /// ([`QuantMatrix::with_interleaved`]): faster, for as many bytes again. With [`Dots::Integer`] prompts are computed
    /// in integers too, where the format is Q4_0 or Q4_1.
    pub interleave: bool,
}

impl From<Precision> for LoadOptions {
    fn from(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }
}

impl LoadOptions {
    /// As the options have it for steps.
    fn for_steps(self, matrix: QuantMatrix) -> QuantMatrix {
        let matrix = matrix.with_dots(self.dots);
        if self.interleave { matrix.with_interleaved() } else { matrix }
    }

    fn frozen(self, matrix: Arc<QuantMatrix>) -> Frozen {
        match (self.compute, self.weight_cache) {
            (Compute::Bf16, WeightCache::Packed) => Frozen::packed(matrix),
            (compute, _) => Frozen::new(matrix, compute),
        }
    }
}

/// A model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its files are at fault.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Its tensors do not fit together.
    #[error("{path}: {what}")]
    Model {
        /// The file or directory.
        path: String,
        /// What does not fit.
        what: String,
    },
}

/// A projection's place and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleSize {
    /// Block number from 0.
    pub layer: usize,
    /// Hugging Face name within the block.
    pub module: &'static str,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
}

/// A base model. Its weights are never trained; clones share them.
#[derive(Clone)]
pub struct Model {
    /// Its shape.
    pub config: ModelConfig,
    pub(crate) architecture: &'static dyn Architecture,
    pub(crate) embedding: Arc<QuantMatrix>,
    pub(crate) embedding_scale: f32,
    pub(crate) blocks: Vec<Block>,
    pub(crate) final_norm: Arc<[f32]>,
    pub(crate) head: Frozen,
    options: LoadOptions,
    pub(crate) eps: f32,
    /// Distinct rotary frequencies; a block names its own by number.
    frequencies: Vec<Vec<f32>>,
    device: Option<(Accelerator, Arc<KvPool>)>,
}

impl Model {
    /// Takes the weights from their files; bytes stay mapped where no change is needed.
    pub fn load(weights: &Weights, options: impl Into<LoadOptions>) -> Result<Self, LoadError> {
        let options = options.into();
        let config = weights.config().clone();
        let fail = |what: String| LoadError::Model { path: weights.path().display().to_string(), what };
        let Some(architecture) = arch::find(config.architecture) else {
            return Err(fail(format!("architecture `{}` has no forward", config.architecture)));
        };
        let mut frequencies: Vec<Vec<f32>> = Vec::new();
        let mut blocks = Vec::with_capacity(config.n_layers);
        for layer in 0..config.n_layers {
            let own = config.layer_rope(layer).inverse_frequencies(config.head_dim);
            let rope = frequencies.iter().position(|f| *f == own).unwrap_or(frequencies.len());
            if rope == frequencies.len() {
                frequencies.push(own);
            }
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let mut projections = Vec::with_capacity(MODULES.len());
            for (_, module) in MODULES {
                let stored = weights.matrix(&name(&format!("{module}.weight")))?;
                let matrix =
                    options.precision.hold(stored).map_err(|e| fail(format!("`{}`: {e}", name(module))))?;
                let is_qkv = ["q_proj", "k_proj", "v_proj"].iter().any(|p| module.ends_with(p));
                let bias = if architecture.qkv_bias() && is_qkv {
                    Some(weights.vector(&name(&format!("{module}.bias")))?.into())
                } else {
                    None
                };
                let matrix = Arc::new(options.for_steps(matrix));
                let projection = Projection::new(options.frozen(matrix), bias);
                projections.push(projection.map_err(|e| fail(format!("`{}`: {e}", name(module))))?);
            }
            let mut norms = Vec::new();
            for norm in architecture.norms() {
                norms.push((*norm, weights.vector(&name(&format!("{norm}.weight")))?.into()));
            }
            blocks.push(Block {
                projections,
                norms,
                eps: config.rms_norm_eps,
                attention: AttentionShape {
                    n_heads: config.n_heads,
                    n_kv_heads: config.n_kv_heads,
                    head_dim: config.head_dim,
                    scale: config.query_scale,
                    window: config.layer_window(layer),
                },
                activation: config.activation,
                rope,
            });
        }
        let embedding = Arc::new(options.for_steps(weights.matrix("model.embed_tokens.weight")?));
        let head = if config.tie_word_embeddings {
            embedding.clone()
        } else {
            Arc::new(options.for_steps(weights.matrix("lm_head.weight")?))
        };
        Ok(Self {
            architecture,
            embedding,
            embedding_scale: config.embedding_scale,
            blocks,
            final_norm: weights.vector("model.norm.weight")?.into(),
            head: options.frozen(head),
            options,
            eps: config.rms_norm_eps,
            frequencies,
            device: None,
            config,
        })
    }

    /// The same model for passes and generation on an accelerator, every weight uploaded. Errors: a format or a head size without
    /// kernels, no memory.
    pub fn onto(mut self, on: &Accelerator) -> galen_ops::Result<Self> {
        let projections = self.blocks.iter().flat_map(|b| &b.projections).map(|p| p.weight().matrix());
        for matrix in projections.chain([&self.embedding, self.head.matrix()]) {
            on.weight(matrix)?;
            matrix.data().release();
        }
        let ModelConfig { n_layers: layers, n_kv_heads: kv_heads, head_dim, .. } = self.config;
        let pool = KvPool::new(on, KvShape { layers, kv_heads, head_dim })?;
        self.device = Some((on.clone(), pool));
        Ok(self)
    }

    /// Where its passes run; none: on the CPU.
    pub fn device(&self) -> Option<&Accelerator> {
        self.device.as_ref().map(|(on, _)| on)
    }

    /// Tokens that the memory of a sequence's keys and values grows by.
    pub fn page_tokens(&self) -> usize {
        if self.device.is_some() { PAGE_TOKENS } else { 1 }
    }

    /// An empty sequence's keys and values.
    pub(crate) fn cache(&self) -> Cache {
        match &self.device {
            None => Cache::Host(vec![KvLayer::default(); self.blocks.len()]),
            Some((_, pool)) => Cache::Device(KvSequence::new(pool)),
        }
    }

    /// How it was loaded.
    pub fn options(&self) -> LoadOptions {
        self.options
    }

    /// Every linear projection of every block, in order.
    pub fn projections(&self) -> Vec<ModuleSize> {
        let of_block = |(layer, block): (usize, &'_ Block)| {
            let sizes = block.projections.iter().zip(MODULES).map(move |(p, (_, module))| ModuleSize {
                layer,
                module,
                inputs: p.in_features(),
                outputs: p.out_features(),
            });
            sizes.collect::<Vec<_>>()
        };
        self.blocks.iter().enumerate().flat_map(of_block).collect()
    }

    /// Bytes of frozen weights.
    pub fn nbytes(&self) -> usize {
        let blocks: usize =
            self.blocks.iter().flat_map(|b| &b.projections).map(|p| p.weight().matrix().nbytes()).sum();
        let head = self.head.matrix();
        let head = if Arc::ptr_eq(&self.embedding, head) { 0 } else { head.nbytes() };
        blocks + self.embedding.nbytes() + head
    }

    /// Angles of these positions, for each of the model's rotary bases.
    pub(crate) fn rope_tables(&self, positions: &[u32]) -> Vec<RopeTable> {
        self.frequencies.iter().map(|f| RopeTable::new(positions, f)).collect()
    }
}

impl Bases for Model {
    fn base(&self, site: Site) -> Option<&Projection> {
        let module = MODULES.iter().position(|(_, name)| *name == site.module)?;
        self.blocks.get(site.layer)?.projections.get(module)
    }
}

/// The numbers of one step of AdamW, as every place that makes one reads them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Multiplies the gradients (clipping).
    pub factor: f32,
    /// Decay of the mean of gradients, and one minus it.
    pub beta1: (f32, f32),
    /// Decay of the mean of squared gradients, and one minus it.
    pub beta2: (f32, f32),
    /// Learning rate over `1 - beta1^t`.
    pub step_size: f32,
    /// `sqrt(1 - beta2^t)`.
    pub root: f32,
    /// Added to the root.
    pub eps: f32,
    /// `1 - learning rate * weight decay`.
    pub decay: f32,
    /// The step size and the decay of values that learn at a multiple of the rate.
    pub faster: (f32, f32),
}

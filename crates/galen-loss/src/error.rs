//! What is refused.

/// Settings or a batch that an objective cannot use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LossError {
    /// No entry of a registry has this name.
    #[error("`{key}: {name}` is not known\nhint: {hint}")]
    Unknown {
        /// The configuration's key.
        key: &'static str,
        /// The name that was given.
        name: String,
        /// The nearest name and all names.
        hint: String,
    },
    /// A setting is out of its range or does not go with another.
    #[error("`{key}: {value}`: {what}\nhint: {hint}")]
    Setting {
        /// The configuration's key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        what: &'static str,
        /// The remedy.
        hint: &'static str,
    },
    /// A batch whose parts do not fit together.
    #[error("{part}: {what}")]
    Batch {
        /// Which part of the batch, with an index: `chosen[3]`.
        part: String,
        /// What is wrong with it.
        what: String,
    },
}

impl LossError {
    pub(crate) fn batch(part: impl ToString, what: impl Into<String>) -> Self {
        Self::Batch { part: part.to_string(), what: what.into() }
    }

    /// `Err` with the setting unless `fine`.
    pub(crate) fn unless(
        fine: bool,
        key: &'static str,
        value: impl ToString,
        what: &'static str,
        hint: &'static str,
    ) -> crate::Result<()> {
        if fine { Ok(()) } else { Err(Self::Setting { key, value: value.to_string(), what, hint }) }
    }
}

/// `beta` of a family that divides by it or scales rewards with it.
pub(crate) fn positive_beta(beta: f64) -> crate::Result<()> {
    let hint = "0.1 is the usual value";
    LossError::unless(beta > 0.0 && beta.is_finite(), "beta", beta, "it must be above 0", hint)
}

/// A setting that must be finite and not below zero.
pub(crate) fn not_negative(key: &'static str, value: f64) -> crate::Result<()> {
    let fine = value >= 0.0 && value.is_finite();
    LossError::unless(fine, key, value, "it must be 0 or more", "leave the key out for its default")
}

//! Where a run computes.

use super::field::{Field, Wrong};
use super::table::Config;
use super::types::{Bf16, WeightCache};
use super::yaml::Node;
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// The key `device` and the flag `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// A card, where this build has kernels, a card is there and they have all that is asked for; else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// A CUDA card by its number.
    Cuda(u32),
}

impl Device {
    /// The card that it names.
    pub fn card(self) -> Option<u32> {
        match self {
            Self::Cuda(n) => Some(n),
            _ => None,
        }
    }
}

const TAKES: &str = "`auto`, `cpu` or `cuda:N`";

impl FromStr for Device {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("expected {TAKES}")),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl Field for Device {
    fn type_name() -> String {
        TAKES.into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        let text = node.text().unwrap_or_default();
        text.parse().map_err(|_| Wrong::at(node, format!("takes {TAKES}, not {}", node.describe())))
    }
    fn dump(&self) -> Value {
        self.to_string().into()
    }
}

impl Config {
    /// What of this configuration has no kernels yet, and what to set instead.
    pub fn without_kernels(&self) -> Option<(String, &'static str)> {
        (self.precision() == super::Precision::F32)
            .then(|| ("computing in f32".to_owned(), "`bf16: auto`, or "))
    }

    /// The same as a card computes it: in bf16, from the stored blocks.
    #[must_use]
    pub fn on_card(&self) -> Self {
        Self { bf16: Bf16::On, weight_cache: WeightCache::Stream, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_they_are_read() {
        for (text, device) in [("auto", Device::Auto), ("cpu", Device::Cpu), ("cuda:3", Device::Cuda(3))] {
            assert_eq!((text.parse(), device.to_string().as_str()), (Ok(device), text));
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for text in ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", ""] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_has_no_kernels_is_told_with_what_to_set_instead() {
        let of = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.without_kernels().map(|(what, _)| what)
        };
        assert_eq!(of(|_| ()), None);
        assert_eq!(of(|c| c.lora_dropout = 0.1), None);
        assert_eq!(of(|c| c.peft_use_dora = true), None);
        assert_eq!(of(|c| c.float32 = true).as_deref(), Some("computing in f32"));
        assert_eq!(Config::default().on_card().compute(), galen_ops::ops::Compute::Bf16);
    }
}

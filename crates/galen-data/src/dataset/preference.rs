//! The keys of a dataset entry that only preference data has, by Axolotl's names.

use serde::{Deserialize, Serialize};

/// Names of fields and formats of preference data, in a dataset entry or under its `type:`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreferenceFields {
    /// Field of the prompt (default `prompt`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_prompt: Option<String>,
    /// Field of the better answer (default `chosen`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_chosen: Option<String>,
    /// Field of the worse answer (default `rejected`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_rejected: Option<String>,
    /// Field of a labelled answer (default `completion`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_completion: Option<String>,
    /// Field of its label (default `label`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_label: Option<String>,
    /// Prompt of type `user_defined`, with the places `{system}` and `{prompt}` (default `{prompt}`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_format: Option<String>,
    /// Its better answer (default `{chosen}`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen_format: Option<String>,
    /// Its worse answer (default `{rejected}`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_format: Option<String>,
    /// Its labelled answer (default `{completion}`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_format: Option<String>,
}

/// Every key of [`PreferenceFields`]: dataset entries of a preference run take them beside
/// [`DATASET_KEYS`](super::DATASET_KEYS).
pub const PREFERENCE_KEYS: &[&str] = &[
    "field_prompt",
    "field_chosen",
    "field_rejected",
    "field_completion",
    "field_label",
    "prompt_format",
    "chosen_format",
    "rejected_format",
    "completion_format",
];

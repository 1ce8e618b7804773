//! Every key of a task file, and what galen does with it.

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Means what it means in lm-evaluation-harness.
    Honoured,
    /// Known, without effect here; the text says why.
    NoEffect(&'static str),
    /// Refused unless null or false; the text says what to do.
    Refused(&'static str),
}

use KeyState::{Honoured, NoEffect, Refused};

/// All keys of lm-evaluation-harness tasks.
pub const KEYS: &[(&str, KeyState)] = &[
    ("task", Honoured),
    ("task_alias", Honoured),
    ("dataset_path", Honoured),
    ("dataset_name", NoEffect("local files have no configurations")),
    ("dataset_kwargs", Honoured),
    ("training_split", Honoured),
    ("validation_split", Honoured),
    ("test_split", Honoured),
    ("fewshot_split", Honoured),
    ("output_type", Honoured),
    ("doc_to_text", Honoured),
    ("doc_to_target", Honoured),
    ("doc_to_choice", Honoured),
    ("description", Honoured),
    ("target_delimiter", Honoured),
    ("fewshot_delimiter", Honoured),
    ("num_fewshot", Honoured),
    ("fewshot_config", Honoured),
    ("gen_prefix", Honoured),
    ("generation_kwargs", Honoured),
    ("metric_list", Honoured),
    ("filter_list", Honoured),
    ("repeats", Honoured),
    ("metadata", Honoured),
    ("tag", NoEffect("tasks are named one by one")),
    ("group", NoEffect("tasks are named one by one")),
    ("group_alias", NoEffect("tasks are named one by one")),
    ("should_decontaminate", NoEffect("use `galen data contamination`")),
    ("doc_to_decontamination_query", NoEffect("use `galen data contamination`")),
    ("batch_size", NoEffect("batches follow from memory")),
    ("unsafe_code", Refused("galen runs no code named by a task")),
    ("process_docs", Refused("prepare the rows beforehand")),
    ("process_results", Refused("use `metric_list` and `filter_list`")),
    ("custom_dataset", Refused("write the rows to a JSONL file and name it in `dataset_kwargs.data_files`")),
    ("use_prompt", Refused("write the prompt as `doc_to_text`")),
    ("doc_to_image", Refused("galen's models read text")),
    ("doc_to_audio", Refused("galen's models read text")),
    ("class", Refused("galen runs no code named by a task")),
    ("aggregate_metric_list", Refused("a group's mean is not computed: name its tasks one by one")),
];

/// Keys of `fewshot_config`.
pub(super) const FEWSHOT_KEYS: &[&str] = &[
    "sampler",
    "split",
    "samples",
    "fewshot_indices",
    "doc_to_text",
    "doc_to_choice",
    "doc_to_target",
    "gen_prefix",
    "fewshot_delimiter",
    "target_delimiter",
];

/// Keys of `generation_kwargs`.
pub(super) const GENERATION_KEYS: &[&str] =
    &["until", "max_gen_toks", "max_new_tokens", "do_sample", "temperature", "top_k", "top_p"];

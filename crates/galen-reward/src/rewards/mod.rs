//! One reward a file.

mod answers;

pub(crate) mod choice;
pub(crate) mod command;
pub(crate) mod exact_match;
pub(crate) mod format;
pub(crate) mod http;
pub(crate) mod json_schema;
pub(crate) mod length;
pub(crate) mod numeric;
pub(crate) mod regex;
pub(crate) mod repetition;
pub(crate) mod soft_overlong_punishment;

//! galen-model

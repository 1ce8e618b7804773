//! galen-train

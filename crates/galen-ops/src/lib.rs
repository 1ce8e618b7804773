//! galen-ops

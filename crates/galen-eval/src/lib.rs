//! galen-eval

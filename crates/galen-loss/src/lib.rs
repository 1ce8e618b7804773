//! galen-loss

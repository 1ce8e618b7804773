//! galen-optim

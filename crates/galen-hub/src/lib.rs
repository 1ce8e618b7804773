//! galen-hub

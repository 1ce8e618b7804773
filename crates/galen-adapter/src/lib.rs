//! galen-adapter

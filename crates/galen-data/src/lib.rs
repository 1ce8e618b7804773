//! galen-data

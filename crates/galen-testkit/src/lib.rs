//! galen-testkit

//! Preference types against hand-worked readings.

//! The objectives against TRL 1.16 (goldens with their scripts in `tests/goldens`), against finite
//! differences, and against values worked by hand.

#![expect(clippy::unwrap_used, reason = "tests")]

mod contract;
mod golden;
mod kto;
mod pairs;
mod reward;
mod rollouts;
mod worked;

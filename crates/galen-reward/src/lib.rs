//! Owns: reward functions: what a sampled completion is worth, by rule, by a program, by an endpoint.
//! Takes: completions with the row they answer, and the configuration's `reward_funcs` and `reward_weights`.
//! Gives: one number a completion and function, or none where a function does not apply, and their weighted sum.
//! Never: samples, tokenizes, runs a model, or normalises rewards into advantages.
//!
//! A reward is one file under `rewards/` and one line in [`REWARDS`]; its parameters, the errors about them and
//! `docs/rewards.md` come from that registration. A reward that needs what this crate does not have (a reward model)
//! is handed in from outside as an [`Outside`].

mod answer;
mod completion;
mod docs;
mod error;
mod numbers;
mod options;
mod parse;
mod registry;
mod rewards;
mod set;

pub use completion::{Completion, Finish, Prompt};
pub use docs::page;
pub use error::{ConfigError, RewardError, nearest, shown, suggestion};
pub use options::{Absent, Kind, Network, Options, Param};
pub use parse::{Outside, OutsideBuild, parse};
pub use registry::{REWARDS, Reward, RewardEntry, Turn};
pub use set::{FunctionRewards, RewardSet, Rewards, Spread};

//! The integration tests of galen, one binary. Goldens lie beside the scripts that made them in `goldens/`.

mod align_steps;
mod arch_gradients;
mod cli;
mod cli_align;
mod cli_data;
mod cli_export;
mod cli_machine;
mod cli_misc;
mod exactness;
mod export;
mod fast_decode;
mod goldens;
mod grpo_steps;
#[cfg(unix)]
mod kill;
mod merge;
mod ops_gradients;
mod parity;
mod peft_steps;
mod preference;
mod quantise;
mod random;
mod resume;
mod reward;
mod reward_steps;
mod rollout_runs;
mod rollouts;
mod support;

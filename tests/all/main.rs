//! The integration tests of galen, one binary. Goldens lie beside the scripts that made them in `goldens/`.

mod adapters;
mod adapters_together;
mod align_steps;
mod arch_gradients;
#[cfg(unix)]
mod batch_runs;
mod cli;
mod cli_adapters;
mod cli_align;
mod cli_data;
mod cli_export;
mod cli_machine;
mod cli_misc;
mod cli_models;
mod cli_rows;
mod exactness;
mod export;
mod fast_decode;
mod goldens;
mod grpo_steps;
#[cfg(unix)]
mod kill;
mod merge;
#[cfg(feature = "mistralrs")]
mod mistralrs;
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
#[cfg(unix)]
mod serve_answers;
#[cfg(unix)]
mod serve_limits;
#[cfg(unix)]
mod serve_support;
mod support;
#[cfg(unix)]
mod synth_endpoint;
#[cfg(unix)]
mod synth_mock;
#[cfg(unix)]
mod synth_native;
mod verify;

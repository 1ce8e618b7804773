//! What must hold of the kernels, wherever they run: against galen-ops' operations, or references in f64.

pub mod attention;
pub mod dora;
pub mod elementwise;
pub mod generation;
pub mod operations;
pub mod products;
pub mod qmatmul;
pub mod support;
pub mod training;

use crate::Device;
use galen_ops::quant::WeightDtype;
use qmatmul::{BASE, Case, Kind};

/// A check over odd sizes.
pub type Check = fn(&Device) -> Result<(), String>;

/// Every check; tests and the program for cards go through them.
pub static CHECKS: &[(&str, Check)] = &[
    ("decoders_give_the_cpu_s_bits", qmatmul::decoders_give_the_cpu_s_bits),
    ("every_format_forward_backward_and_few_rows", qmatmul::every_format_forward_backward_and_few_rows),
    ("odd_sizes", qmatmul::odd_sizes),
    ("no_two_rows_of_a_fragment_share_a_bank", qmatmul::no_two_rows_of_a_fragment_share_a_bank),
    ("every_head_size", attention::every_head_size),
    ("segments_windows_caps_and_groups", attention::segments_windows_caps_and_groups),
    ("agrees_with_the_cpu_s_operation", attention::agrees_with_the_cpu_s_operation),
    ("attention_over_pages", generation::attention_over_pages),
    ("steps_do_not_see_each_other", generation::steps_do_not_see_each_other),
    ("magnitudes_and_their_norms", dora::magnitudes_and_their_norms),
    ("rows_are_picked_and_put_back", operations::rows_are_picked_and_put_back),
    ("norms", elementwise::norms),
    ("rotary_embedding", elementwise::rotary_embedding),
    ("gates_and_masks", elementwise::gates_and_masks),
    ("rounding_and_picking", elementwise::rounding_and_picking),
    ("into_branches", training::into_branches),
    ("gradients_of_branches", training::gradients_of_branches),
    ("log_probabilities_and_their_gradient", training::log_probabilities_and_their_gradient),
    ("optimisers", training::optimisers),
    ("the_quantiser_gives_the_cpu_s_codes", training::the_quantiser_gives_the_cpu_s_codes),
    ("projections", operations::projections),
    ("paths_of_products", products::paths_of_products),
    ("attention", operations::attention),
    ("norms_gates_and_head", operations::norms_gates_and_head),
];

/// The smallest cases that go through every kernel: for the sanitizers.
pub fn small(device: &Device) -> Result<(), String> {
    for dtype in WeightDtype::with_kernels() {
        for (kind, m) in [(Kind::Forward, 3), (Kind::Backward, 3), (Kind::Few, 1), (Kind::Few, 9)] {
            qmatmul::check(device, Case { dtype, kind, m, n: 33, ..BASE })?;
        }
        qmatmul::check_dequantize(device, dtype, 3, 256)?;
        training::check_log_prob(device, dtype, 1.0)?;
        dora::check(device, dora::Case { dtype, ..dora::SMALL })?;
    }
    for d in [64, 96, 128, 256] {
        attention::check(
            device,
            &attention::Case { of: vec![(5, None), (1, Some(0))], ..attention::plain(d) },
        )?;
        generation::check(device, &generation::plain(d))?;
    }
    if device.has_library() {
        products::check_paths(device, WeightDtype::Q4_0, (3, 24, 64, 3))?;
    }
    operations::check_rows(device, 5, 16)?;
    elementwise::check_rms_norm(device, 2, 72)?;
    elementwise::check_qk_norm(device, 3, 64)?;
    elementwise::check_rope(device, 2, 1, 64)?;
    elementwise::check_gated(device, 24)?;
    elementwise::check_dropout(device, 2, 16)?;
    elementwise::check_embedding_noise(device, 2, 16)?;
    elementwise::check_plain(device)?;
    for backward in [false, true] {
        training::check_low_rank(device, backward, (3, 5, 72))?;
        training::check_low_rank(device, backward, (3, 20, 72))?;
    }
    training::check_lora_gradient(device, 70, 3, 12, 64)?;
    training::check_adamw(device, 8)?;
    training::check_square_sum(device, 300)?;
    training::check_adamw_8bit(device, 300)?;
    training::check_nf4_quantize(device, 3, 64)
}

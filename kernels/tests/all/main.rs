//! Every kernel on the CPU: the checks, faults planted in copies, the sanitizers.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod compile;
mod devices;
mod dora;
mod faults;
mod generation;
mod policy;
mod products;
mod reward;
mod sanitizers;
mod tiny;
mod training;

use galen_kernels::Device;
use galen_kernels::checks::CHECKS;

/// A test for each check, so that they run beside each other, and one that none is left out.
macro_rules! checks {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            let (_, check) = CHECKS.iter().find(|(n, _)| *n == stringify!($name)).unwrap();
            check(&Device::new().unwrap()).unwrap();
        })*

        #[test]
        fn every_check_is_a_test() {
            let tests = [$(stringify!($name)),*];
            assert!(CHECKS.iter().all(|(name, _)| tests.contains(name)));
        }
    };
}

checks! {
    decoders_give_the_cpu_s_bits
    every_format_forward_backward_and_few_rows
    odd_sizes
    no_two_rows_of_a_fragment_share_a_bank
    every_head_size
    segments_windows_caps_and_groups
    agrees_with_the_cpu_s_operation
    attention_over_pages
    steps_do_not_see_each_other
    magnitudes_and_their_norms
    rows_are_picked_and_put_back
    norms
    rotary_embedding
    gates_and_masks
    rounding_and_picking
    into_branches
    gradients_of_branches
    log_probabilities_and_their_gradient
    optimisers
    the_quantiser_gives_the_cpu_s_codes
    projections
    paths_of_products
    attention
    norms_gates_and_head
}

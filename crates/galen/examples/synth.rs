//! Prints `docs/synth.md`.

fn main() {
    print!("{}", galen::commands::synth::docs());
}

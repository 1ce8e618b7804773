//! Prints `docs/rewards.md`.

fn main() {
    print!("{}", galen_reward::page());
}

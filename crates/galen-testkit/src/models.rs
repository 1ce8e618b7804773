//! Real weights for tests, where this machine has them.

use std::path::PathBuf;

/// The catalogued file `name` from the cache; never from the network. A test without it says so and returns
/// early; where `GALEN_REQUIRE_MODELS` is set (`.ci/run` does, having fetched them) it fails instead.
///
/// Fetch: `cargo run --release -p galen-hub --example fetch -- NAME`.
pub fn real_model(name: &str) -> Option<PathBuf> {
    let found = galen_hub::cached(name).map(|r| r.path);
    if found.is_none() {
        let required = std::env::var_os("GALEN_REQUIRE_MODELS").is_some();
        assert!(!required, "`{name}` is not in the cache, and GALEN_REQUIRE_MODELS is set");
        eprintln!("skipped: `{name}` is not in the cache");
    }
    found
}

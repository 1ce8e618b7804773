//! `kernels/ROOFLINE.md`: what each kernel's work takes at least, and what is expected, from its header's lines.

use super::manifest::Manifest;
use super::occupancy::CARDS;
use std::fmt::Write as _;

/// The page.
pub fn page(manifest: &Manifest) -> String {
    let mut out = String::from(
        "# Roofline\n\n\
         Written by `cargo run -p xtask -- cuda-check --write` from the `roofline:` lines of the kernels' headers: nothing \
         here was measured.\nThe bound is the larger of FLOPs over the tensor cores' bf16 rate and bytes over memory's \
         bandwidth; the\nexpected time is the bound over the share the header expects of it.\n\n",
    );
    let cards: Vec<_> = CARDS.iter().filter(|c| c.name != "RTX 4090").collect();
    for card in &cards {
        let _ = writeln!(
            out,
            "- {}: {:.0} TFLOP/s, {:.2} TB/s",
            card.name,
            card.flops / 1e12,
            card.bandwidth / 1e12
        );
    }
    let columns: String = cards.iter().map(|c| format!(" {} bound | expected |", c.name)).collect();
    let _ = writeln!(out, "\n| kernel | work | GFLOP | MB | FLOP/byte |{columns}");
    let _ = writeln!(out, "|---|---|---|---|---|{}", "---|---|".repeat(cards.len()));
    for line in &manifest.rooflines {
        let _ = write!(
            out,
            "| `{}` | {} | {:.1} | {:.1} | {:.0} |",
            line.names,
            line.what,
            line.flops / 1e9,
            line.bytes / 1e6,
            line.flops / line.bytes
        );
        for (card, share) in cards.iter().zip([line.share, line.share_sm_90]) {
            let (by_flops, by_bytes) = (line.flops / card.flops, line.bytes / card.bandwidth);
            let bound = by_flops.max(by_bytes);
            let kind = if by_flops > by_bytes { "FLOPs" } else { "bytes" };
            let _ = write!(out, " {} ({kind}) | {} |", time(bound), time(bound * 100.0 / share));
        }
        out.push('\n');
    }
    out
}

fn time(seconds: f64) -> String {
    if seconds >= 1e-3 { format!("{:.2} ms", seconds * 1e3) } else { format!("{:.1} us", seconds * 1e6) }
}

//! Numbers as people read them.

/// `1,234,567`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `8 min 05 s`, `2 h 03 min`, `12.3 s`.
pub(super) fn seconds(s: f64) -> String {
    let whole = s.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{s:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `1.4 GB` (10^9 bytes).
pub(super) fn bytes(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{:.0} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

/// A share as per cent, one decimal.
pub(super) fn percent(x: f64) -> String {
    format!("{:.1}", 100.0 * x)
}

/// A signed difference of shares in points.
pub(super) fn points(x: f64) -> String {
    format!("{:+.1}", 100.0 * x)
}

/// Three decimals, or a power of ten for what they would call 0.
pub(super) fn p_value(p: f64) -> String {
    if p >= 0.001 {
        return format!("{p:.3}");
    }
    if p < 1e-300 {
        return "< 10⁻³⁰⁰".to_owned();
    }
    let text = format!("{p:.0e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{mantissa} · 10{}", raised(exponent)),
        None => text,
    }
}

/// The number written as an exponent.
fn raised(number: &str) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let digit = |c: char| c.to_digit(10).map_or('⁻', |d| DIGITS[d as usize]);
    number.chars().map(digit).collect()
}

/// Four significant digits.
pub(super) fn short(x: f64) -> String {
    if x == 0.0 || (1e-3..1e5).contains(&x.abs()) {
        let decimals = if x == 0.0 { 0 } else { (3 - x.abs().log10().floor() as i32).clamp(0, 6) };
        let text = format!("{x:.*}", decimals as usize);
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    } else {
        format!("{x:.1e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable() {
        assert_eq!([count(0), count(999), count(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!([seconds(12.34), seconds(485.0), seconds(7380.0)], ["12.3 s", "8 min 05 s", "2 h 03 min"]);
        assert_eq!([bytes(1200), bytes(98_000_000), bytes(1_432_000_000)], ["1 kB", "98 MB", "1.43 GB"]);
        assert_eq!([percent(0.0694), points(0.631), points(-0.002)], ["6.9", "+63.1", "-0.2"]);
        assert_eq!([p_value(0.5), p_value(3.05e-64)], ["0.500", "3 · 10⁻⁶⁴"]);
        assert_eq!(
            [short(0.0), short(2.7189), short(0.0005), short(123_456.0), short(0.01)],
            ["0", "2.719", "5.0e-4", "1.2e5", "0.01"]
        );
    }
}

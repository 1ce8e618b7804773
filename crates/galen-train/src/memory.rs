//! What the system says of memory. Linux; elsewhere nothing is known.

/// Largest resident set of this process so far, bytes; 0 where unknown.
pub fn peak_rss_bytes() -> u64 {
    kilobytes("/proc/self/status", "VmHWM:").map_or(0, |kb| kb * 1024)
}

/// Memory that new work can have without swapping, bytes.
pub fn available_bytes() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable:").map(|kb| kb * 1024)
}

fn kilobytes(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|l| l.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

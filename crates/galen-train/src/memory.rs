//! What the system says of memory. Linux; elsewhere nothing is known.

use std::path::{Path, PathBuf};

/// Largest resident set of this process so far, bytes; 0 where unknown.
pub fn peak_rss_bytes() -> u64 {
    kilobytes("/proc/self/status", "VmHWM:").map_or(0, |kb| kb * 1024)
}

/// Memory that new work can have without swapping, bytes: the machine's, or what the limit of a container leaves.
pub fn available_bytes() -> Option<u64> {
    let machine = kilobytes("/proc/meminfo", "MemAvailable:").map(|kb| kb * 1024);
    machine.into_iter().chain(control_groups().iter().filter_map(|group| room(group))).min()
}

/// The least memory limit over this process: of its control group (version 2) and those above it.
pub fn limit_bytes() -> Option<u64> {
    control_groups().iter().filter_map(|group| number(&group.join("memory.max"))).min()
}

/// Folders of this process's control group and those above it.
fn control_groups() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = groups.lines().find_map(|l| l.strip_prefix("0::")) else { return Vec::new() };
    let own = top.join(own.trim_start_matches('/'));
    own.ancestors().take_while(|dir| dir.starts_with(top)).map(Path::to_path_buf).collect()
}

/// What a group's limit leaves; pages of files that are not in use are given back before anything is refused.
fn room(group: &Path) -> Option<u64> {
    let (most, used) = (number(&group.join("memory.max"))?, number(&group.join("memory.current"))?);
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let files =
        stat.lines().find_map(|l| l.strip_prefix("inactive_file ")).and_then(|n| n.trim().parse().ok());
    Some(most.saturating_sub(used.saturating_sub(files.unwrap_or(0))))
}

/// A file of one number; `max` is none.
fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn kilobytes(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|l| l.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_leaves_what_is_not_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("memory.current", "700\n");
        assert_eq!(room(dir.path()), None);
        write("memory.max", "max\n");
        assert_eq!(room(dir.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(room(dir.path()), Some(300));
        write("memory.stat", "anon 500\nactive_file 50\ninactive_file 150\n");
        assert_eq!(room(dir.path()), Some(450));
        write("memory.current", "1200\n");
        write("memory.stat", "anon 1200\n");
        assert_eq!(room(dir.path()), Some(0));
    }
}

//! `--profile FILE`: the recorded spans as a trace-event file (`chrome://tracing`, Perfetto, Firefox Profiler), and
//! each operation's share of the time.

use crate::progress::say;
use galen_ops::profile::{Phase, Profile, Span};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// An operation's own time in one phase: that of spans inside it is theirs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    /// The operation or stage.
    pub name: &'static str,
    /// `run`, `forward`, `evaluate`, `recompute` or `backward`.
    pub phase: &'static str,
    /// How often.
    pub calls: u64,
    /// Its own time, seconds.
    pub seconds: f64,
    /// Of the whole, percent.
    pub percent: f64,
}

/// Ends recording, writes the file and says where the time went. Nothing where nothing was recorded.
pub fn write(path: &Path) -> anyhow::Result<()> {
    let Some(profile) = galen_ops::profile::finish() else { return Ok(()) };
    let shares = shares(&profile);
    crate::session::replace(path, trace(&profile, &shares)?.as_bytes())?;
    say(&table(&profile, &shares));
    say(&format!("profile: {} spans in {}", profile.spans.len(), path.display()));
    if profile.dropped > 0 {
        say(&format!("profile: {} later spans were not kept: set `max_steps`", profile.dropped));
    }
    Ok(())
}

/// Shares of the whole time, the largest first; time outside every span is `(other)`, so that they add up to 100 %.
/// Where spans lie on several threads, those of the first count.
pub fn shares(profile: &Profile) -> Vec<Share> {
    let main = profile.spans.iter().map(|s| s.thread).min();
    let mut spans: Vec<&Span> = profile.spans.iter().filter(|s| Some(s.thread) == main).collect();
    // Outer spans before those inside them.
    spans.sort_by_key(|s| (s.begin_ns, std::cmp::Reverse(s.end_ns)));
    let mut own: BTreeMap<(&'static str, Phase), (u64, u64)> = BTreeMap::new();
    let mut add = |span: &Span, own_ns: u64| {
        let entry = own.entry((span.name, span.phase)).or_default();
        *entry = (entry.0 + 1, entry.1 + own_ns);
    };
    // Open spans with the time of what lies directly inside them.
    let mut open: Vec<(&Span, u64)> = Vec::new();
    let mut outermost_ns = 0;
    for span in spans {
        while let Some((outer, inside)) = open.pop_if(|(outer, _)| outer.end_ns <= span.begin_ns) {
            add(outer, (outer.end_ns - outer.begin_ns).saturating_sub(inside));
        }
        let length = span.end_ns - span.begin_ns;
        match open.last_mut() {
            Some((_, inside)) => *inside += length,
            None => outermost_ns += length,
        }
        open.push((span, 0));
    }
    for (span, inside) in open {
        add(span, (span.end_ns - span.begin_ns).saturating_sub(inside));
    }
    let whole = (profile.wall.as_nanos() as f64).max(1.0);
    let share = |name, phase: Phase, calls, ns: u64| Share {
        name,
        phase: phase.name(),
        calls,
        seconds: ns as f64 / 1e9,
        percent: 100.0 * ns as f64 / whole,
    };
    let mut shares: Vec<Share> =
        own.into_iter().map(|((name, phase), (calls, ns))| share(name, phase, calls, ns)).collect();
    let other = (whole as u64).saturating_sub(outermost_ns);
    shares.push(share("(other)", Phase::Run, 1, other));
    shares.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    shares
}

#[derive(Serialize)]
struct Trace<'a> {
    #[serde(rename = "traceEvents")]
    events: Vec<Event>,
    #[serde(rename = "displayTimeUnit")]
    unit: &'static str,
    #[serde(rename = "otherData")]
    other: Other<'a>,
}

/// A complete event: `ts` and `dur` in microseconds.
#[derive(Serialize)]
struct Event {
    name: &'static str,
    cat: &'static str,
    ph: &'static str,
    ts: f64,
    dur: f64,
    pid: u32,
    tid: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    args: BTreeMap<&'static str, u32>,
}

#[derive(Serialize)]
struct Other<'a> {
    galen: &'static str,
    kernel_path: &'static str,
    threads: usize,
    wall_seconds: f64,
    dropped: u64,
    shares: &'a [Share],
}

fn trace(profile: &Profile, shares: &[Share]) -> anyhow::Result<String> {
    let us = |ns: u64| ns as f64 / 1e3;
    let mut events: Vec<Event> = profile
        .spans
        .iter()
        .map(|s| Event {
            name: s.name,
            cat: s.phase.name(),
            ph: "X",
            ts: us(s.begin_ns),
            dur: us(s.end_ns - s.begin_ns),
            pid: 1,
            tid: s.thread,
            args: s.layer.map(|l| ("layer", l)).into_iter().collect(),
        })
        .collect();
    events.sort_by(|a, b| a.ts.total_cmp(&b.ts).then(b.dur.total_cmp(&a.dur)));
    let other = Other {
        galen: env!("CARGO_PKG_VERSION"),
        kernel_path: galen_ops::isa().name(),
        threads: rayon::current_num_threads(),
        wall_seconds: profile.wall.as_secs_f64(),
        dropped: profile.dropped,
        shares,
    };
    Ok(serde_json::to_string(&Trace { events, unit: "ms", other })?)
}

fn table(profile: &Profile, shares: &[Share]) -> String {
    let mut out = format!("profile of {:.2} s\n", profile.wall.as_secs_f64());
    let _ = writeln!(out, "{:>7} {:>9} {:>8}  operation", "share", "time", "calls");
    for s in shares.iter().filter(|s| s.percent >= 0.05) {
        let Share { name, phase, calls, seconds, percent } = s;
        let phase = if *phase == "run" { String::new() } else { format!(" ({phase})") };
        let _ = writeln!(out, "{percent:>5.1} % {seconds:>7.2} s {calls:>8}  {name}{phase}");
    }
    let rest: f64 = shares.iter().filter(|s| s.percent < 0.05).map(|s| s.percent).sum();
    let _ = write!(out, "{rest:>5.1} % {:>19}  (less than 0.05 % each)", "");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn span(name: &'static str, phase: Phase, begin_ns: u64, end_ns: u64) -> Span {
        Span { name, phase, layer: Some(2), thread: 4, begin_ns, end_ns }
    }

    fn profile() -> Profile {
        let spans = vec![
            span("op", Phase::Forward, 10, 30),
            span("op", Phase::Forward, 30, 40),
            span("block", Phase::Forward, 10, 45),
            span("op", Phase::Backward, 50, 60),
            span("step", Phase::Run, 5, 70),
            // Another thread's time is not this one's.
            Span { thread: 5, ..span("other thread", Phase::Run, 0, 100) },
        ];
        Profile { spans, wall: Duration::from_nanos(100), dropped: 0 }
    }

    #[test]
    fn own_time_adds_up_to_the_whole() {
        let shares = shares(&profile());
        let of = |name: &str, phase: &str| {
            let found = shares.iter().find(|s| s.name == name && s.phase == phase).unwrap();
            (found.calls, (found.percent * 1e6).round() / 1e6)
        };
        assert_eq!(of("op", "forward"), (2, 30.0));
        assert_eq!(of("op", "backward"), (1, 10.0));
        assert_eq!(of("block", "forward"), (1, 5.0));
        assert_eq!(of("step", "run"), (1, 20.0));
        assert_eq!(of("(other)", "run"), (1, 35.0));
        assert!((shares.iter().map(|s| s.percent).sum::<f64>() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn the_trace_is_json_of_complete_events() {
        let profile = profile();
        let text = trace(&profile, &shares(&profile)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let events = value["traceEvents"].as_array().unwrap();
        assert_eq!(events.len(), 6);
        assert!(events.iter().all(|e| e["ph"] == "X" && e["args"]["layer"] == 2));
        let step = events.iter().find(|e| e["name"] == "step").unwrap();
        assert_eq!((step["ts"].as_f64(), step["dur"].as_f64()), (Some(0.005), Some(0.065)));
        assert!(table(&profile, &shares(&profile)).contains("30.0 %"));
    }
}

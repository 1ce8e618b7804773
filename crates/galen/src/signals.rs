//! Ctrl-C and SIGTERM: the first asks, the second ends.

use crate::error::Interrupted;
use crate::progress::say;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How often [`exit_after`] looks.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Whether a signal asked the run to stop. Cheap to ask at every step.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// Listens for SIGINT and SIGTERM. A second one ends the process at once with its exit code.
    pub fn listen() -> std::io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for (number, code) in [(signal_hook::consts::SIGINT, 130), (signal_hook::consts::SIGTERM, 143)] {
            let asked = Arc::new(AtomicBool::new(false));
            // Order matters: the second signal finds `asked` true before it is set again.
            signal_hook::flag::register_conditional_shutdown(number, code, Arc::clone(&asked))?;
            signal_hook::flag::register(number, asked)?;
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)?;
        }
        Ok(Self { signal })
    }

    /// The signal that asked, if one did.
    pub fn asked(&self) -> Option<Interrupted> {
        let signal = self.signal.load(Ordering::Relaxed);
        (signal != 0).then(|| Interrupted { signal: u8::try_from(signal).unwrap_or(u8::MAX) })
    }
}

/// Ends the process at the first Ctrl-C or SIGTERM, with its exit code, after `clean`; what that gives is held to the end.
/// For commands that keep nothing unfinished.
pub fn exit_after<G>(clean: impl FnOnce() -> G + Send + 'static) -> std::io::Result<()> {
    let stop = Stop::listen()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        loop {
            if let Some(stopped) = stop.asked() {
                let _held = clean();
                say(&format!("{stopped}: what was not finished is gone, what was there before is whole"));
                std::process::exit(128 + i32::from(stopped.signal));
            }
            std::thread::sleep(ASK_EVERY);
        }
    })?;
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_asks() {
        let stop = Stop::listen().unwrap();
        assert_eq!(stop.asked(), None);
        signal_hook::low_level::raise(signal_hook::consts::SIGTERM).unwrap();
        assert_eq!(stop.asked(), Some(Interrupted { signal: 15 }));
    }
}

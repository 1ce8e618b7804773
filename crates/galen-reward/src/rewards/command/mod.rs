//! A program judges: one JSON object a line in, one a line out.

mod lines;
mod process;
mod protocol;

use crate::error::shorten;
use crate::options::{Kind, Param};
use crate::{Completion, ConfigError, Options, Reward, RewardEntry, RewardError, Turn};
use process::{Event, Process};
use protocol::{Batch, Refusal};
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const ENTRY: RewardEntry = RewardEntry {
    name: "command",
    about: "what a program of one's own answers, a JSON object a line each way",
    doc: DOC,
    params: &[PARAMS],
    build,
};

const DOC: &str = r#"The program is started once and kept. It reads one request a line from its standard input,

```json
{"id": 7, "prompt": "...", "completion": "...", "tokens": 31, "finish_reason": "stop", "row": {"answer": "B"}}
```

(`prompt` is text, or the list of messages; `tokens` null for a text that was not sampled; `row` the data row; `finish_reason`
`length` where the limit cut the completion) and writes one answer a line to its standard output, flushed, in any order:

```json
{"id": 7, "reward": 0.5}
```

`"reward": null` says that it does not apply, `"error": "why"` in place of a reward stops the run with that text. What it
prints to standard error is shown, its last lines, when something goes wrong. It is to end when its input ends.

A program that dies or runs out of time is started again, up to `retries` times a batch, and sent only the requests it has
not answered. An answer that is no JSON object, an id that is unknown or answered already, a reward that is not finite and
a line over `max_line_bytes` are mistakes of the program and stop the run.

No shell is involved: a text is split into words by the shell's rules of quoting, nothing in it is expanded. For a shell,
write a list: `[sh, -c, "..."]`."#;

const PARAMS: &[Param] = &[
    Param::required(
        "command",
        Kind::Texts,
        "the program and its arguments: one text, split into words, or a list of words",
    ),
    Param::with(
        "timeout_s",
        Kind::Number,
        "60",
        "seconds the answers to one batch may take, each time it is tried",
    ),
    Param::with("retries", Kind::Count, "2", "times the program is started again for one batch"),
    Param::with("max_line_bytes", Kind::Count, "1048576", "longest answer"),
];

fn build(options: &Options<'_>) -> Result<Box<dyn Reward>, ConfigError> {
    let argv = match options.value("command")? {
        Some(Value::String(line)) => {
            shell_words::split(&line).map_err(|e| options.wrong("command", format!("`{line}`: {e}")))?
        }
        _ => options.texts("command")?,
    };
    if argv.first().is_none_or(String::is_empty) {
        return Err(options.wrong("command", "names no program"));
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return Err(options.wrong("command", "has a zero byte"));
    }
    Ok(Box::new(CommandReward {
        label: options.label.to_owned(),
        argv,
        timeout: options.seconds("timeout_s")?,
        retries: options.count("retries")?,
        max_line: options.positive("max_line_bytes")?,
        state: Mutex::default(),
    }))
}

struct CommandReward {
    label: String,
    argv: Vec<String>,
    timeout: Duration,
    retries: usize,
    max_line: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    process: Option<Process>,
    /// Of the next request.
    next_id: u64,
}

/// Why the answers to a batch stopped coming.
enum Stopped {
    /// It may do better when started again: died, or out of time.
    Retry(String),
    /// It broke the protocol or said that it cannot.
    Fatal(Refusal),
}

impl CommandReward {
    fn failed(&self, what: impl Into<String>, stderr: &[String], hint: Option<&str>) -> RewardError {
        let tail = match stderr {
            [] => String::new(),
            lines => format!("; the last it wrote to stderr:\n  {}", lines.join("\n  ")),
        };
        RewardError::Command {
            reward: self.label.clone(),
            program: self.argv[0].clone(),
            what: what.into(),
            stderr: tail,
            hint: hint.map(str::to_owned),
        }
    }

    /// The running process, started where there is none.
    fn running<'p>(&self, slot: &'p mut Option<Process>) -> Result<&'p mut Process, RewardError> {
        // One that ended between batches owes no answer.
        if slot.as_mut().is_some_and(Process::has_ended) {
            *slot = None;
        }
        match slot {
            Some(process) => Ok(process),
            None => match Process::spawn(&self.argv, self.max_line) {
                Ok(process) => Ok(slot.insert(process)),
                Err(e) => {
                    let hint = "it is looked for in `PATH`, or give its path; no shell is involved";
                    Err(self.failed(format!("cannot be started: {e}"), &[], Some(hint)))
                }
            },
        }
    }

    /// Sends what is unanswered and reads until all is answered.
    fn attempt(&self, process: &mut Process, batch: &mut Batch<'_>) -> Result<(), Stopped> {
        process.send(batch.requests());
        let deadline = Instant::now() + self.timeout;
        while batch.unanswered() > 0 {
            let left = format!("with {} of {} completions unanswered", batch.unanswered(), batch.len());
            match process.next(deadline) {
                Event::Line(line) => batch.accept(&line).map_err(Stopped::Fatal)?,
                Event::TooLong => {
                    let limit = self.max_line;
                    return Err(Stopped::Fatal(format!("wrote a line of more than `{limit}` bytes").into()));
                }
                Event::End => return Err(Stopped::Retry(format!("ended {left}"))),
                Event::TimeOut => {
                    let seconds = self.timeout.as_secs_f64();
                    return Err(Stopped::Retry(format!("took more than {seconds} s {left}")));
                }
            }
        }
        Ok(())
    }
}

impl Reward for CommandReward {
    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::new(completions, state.next_id);
        state.next_id += completions.len() as u64;
        let slot = &mut state.process;
        let mut restarts = 0;
        while batch.unanswered() > 0 {
            let process = self.running(slot)?;
            let Err(stopped) = self.attempt(process, &mut batch) else { break };
            let (how, stderr) = slot.take().map(Process::end).unwrap_or_default();
            match stopped {
                Stopped::Fatal(Refusal { what, hint }) => return Err(self.failed(what, &stderr, hint)),
                Stopped::Retry(what) if restarts == self.retries => {
                    let times = match restarts {
                        0 => "1 time".to_owned(),
                        more => format!("{} times", more + 1),
                    };
                    return Err(self.failed(format!("{what} ({how}), started {times}"), &stderr, None));
                }
                Stopped::Retry(_) => restarts += 1,
            }
        }
        Ok(batch.into_rewards())
    }

    fn start(&self) -> Result<(), RewardError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.running(&mut state.process).map(|_| ())
    }

    fn turn(&self) -> Turn {
        Turn::Beside
    }
}

/// A program's line in an error.
fn quoted(line: &[u8]) -> String {
    format!("`{}`", shorten(&String::from_utf8_lossy(line), 200))
}

//! A program with a thread for each of its streams, so that neither side ever waits for the other to read.

use super::lines::{Line, read_line};
use std::collections::VecDeque;
use std::io::{BufReader, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a program whose input ended may take to end.
const GRACE: Duration = Duration::from_secs(1);
/// Lines read ahead of whoever takes them.
const READ_AHEAD: usize = 64;
/// What is kept of standard error: lines, and bytes of each.
const STDERR_LINES: usize = 20;
const STDERR_LINE_BYTES: usize = 400;

/// What a program did.
pub(super) enum Event {
    /// It wrote a line.
    Line(Vec<u8>),
    /// It wrote a line over the limit.
    TooLong,
    /// It closed its output: it ended, or will never answer again.
    End,
    /// Nothing came before the deadline.
    TimeOut,
}

/// A running program. Dropped, it is ended and reaped.
pub(super) struct Process {
    child: Child,
    /// Dropped, the program's input ends.
    input: Option<Sender<Vec<u8>>>,
    /// Dropped, the reading thread stops at its next line.
    output: Option<Receiver<Event>>,
    stderr: Receiver<VecDeque<String>>,
    reaped: bool,
}

impl Process {
    /// Starts `argv`; its answers may have `max_line` bytes.
    pub(super) fn spawn(argv: &[String], max_line: usize) -> std::io::Result<Self> {
        let (program, arguments) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: what it starts ends with it, and Ctrl-C reaches galen alone, which then writes its checkpoint.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let (input, requests) = channel();
        let (answers, output) = sync_channel(READ_AHEAD);
        let (last, stderr) = channel();
        if let Some(stdin) = child.stdin.take() {
            thread::spawn(move || write(stdin, &requests));
        }
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || read(stdout, max_line, &answers));
        }
        if let Some(pipe) = child.stderr.take() {
            thread::spawn(move || keep_last(pipe, &last));
        }
        Ok(Self { child, input: Some(input), output: Some(output), stderr, reaped: false })
    }

    /// Queues bytes for the program's input. That it is gone shows in [`Process::next`].
    pub(super) fn send(&self, bytes: Vec<u8>) {
        if let Some(input) = &self.input {
            let _ = input.send(bytes);
        }
    }

    /// What it does next, until `deadline`.
    pub(super) fn next(&self, deadline: Instant) -> Event {
        let Some(output) = &self.output else { return Event::End };
        match output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => Event::TimeOut,
            Err(RecvTimeoutError::Disconnected) => Event::End,
        }
    }

    /// Ends it. Gives how it ended, and the last lines of its standard error.
    pub(super) fn end(mut self) -> (String, Vec<String>) {
        // One that is ending by itself gets to say how.
        let by_itself = self.wait_until(Instant::now() + Duration::from_millis(200));
        let status = self.kill();
        let how = match (by_itself, status) {
            (true, Some(status)) => status.to_string(),
            _ => "it was killed".to_owned(),
        };
        // The thread sends once the pipe is closed; what the program started elsewhere may keep it open.
        let lines = self.stderr.recv_timeout(GRACE).unwrap_or_default();
        (how, lines.into())
    }

    /// Whether it ends before `deadline`; it is not reaped, so that its number stays its own.
    fn wait_until(&mut self, deadline: Instant) -> bool {
        loop {
            if self.has_ended() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it has ended; it is not reaped.
    #[cfg(unix)]
    pub(super) fn has_ended(&mut self) -> bool {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Pid::from_raw(self.child.id().cast_signed())
            .is_none_or(|pid| waitid(WaitId::Pid(pid), options).map_or(true, |status| status.is_some()))
    }

    /// Whether it has ended.
    #[cfg(not(unix))]
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().map_or(true, |status| status.is_some())
    }

    /// Kills it with what it started, and reaps it.
    fn kill(&mut self) -> Option<ExitStatus> {
        self.input = None;
        self.output = None;
        self.reaped = true;
        #[cfg(unix)]
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.input = None;
            self.output = None;
            self.wait_until(Instant::now() + GRACE);
            self.kill();
        }
    }
}

/// Until the sender is gone or the program reads no more.
fn write(mut stdin: ChildStdin, requests: &Receiver<Vec<u8>>) {
    for bytes in requests {
        if stdin.write_all(&bytes).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

/// Until the output ends, a line is too long, or nobody takes it.
fn read(stdout: ChildStdout, max_line: usize, answers: &SyncSender<Event>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let event = match read_line(&mut reader, max_line) {
            Line::Whole(line) => Event::Line(line),
            Line::TooLong(_) => Event::TooLong,
            Line::End => Event::End,
        };
        let last = !matches!(event, Event::Line(_));
        if answers.send(event).is_err() || last {
            return;
        }
    }
}

/// Reads to the end, whatever there is, and keeps the last lines.
fn keep_last(pipe: ChildStderr, last: &Sender<VecDeque<String>>) {
    let mut reader = BufReader::new(pipe);
    let mut lines = VecDeque::new();
    let mut within = false;
    loop {
        let (bytes, continues) = match read_line(&mut reader, STDERR_LINE_BYTES) {
            Line::Whole(line) => (line, false),
            Line::TooLong(head) => (head, true),
            Line::End => break,
        };
        // Of a long line the beginning is kept.
        if !within && !bytes.iter().all(u8::is_ascii_whitespace) {
            lines.push_back(crate::error::shorten(&String::from_utf8_lossy(&bytes), STDERR_LINE_BYTES));
        }
        within = continues;
        if lines.len() > STDERR_LINES {
            lines.pop_front();
        }
    }
    let _ = last.send(lines);
}

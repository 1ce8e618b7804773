//! A server of tiny models, and a client of few lines: what is sent and read is seen to the byte.

use crate::adapters_together::adapters;
use crate::cli::Bench;
use galen_adapter::{BaseRecord, save_peft};
use galen_model::{LoadOptions, Model, Weights};
use galen_ops::ops::Compute;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A directory with the tiny model `m.gguf` and adapters `a0`, `a1`, `a2` over it.
pub fn bench() -> Bench {
    let bench = Bench::new();
    let model = model(&bench);
    for (i, adapter) in adapters(&model).iter().enumerate() {
        let dir = bench.path(&format!("a{i}"));
        std::fs::create_dir(&dir).expect("a directory");
        save_peft(adapter, &BaseRecord::default(), &dir).expect("saved");
    }
    bench
}

/// As the server holds it.
pub fn model(bench: &Bench) -> Model {
    let weights = Weights::open(&bench.path("m.gguf")).expect("weights");
    let compute = if galen_ops::isa().prefers_bf16() { Compute::Bf16 } else { Compute::F32 };
    Model::load(&weights, LoadOptions { compute, ..LoadOptions::default() }).expect("a model")
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// The events of a stream that ended as it should.
    pub fn events(&self) -> Vec<Value> {
        let data: Vec<&str> = self.body.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
        let (last, events) = data.split_last().expect("an event");
        assert_eq!(*last, "[DONE]", "{self:?}");
        events.iter().map(|e| serde_json::from_str(e).expect("JSON")).collect()
    }
}

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Serves `m.gguf` and `a0`, `a1`, `a2` as `m`, `zero`, `one`, `two`.
    pub fn start(bench: &Bench, args: &[&str]) -> Self {
        let own = ["serve", "-m", "m.gguf", "--port", "0", "--adapter", "zero=a0", "one=a1", "two=a2"];
        Self::start_with(bench, &[&own[..], args].concat())
    }

    pub fn start_with(bench: &Bench, args: &[&str]) -> Self {
        let mut child = bench.command(args).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let mut said = String::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else { panic!("the server ended: {said}") };
            said += &format!("{line}\n");
            if let Some(address) = line.strip_prefix("listening on http://") {
                break address.parse().expect("an address");
            }
        };
        let said = Arc::new(Mutex::new(said));
        let sink = said.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *sink.lock().expect("a lock") += &format!("{line}\n");
            }
        });
        Self { child, address, said }
    }

    /// All it printed.
    pub fn said(&self) -> String {
        self.said.lock().expect("a lock").clone()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_mins(2))).expect("a timeout");
        stream
    }

    /// Sends bytes on a connection of their own and reads to its end.
    pub fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // The server may answer before it has read everything.
        let _ = stream.write_all(bytes);
        read(stream)
    }

    pub fn get(&self, path: &str) -> Reply {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.raw(&request(path, "", &body.to_string()))
    }

    pub fn chat(&self, body: &Value) -> Reply {
        self.post("/v1/chat/completions", body)
    }

    /// One of `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let body = self.get("/metrics").is(200).body;
        let value = body.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no `{name}` in {body}"))
    }

    /// Waits until `done`.
    pub fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < Duration::from_mins(1), "{what} does not come");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    }

    /// Its exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().expect("waited for").code()
    }
}

/// A POST of JSON; `more`: header lines.
pub fn request(path: &str, more: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{more}\r\n{body}"
    )
    .into_bytes()
}

pub fn read(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    // A server that refuses a body closes before it is sent.
    let _ = stream.read_to_end(&mut bytes);
    let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no head in `{}`", String::from_utf8_lossy(&bytes));
    });
    let head = String::from_utf8(bytes[..at].to_vec()).expect("text").to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    let mut rest = &bytes[at + 4..];
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
            let size = std::str::from_utf8(&rest[..end]).ok().and_then(|s| usize::from_str_radix(s, 16).ok());
            let size = size.expect("a chunk's size");
            // Each chunk is an event or several: text by itself.
            body.extend(String::from_utf8(rest[end + 2..end + 2 + size].to_vec()).expect("text").bytes());
            rest = &rest[(end + 4 + size).min(rest.len())..];
        }
    } else {
        body.extend(rest);
    }
    Reply { status, head, body: String::from_utf8(body).expect("text") }
}

//! An endpoint of few lines that speaks HTTP, and does to a client whatever a test wants.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a request is answered with.
pub enum Act {
    /// A completion of this text, after a while.
    Say(String, Duration),
    /// Status, further header lines, body.
    Raw(u16, String, Vec<u8>),
    /// The connection is closed in the middle of an answer.
    Break,
}

/// A request that came in.
pub struct Asked {
    /// In order of arrival, from 0.
    pub number: usize,
    /// The text of its last message.
    pub prompt: String,
    /// All header lines, in lower case.
    pub head: String,
}

type Decide = dyn Fn(&Asked) -> Act + Send + Sync;

pub struct Mock {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
}

impl Mock {
    /// Serves until the test ends.
    pub fn start(decide: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (requests, decide): (_, Arc<Decide>) = (Arc::new(AtomicUsize::new(0)), Arc::new(decide));
        let counted = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (decide, counted) = (decide.clone(), counted.clone());
                std::thread::spawn(move || serve(stream, &*decide, &counted));
            }
        });
        Self { address, requests }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

/// Answers requests of one connection, one after the other, until the client goes away.
fn serve(stream: TcpStream, decide: &Decide, counted: &AtomicUsize) {
    let _ = stream.set_nodelay(true);
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = request(&mut reader) {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        let body: Value = serde_json::from_slice(&body).expect("the client sends JSON");
        let last = body["messages"].as_array().and_then(|m| m.last()).cloned().unwrap_or_default();
        let prompt = last["content"].as_str().or(body["prompt"].as_str()).unwrap_or_default().to_owned();
        let n = body["n"].as_u64().unwrap_or(1) as usize;
        let (status, more, bytes) = match decide(&Asked { number, prompt, head }) {
            Act::Say(text, pause) => {
                std::thread::sleep(pause);
                (200, String::new(), completion(&text, n).to_string().into_bytes())
            }
            Act::Raw(status, more, bytes) => (status, more, bytes),
            Act::Break => {
                let _ = writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"choices\"");
                return;
            }
        };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{more}\r\n", bytes.len());
        if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&bytes)).is_err() {
            return;
        }
    }
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head += &line;
        head.push('\n');
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// The same text in every choice.
pub fn completion(text: &str, n: usize) -> Value {
    let choice = |i: usize| json!({"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5 * n, "total_tokens": 10 + 5 * n});
    json!({"object": "chat.completion", "choices": (0..n).map(choice).collect::<Vec<_>>(), "usage": usage})
}

/// What each prompt was given, for tests that count.
pub type Counts = Arc<Mutex<std::collections::HashMap<String, usize>>>;

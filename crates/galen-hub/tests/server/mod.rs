//! A loopback HTTP server for tests: one thread a connection, one request a connection, every request recorded.

#![allow(clippy::unwrap_used, dead_code, reason = "test code; each test binary uses a part")]

pub mod hub;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// First byte asked for by `Range: bytes=N-`.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

#[derive(Default)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Close the connection after this many bytes of the body.
    cut: Option<usize>,
    /// Say nothing at all for this long, then close.
    hang: Option<Duration>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub fn hang(time: Duration) -> Self {
        Self { hang: Some(time), ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    /// 200 with everything, or 206 from where the request asks.
    pub fn bytes(request: &Request, body: &[u8]) -> Self {
        match request.from() {
            Some(from) if from < body.len() => {
                let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
                Self::new(206, &body[from..]).header("Content-Range", range)
            }
            Some(_) => Self::new(416, ""),
            None => Self::new(200, body),
        }
    }
}

pub struct Server {
    pub url: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (seen, handler) = (log.clone(), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, handler) = (seen.clone(), handler.clone());
                std::thread::spawn(move || serve(stream, &seen, handler.as_ref()));
            }
        });
        Self { url, log }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    pub fn count(&self, method: &str) -> usize {
        self.requests().iter().filter(|r| r.method == method).count()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Request>>, handler: &(dyn Fn(&Request) -> Answer + Sync)) {
    use std::fmt::Write as _;
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let header = |l: String| l.split_once(':').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()));
    let headers = lines.take_while(|l| !l.is_empty()).filter_map(header).collect();
    let request = Request { method, path, headers };
    log.lock().unwrap().push(request.clone());
    let answer = handler(&request);
    if let Some(time) = answer.hang {
        std::thread::sleep(time);
        return;
    }
    let mut head = format!("HTTP/1.1 {} Test\r\nConnection: close\r\n", answer.status);
    if !answer.headers.iter().any(|(k, _)| k.eq_ignore_ascii_case("content-length")) {
        let _ = write!(head, "Content-Length: {}\r\n", answer.body.len());
    }
    for (k, v) in &answer.headers {
        let _ = write!(head, "{k}: {v}\r\n");
    }
    let _ = stream.write_all((head + "\r\n").as_bytes());
    if request.method != "HEAD" {
        let end = answer.cut.unwrap_or(answer.body.len()).min(answer.body.len());
        let _ = stream.write_all(&answer.body[..end]);
    }
}

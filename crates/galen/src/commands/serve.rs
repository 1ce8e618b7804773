//! `galen serve`.

use crate::cli::Globals;
use crate::error::UsageError;
use crate::progress::say;
use crate::session::{Serving, ServingOptions};
use crate::signals::Stop;
use anyhow::Context as _;
use galen_engine::Engine;
use galen_engine::http::{ApiKeys, Drained, ServerOptions, serve};
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A year, in seconds: more than any wait, and no overflow of a clock.
const YEAR: u64 = 31_536_000;

/// Largest file of keys read.
const MAX_KEY_FILE: u64 = 1 << 20;

/// Flags of `galen serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is served.
    #[command(flatten)]
    pub serving: ServingOptions,
    /// The address to listen on; others than this machine's own need `--api-key-file`
    #[arg(long, value_name = "H", default_value = "127.0.0.1")]
    pub host: String,
    /// The port; 0: any that is free
    #[arg(long, value_name = "P", default_value_t = 8080)]
    pub port: u16,
    /// A file with an API key a line: requests must send one of them
    #[arg(long, alias = "api_key_file", value_name = "F")]
    pub api_key_file: Option<PathBuf>,
    /// Listen on an address of a network without an API key: whoever reaches it may use it
    #[arg(long, conflicts_with = "api_key_file")]
    pub allow_unauthenticated: bool,
    /// A further host's name that requests may carry where there is no API key; may be repeated
    #[arg(long, value_name = "NAME")]
    pub allowed_host: Vec<String>,
    /// Let clients load and unload adapters below this folder (`/v1/load_lora_adapter`)
    #[arg(long, alias = "adapter_dir", value_name = "DIR")]
    pub adapter_dir: Option<PathBuf>,
    /// Requests that may wait for a place in the batch; further ones are answered with 429
    #[arg(long, alias = "max_waiting", value_name = "N", default_value_t = 256, value_parser = crate::session::positive)]
    pub max_waiting: usize,
    /// Most connections at a time
    #[arg(long, alias = "max_connections", value_name = "N", default_value_t = 512, value_parser = crate::session::positive)]
    pub max_connections: usize,
    /// Largest body of a request, in KiB
    #[arg(long, alias = "max_body_kib", value_name = "KIB", default_value_t = 4096, value_parser = crate::session::positive)]
    pub max_body_kib: usize,
    /// Seconds that a client may take to send headers, and a body, and that it may leave an answer unread
    #[arg(long, alias = "receive_timeout", value_name = "S", value_parser = clap::value_parser!(u64).range(1..=YEAR), default_value_t = 30)]
    pub receive_timeout: u64,
    /// Seconds that a request may take altogether
    #[arg(long, alias = "request_timeout", value_name = "S", value_parser = clap::value_parser!(u64).range(1..=YEAR), default_value_t = 600)]
    pub request_timeout: u64,
    /// Seconds that requests under way have when the server is told to stop
    #[arg(long, alias = "drain_timeout", value_name = "S", value_parser = clap::value_parser!(u64).range(..=YEAR), default_value_t = 30)]
    pub drain_timeout: u64,
}

/// Serves until a signal; 0 where every request was answered, 130 or 143 where some were cut off.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<()> {
    let address = address(&args.host, args.port)?;
    let keys = args.api_key_file.as_deref().map(keys).transpose()?;
    if !address.ip().is_loopback() && keys.is_none() && !args.allow_unauthenticated {
        let message =
            format!("`--host {}` is reached from other machines, and there is no API key", args.host);
        let hint = "`--api-key-file F`, or `--allow-unauthenticated` if everybody who reaches it may use it";
        return Err(UsageError::new(message, hint).into());
    }
    if let Some(dir) = &args.adapter_dir
        && !dir.is_dir()
    {
        return Err(
            UsageError::new(format!("`--adapter-dir {}` is no folder", dir.display()), "make it").into()
        );
    }
    // Before the work of loading: a port in use is known at once.
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    let address = listener.local_addr()?;
    let hosts = (keys.is_none() && address.ip().is_loopback()).then(|| hosts(&args));
    let options = ServerOptions {
        keys,
        max_body_bytes: args.max_body_kib << 10,
        receive_timeout: Duration::from_secs(args.receive_timeout),
        request_timeout: Duration::from_secs(args.request_timeout),
        max_connections: args.max_connections,
        drain_timeout: Duration::from_secs(args.drain_timeout),
        adapter_dir: args.adapter_dir,
        hosts,
    };
    let asked = ServingOptions { device: globals.device.unwrap_or_default(), ..args.serving };
    let serving = Serving::open(asked, args.max_waiting, globals.offline)?;
    let names = serving.names();
    let Serving { engine, worker, model_bytes, .. } = serving;
    let stop = Stop::listen()?;
    let asked = stop.clone();
    let front = engine.clone();
    let server = std::thread::Builder::new().name("http".into()).spawn(move || {
        // However the server ends, the worker ends with it.
        let _guard = Guard(engine);
        serve(listener, front, options, move || asked.asked().is_some())
    })?;
    let mib = model_bytes.div_ceil(1 << 20);
    say(&format!("serving {} ({mib} MiB of weights)", names.join(", ")));
    say(&format!("listening on http://{address}"));
    // On this thread, which is one of the pool's: no product has to wake another first.
    worker();
    match server.join().map_err(|_| anyhow::anyhow!("the server's thread panicked"))?? {
        Drained::All => Ok(()),
        Drained::CutOff => {
            say(&format!("requests took longer than {} s and were cut off", args.drain_timeout));
            Err(stop.asked().map_or_else(|| anyhow::anyhow!("cut off"), Into::into))
        }
    }
}

struct Guard(Arc<dyn Engine>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn address(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok((ip, port).into());
    }
    let found = (bare, port).to_socket_addrs().ok().and_then(|mut all| all.next());
    found.ok_or_else(|| {
        UsageError::new(format!("`--host {host}` has no address"), "`--host 127.0.0.1`").into()
    })
}

fn keys(path: &Path) -> anyhow::Result<ApiKeys> {
    let origin = || path.display().to_string();
    let size = std::fs::metadata(path).with_context(origin)?.len();
    anyhow::ensure!(size <= MAX_KEY_FILE, "{}: {size} bytes is no file of keys", path.display());
    let text = std::fs::read_to_string(path).with_context(origin)?;
    ApiKeys::parse(&text).with_context(origin)
}

/// The names of this machine for itself, and what was allowed.
fn hosts(args: &Args) -> Vec<String> {
    let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
    own.into_iter().chain([args.host.clone()]).chain(args.allowed_host.iter().cloned()).collect()
}

//! Connections: accepted within limits, and let end when the server is told to stop.

use super::{App, ServerOptions, router};
use crate::engine::Engine;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request was answered.
    All,
    /// Some took longer than they may, and were cut off.
    CutOff,
}

/// How often it is asked whether to stop.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Serves until `stop` says so, then lets requests under way end. Runs its own event loop on this thread.
pub fn serve(
    listener: TcpListener,
    engine: Arc<dyn Engine>,
    options: ServerOptions,
    stop: impl Fn() -> bool,
) -> io::Result<Drained> {
    let stop = async {
        while !stop() {
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Tokenising requests; each may hold as much as a body.
        .max_blocking_threads(8)
        .build()?;
    let drained = runtime.block_on(accept(listener, App::new(engine, options), stop));
    // Blocked work ends by itself or with the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drained
}

async fn accept(listener: TcpListener, app: Arc<App>, stop: impl Future<Output = ()>) -> io::Result<Drained> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(app.options.max_connections.max(1)));
    let router = router(app.clone());
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = async {
            // Never closed, so there is always a permit in the end.
            let permit = room.clone().acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stop => break,
            accepted = next => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, say: those held will be given back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // A streamed token is a small packet that must not wait for the next.
        let _ = stream.set_nodelay(true);
        // Whoever reads nothing of an answer for so long has gone.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(app.options.receive_timeout));
        let service = TowerToHyperService::new(router.clone());
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(app.options.receive_timeout)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that breaks off is no failure of the server.
            let _ = connection.await;
            drop(permit);
        });
    }
    app.stopping.store(true, Ordering::Relaxed);
    drop(listener);
    match tokio::time::timeout(app.options.drain_timeout, graceful.shutdown()).await {
        Ok(()) => Ok(Drained::All),
        Err(_) => Ok(Drained::CutOff),
    }
}

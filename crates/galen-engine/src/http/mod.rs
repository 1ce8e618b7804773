//! The server: OpenAI's interface over HTTP/1.1, health, metrics, a page. The asynchronous part is thin: it parses,
//! hands over to the [`Engine`] and passes events on.

mod adapters;
mod auth;
mod body;
mod generate;
mod metrics;
mod page;
mod serve;

pub use auth::{ApiKeys, KeyError};
pub use serve::{Drained, serve};

use crate::engine::Engine;
use crate::openai::{self, ApiError, Kind};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use metrics::Metrics;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Limits and permissions of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Who may ask; everybody where there is none.
    pub keys: Option<ApiKeys>,
    /// Largest body of a request.
    pub max_body_bytes: usize,
    /// Longest time for a request's headers, and for its body.
    pub receive_timeout: Duration,
    /// Longest time from a request to the end of its answer.
    pub request_timeout: Duration,
    /// Most connections at a time; further ones wait to be accepted.
    pub max_connections: usize,
    /// Longest time for what is under way when the server is told to stop.
    pub drain_timeout: Duration,
    /// Where adapters may be loaded from while the server runs; without it none may.
    pub adapter_dir: Option<PathBuf>,
    /// Hosts that requests may name, where not all may: a page of another site must not reach a server that asks for
    /// no key under a name that leads here (DNS rebinding).
    pub hosts: Option<Vec<String>>,
}

/// What handlers share.
pub(crate) struct App {
    engine: Arc<dyn Engine>,
    options: ServerOptions,
    metrics: Metrics,
    stopping: AtomicBool,
    /// Begins this server's ids, and numbers them.
    start: u64,
    next: AtomicU64,
}

impl App {
    fn new(engine: Arc<dyn Engine>, options: ServerOptions) -> Arc<Self> {
        let (start, next) = (random(), AtomicU64::new(0));
        Arc::new(Self {
            engine,
            options,
            metrics: Metrics::default(),
            stopping: AtomicBool::new(false),
            start,
            next,
        })
    }

    /// An id no other answer has.
    fn id(&self, kind: Kind) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{}{:016x}{number:08x}", kind.prefix(), self.start)
    }
}

/// A number nobody foresees: for ids, and for seeds that requests do not name.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

fn router(app: Arc<App>) -> Router {
    let open = Router::new().route("/health", get(health)).route("/", get(page::page));
    let guarded = Router::new()
        .route(Kind::Chat.path(), post(generate::chat))
        .route(Kind::Text.path(), post(generate::text))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/load_lora_adapter", post(adapters::load))
        .route("/v1/unload_lora_adapter", post(adapters::unload))
        .route("/metrics", get(metrics))
        .layer(from_fn_with_state(app.clone(), auth::check_key));
    open.merge(guarded)
        .fallback(async || ApiError::new(404, Some("not_found"), "there is no such path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(405, Some("method_not_allowed"), "the path takes another method")
        })
        .layer(from_fn_with_state(app.clone(), auth::check_host))
        .layer(from_fn_with_state(app.clone(), observe))
        .with_state(app)
}

/// Counts every request; refuses new work while the server stops.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = metrics::known_path(request.uri().path());
    let begun = Instant::now();
    let mut response = if app.stopping.load(Ordering::Relaxed) && request.method() == "POST" {
        ApiError::from(crate::EngineError::Stopping).into_response()
    } else {
        next.run(request).await
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    app.metrics.answered(path, response.status().as_u16(), begun.elapsed());
    response
}

async fn health(State(app): State<Arc<App>>) -> StatusCode {
    // A balancer sends nothing new to a server that is stopping.
    if app.stopping.load(Ordering::Relaxed) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

async fn models(State(app): State<Arc<App>>) -> Response {
    Json(openai::models(&app.engine.models())).into_response()
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    Ok(Json(openai::model(&app.engine.models(), &name)?).into_response())
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.metrics.text(&app.engine.stats());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == 401 {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

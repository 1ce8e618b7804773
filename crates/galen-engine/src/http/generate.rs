//! `/v1/chat/completions` and `/v1/completions`.

use super::{App, body, random};
use crate::answer::Answer;
use crate::openai::{ApiError, Call, Chunks, Head, Kind, collect, read};
use axum::Json;
use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// A comment is sent to a client that waits so long: proxies keep the connection, and a hang-up is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(super) async fn chat(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    generate(app, Kind::Chat, request).await
}

pub(super) async fn text(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    generate(app, Kind::Text, request).await
}

async fn generate(app: Arc<App>, kind: Kind, request: Request) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let deadline = begun + app.options.request_timeout;
    let body = body::json(&app, request).await?;
    let mut call = read(kind, body)?;
    call.seed(random());
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let head = Head { id: app.id(kind), created };
    let (engine, asked) = (app.engine.clone(), call.request.clone());
    let answer = tokio::task::spawn_blocking(move || engine.generate(asked))
        .await
        .map_err(|_| ApiError::internal("the request could not be tokenised"))??;
    if call.stream {
        let answer = Streamed::new(app, call, head, answer, begun);
        return Ok(Sse::new(answer.events(deadline))
            .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
            .into_response());
    }
    // Where the client hangs up, this future is dropped here, and the answer with it.
    let Ok(collected) = tokio::time::timeout_at(deadline, collect(answer)).await else {
        return Err(late(&app));
    };
    let collected = collected?;
    let body = collected.body(&call, &head)?;
    app.metrics.finished(&call.request.model, collected.completion_tokens);
    Ok(Json(body).into_response())
}

fn late(app: &App) -> ApiError {
    let what = format!("the answer took longer than {} s", app.options.request_timeout.as_secs());
    ApiError::new(504, Some("timeout"), what)
}

/// An answer on its way to the client.
struct Streamed {
    app: Arc<App>,
    model: String,
    chunks: Chunks,
    answer: Answer,
    begun: Instant,
    first: bool,
    ready: VecDeque<Event>,
    over: bool,
}

impl Streamed {
    fn new(app: Arc<App>, call: Call, head: Head, answer: Answer, begun: Instant) -> Self {
        let model = call.request.model.clone();
        let chunks = Chunks::new(call, head, &answer);
        Self { app, model, chunks, answer, begun, first: true, ready: VecDeque::new(), over: false }
    }

    fn events(self, deadline: Instant) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, move |mut this| async move {
            while this.ready.is_empty() && !this.over {
                let chunks = match tokio::time::timeout_at(deadline, this.answer.next()).await {
                    Err(_) => Err(late(&this.app)),
                    Ok(Some(event)) => this.chunks.of(event),
                    Ok(None) => this.end(),
                };
                if std::mem::take(&mut this.first) {
                    this.app.metrics.first_token(this.begun.elapsed());
                }
                match chunks {
                    Ok(chunks) => this.ready.extend(chunks.iter().map(event)),
                    // The status is sent long ago: the stream says it, and ends without `[DONE]`.
                    Err(e) => {
                        this.ready.push_back(event(&e.body()));
                        this.over = true;
                    }
                }
            }
            let next = this.ready.pop_front()?;
            Some((Ok(next), this))
        })
    }

    fn end(&mut self) -> Result<Vec<Value>, ApiError> {
        let last = self.chunks.end()?;
        self.over = true;
        self.app.metrics.finished(&self.model, self.chunks.completion_tokens);
        self.ready.extend(last.iter().map(event));
        self.ready.push_back(Event::default().data("[DONE]"));
        Ok(Vec::new())
    }
}

fn event(chunk: &Value) -> Event {
    Event::default().data(chunk.to_string())
}

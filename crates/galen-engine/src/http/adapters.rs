//! Adapters that come and go: vLLM's two endpoints.

use super::{App, body};
use crate::engine::EngineError;
use crate::openai::{ApiError, Fields};
use axum::extract::{Request, State};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest name of an adapter.
const MAX_NAME: usize = 256;

pub(super) async fn load(State(app): State<Arc<App>>, request: Request) -> Result<String, ApiError> {
    let dir = allowed(&app)?;
    let mut fields = Fields::new(body::json(&app, request).await?)?;
    let name = required(&mut fields, "lora_name")?;
    let path = required(&mut fields, "lora_path")?;
    fields.done()?;
    if name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(ApiError::value("lora_name", "`lora_name` is too long or holds control characters"));
    }
    let (engine, under) = (app.engine.clone(), name.clone());
    let work = move || {
        let given = path;
        let path = within(&dir, &given)?;
        let Some(path) = path.to_str() else { return Err(refused()) };
        engine.load_adapter(&under, path).map_err(|e| match e {
            // By the name it was given: a client learns nothing of the machine.
            EngineError::Adapter(what) => EngineError::Adapter(what.replace(path, &given)).into(),
            e => e.into(),
        })
    };
    run(work).await?;
    Ok(format!("Success: LoRA adapter '{name}' added successfully."))
}

pub(super) async fn unload(State(app): State<Arc<App>>, request: Request) -> Result<String, ApiError> {
    allowed(&app)?;
    let mut fields = Fields::new(body::json(&app, request).await?)?;
    let name = required(&mut fields, "lora_name")?;
    // vLLM's number of the adapter, which says nothing that the name does not.
    fields.skip(&["lora_int_id"]);
    fields.done()?;
    let (engine, under) = (app.engine.clone(), name.clone());
    run(move || Ok(engine.unload_adapter(&under)?)).await?;
    Ok(format!("Success: LoRA adapter '{name}' removed successfully."))
}

async fn run(work: impl FnOnce() -> Result<(), ApiError> + Send + 'static) -> Result<(), ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ApiError::internal("the adapter could not be read"))?
}

fn allowed(app: &App) -> Result<PathBuf, ApiError> {
    app.options.adapter_dir.clone().ok_or_else(|| {
        let what =
            "adapters cannot be loaded while this server runs\nhint: start it with `--adapter-dir DIR`";
        ApiError::new(403, Some("runtime_loading_off"), what)
    })
}

fn required(fields: &mut Fields, name: &str) -> Result<String, ApiError> {
    match fields.text(name)?.filter(|t| !t.is_empty()) {
        Some(text) => Ok(text),
        None => Err(ApiError::field(name, "missing_parameter", format!("`{name}` is missing"))),
    }
}

fn refused() -> ApiError {
    // The same whether there is something or not: a client learns nothing of the machine.
    ApiError::value(
        "lora_path",
        "`lora_path` is no directory, and no GGUF file, below the one that adapters are loaded from",
    )
}

/// The directory or GGUF file meant by `path`, links followed, where it lies below `dir`.
fn within(dir: &Path, path: &str) -> Result<PathBuf, ApiError> {
    let dir = dir.canonicalize().map_err(|_| refused())?;
    let path = dir.join(path).canonicalize().map_err(|_| refused())?;
    if !path.starts_with(&dir) || path == dir {
        return Err(refused());
    }
    if path.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
        return Ok(path);
    }
    if !path.is_dir() {
        return Err(refused());
    }
    // Its files too: a link among them would bring in another one's.
    for entry in path.read_dir().map_err(|_| refused())? {
        let file = entry.and_then(|entry| entry.path().canonicalize()).map_err(|_| refused())?;
        if !file.starts_with(&dir) {
            return Err(refused());
        }
    }
    Ok(path)
}

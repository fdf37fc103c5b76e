//! The JSON of the console, version 1. `docs/CONSOLE.md` describes it.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{self, DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::answer::Node;
use crate::config::Operator;
use crate::query::{Acted, Action, Query, SessionsQuery};

/// A page of another site cannot send this header without asking first, and is refused then.
const OWN_HEADER: &str = "x-stentor-console";
/// Bytes of an action.
const MAX_ACTION: usize = 16 * 1024;
/// Entries of the log, if nobody says how many.
const LOG_ENTRIES: usize = 200;

pub(crate) fn routes(node: Arc<Node>) -> Router {
    Router::new()
        .route("/api/v1/me", get(me))
        .route("/api/v1/actions", post(action).layer(DefaultBodyLimit::max(MAX_ACTION)))
        .route("/api/v1/{query}", get(ask))
        .with_state(node)
}

async fn me(State(node): State<Arc<Node>>, Extension(who): Extension<Operator>) -> Json<Value> {
    let engine = &node.engine;
    Json(json!({
        "version": 1, "node": engine.node(), "name": who.name, "mayAct": who.may_act,
        "server": {"name": engine.name(), "version": engine.version()},
    }))
}

/// The parameters of all queries.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    node: Option<String>,
    id: Option<String>,
    principal: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

fn error(status: StatusCode, text: impl Into<String>) -> Response {
    (status, Json(json!({"error": text.into()}))).into_response()
}

async fn ask(State(node): State<Arc<Node>>, Path(name): Path<String>, uri: Uri) -> Response {
    let query = match read(&name, &uri) {
        Ok(Some(query)) => query,
        Ok(None) => return error(StatusCode::NOT_FOUND, "there is no such answer"),
        Err(text) => return error(StatusCode::BAD_REQUEST, text),
    };
    let (query, of) = query;
    Json(node.gather(query, of.as_deref()).await).into_response()
}

/// The query with this name and these parameters, and the node that is asked.
fn read(name: &str, uri: &Uri) -> Result<Option<(Query, Option<String>)>, String> {
    fn parse<T: DeserializeOwned>(uri: &Uri) -> Result<T, String> {
        extract::Query::try_from_uri(uri).map(|it| it.0).map_err(|error| error.body_text())
    }
    let asked: Asked = parse(uri)?;
    let query = match name {
        "overview" => Query::Overview,
        "actors" => Query::Actors,
        "sessions" => Query::Sessions(parse::<SessionsQuery>(uri)?),
        "session" => Query::Session { id: asked.id.ok_or("'id' is missing")? },
        "catalog" => Query::Catalog { principal: asked.principal },
        "events" => Query::Events,
        "tasks" => Query::Tasks,
        "log" => Query::Log { after: asked.after, limit: asked.limit.unwrap_or(LOG_ENTRIES) },
        _ => return Ok(None),
    };
    Ok(Some((query, asked.node)))
}

#[derive(Debug, Deserialize)]
struct Wanted {
    node: String,
    #[serde(flatten)]
    action: Action,
}

async fn action(
    State(node): State<Arc<Node>>,
    Extension(operator): Extension<Operator>,
    headers: HeaderMap,
    wanted: Result<Json<Wanted>, JsonRejection>,
) -> Response {
    if !headers.contains_key(OWN_HEADER) {
        return error(StatusCode::FORBIDDEN, "the header X-Stentor-Console is missing");
    }
    if !operator.may_act {
        return error(StatusCode::FORBIDDEN, "you may only look: see ConsoleConfig::actions");
    }
    let Json(wanted) = match wanted {
        Ok(wanted) => wanted,
        Err(refused) => return error(refused.status(), refused.body_text()),
    };
    match node.act(&wanted.node, wanted.action, operator.name.as_deref()).await {
        Acted::Done(text) => Json(json!({"done": text})).into_response(),
        Acted::NotFound(text) => error(StatusCode::NOT_FOUND, text),
        Acted::Forbidden(text) => error(StatusCode::FORBIDDEN, text),
    }
}

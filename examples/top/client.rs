//! Asks the console, one request at a time.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::{Client as Http, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::app::Wanted;
use crate::text;

/// How long an answer may take. A console itself waits 2 s for other nodes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const MAX_ANSWER: usize = 16 << 20;

#[derive(Clone)]
pub(crate) struct Client {
    http: Http<HttpConnector, Full<Bytes>>,
    /// The address of the console, with a slash at its end.
    base: String,
    /// For the console's `operator`.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Client {
    pub(crate) fn new(url: &str, headers: &[String]) -> Result<Self, String> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
        let authority = uri.authority().ok_or_else(|| format!("{url:?} has no host"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("{url:?}: only http is spoken; forward the port of the console"));
        }
        let base = format!("http://{authority}{}/", uri.path().trim_end_matches('/'));
        let headers = headers.iter().map(|it| header(it)).collect::<Result<_, _>>()?;
        Ok(Self { http: Http::builder(TokioExecutor::new()).build_http(), base, headers })
    }

    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    /// What the console answers, or why there is no answer; both without control characters.
    pub(crate) async fn ask(&self, wanted: &Wanted) -> Result<Value, String> {
        let answer = tokio::time::timeout(PATIENCE, self.answer(wanted)).await;
        let answer = answer.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
        let mut answer = answer.map_err(|error| text::clean(&error))?;
        text::clean_all(&mut answer);
        Ok(answer)
    }

    async fn answer(&self, wanted: &Wanted) -> Result<Value, String> {
        let (method, path, body) = match wanted {
            Wanted::Answer(path) => (Method::GET, path.as_str(), String::new()),
            Wanted::Action(action) => (Method::POST, "actions", action.to_string()),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}api/v1/{path}", self.base))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .header("x-stentor-console", "1");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.into())).map_err(|error| error.to_string())?;
        let response = self.http.request(request).await.map_err(|error| reason(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| reason(&*error))?.to_bytes();
        let answer = serde_json::from_slice::<Value>(&body);
        match answer {
            Ok(answer) if status.is_success() => Ok(answer),
            Ok(answer) if answer["error"].is_string() => Err(text::text(&answer, "error").into()),
            Err(error) if status.is_success() => Err(format!("it answers no JSON: {error}")),
            _ => Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim())),
        }
    }
}

fn header(given: &str) -> Result<(HeaderName, HeaderValue), String> {
    // What is wrong is not printed: it may be a secret.
    let refused = || "--header needs 'Name: value'".to_owned();
    let (name, value) = given.split_once(':').ok_or_else(refused)?;
    let name = name.trim().parse().map_err(|_| refused())?;
    let mut value: HeaderValue = value.trim().parse().map_err(|_| refused())?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// The root of an error: not the layers of the client, but "Connection refused".
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A value in the query of a URL.
pub(crate) fn encoded(value: &str) -> String {
    url::form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

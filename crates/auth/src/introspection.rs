//! Opaque tokens: their issuer is asked about each (RFC 7662).

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use foldhash::HashMap;
use futures::FutureExt as _;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use stentor_engine::identity::Identity;
use stentor_transport::http::Rejection;
use stentor_wire::model::JsonObject;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::discovery::IntrospectionEndpoint;
use crate::freshness::Backoff;
use crate::issuer::IssuerState;
use crate::source::{FETCH_TIMEOUT, FetchError, document};
use crate::verdicts::TokenDigest;

/// The longest answer about a token, in bytes: it is kept with the identity.
const MAX_ANSWER: usize = 64 << 10;
/// How many requests are under way at once. Anybody can write a token.
const MAX_REQUESTS: usize = 32;
/// How many tokens may wait for their turn or their answer.
const MAX_WAITING: usize = 1_000;

/// What was found out about a token.
pub(crate) type Answer = Result<Identity, Rejection>;

/// Asks an issuer about tokens: at most once at a time about each.
pub(crate) struct Introspection {
    client_id: String,
    client_secret: String,
    backoff: Mutex<Backoff>,
    waiting: Mutex<HashMap<TokenDigest, watch::Receiver<Option<Answer>>>>,
    requests: Semaphore,
}

/// Why an issuer did not say anything about a token.
#[derive(Debug)]
pub(crate) enum AskError {
    /// It says that the token is not good.
    Inactive,
    /// It does not answer, or not as it should.
    Failed(FetchError),
    /// It does not want to answer about this token; it may about others.
    ThisToken(FetchError),
}

impl From<FetchError> for AskError {
    fn from(error: FetchError) -> Self {
        Self::Failed(error)
    }
}

impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspection").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl Introspection {
    pub(crate) fn new(client_id: String, client_secret: String) -> Self {
        Self {
            client_id,
            client_secret,
            backoff: Mutex::default(),
            waiting: Mutex::default(),
            requests: Semaphore::new(MAX_REQUESTS),
        }
    }

    /// Where the answer about a token will be. `begin` is called unless somebody has asked about it
    /// already; it must call [`answered`](Self::answered) in the end.
    pub(crate) fn ask(
        &self,
        digest: TokenDigest,
        now: Instant,
        begin: impl FnOnce(watch::Sender<Option<Answer>>),
    ) -> Result<watch::Receiver<Option<Answer>>, Duration> {
        let mut waiting = self.waiting.lock();
        if let Some(answer) = waiting.get(&digest) {
            return Ok(answer.clone());
        }
        let pause = self.backoff.lock().pause(now);
        if let Some(pause) = pause {
            return Err(pause);
        }
        if waiting.len() >= MAX_WAITING {
            return Err(Duration::from_secs(1));
        }
        let (sender, receiver) = watch::channel(None);
        waiting.insert(digest, receiver.clone());
        begin(sender);
        Ok(receiver)
    }

    /// The claims of a token, as its issuer says.
    pub(crate) async fn claims(
        &self,
        issuer: &IssuerState,
        token: &str,
    ) -> Result<JsonObject, AskError> {
        let answer = match AssertUnwindSafe(self.send(issuer, token)).catch_unwind().await {
            Ok(answer) => answer,
            Err(_) => Err(FetchError::new("the source panicked").into()),
        };
        let name = &issuer.name;
        match &answer {
            Ok(_) | Err(AskError::Inactive) => self.backoff.lock().succeeded(),
            Err(AskError::Failed(error)) => {
                let (mut backoff, now) = (self.backoff.lock(), Instant::now());
                // Requests that were under way at once fail at once, and are one failure.
                if backoff.pause(now).is_none() {
                    backoff.failed(now);
                    drop(backoff);
                    tracing::warn!(issuer = %name, %error, "an issuer cannot be asked about tokens");
                }
            }
            Err(AskError::ThisToken(error)) => {
                tracing::debug!(issuer = %name, %error, "an issuer does not answer about a token");
            }
        }
        answer
    }

    async fn send(&self, issuer: &IssuerState, token: &str) -> Result<JsonObject, AskError> {
        // That many tokens wait says nothing of the issuer: strangers send as many as they like.
        let Ok(_turn) = timeout(FETCH_TIMEOUT, self.requests.acquire()).await else {
            return Err(AskError::ThisToken(FetchError::new("too many tokens wait")));
        };
        match timeout(FETCH_TIMEOUT, self.fetch(issuer, token)).await {
            Ok(answer) => answer,
            Err(_) => Err(FetchError::new("it took too long").into()),
        }
    }

    async fn fetch(&self, issuer: &IssuerState, token: &str) -> Result<JsonObject, AskError> {
        let endpoints = issuer.endpoints().await?;
        let endpoint = endpoints.introspection.as_ref().ok_or_else(|| {
            FetchError::new("its metadata names no address of introspection that can be trusted")
        })?;
        let response = issuer.source().fetch(self.request(endpoint, token)?).await?;
        // With 401 and 403 it refuses this server itself, with another of these one request.
        let status = response.status();
        if status.is_client_error()
            && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        {
            let error = FetchError::new(format!("the status is {}", response.status()));
            return Err(AskError::ThisToken(error));
        }
        let (body, _) = document(response)?;
        claims_in(&body)
    }

    fn request(
        &self,
        endpoint: &IntrospectionEndpoint,
        token: &str,
    ) -> Result<Request<Bytes>, FetchError> {
        let (id, secret) = (form(&self.client_id), form(&self.client_secret));
        let mut body = format!("token={}&token_type_hint=access_token", form(token));
        let mut request = Request::post(&endpoint.url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        if endpoint.is_secret_in_body {
            body.push_str(&format!("&client_id={id}&client_secret={secret}"));
        } else {
            let credentials = STANDARD.encode(format!("{id}:{secret}"));
            let value = HeaderValue::try_from(format!("Basic {credentials}"));
            let mut value = value.map_err(FetchError::new)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request.body(body.into()).map_err(FetchError::new)
    }

    /// Whoever asks from now on does not get an answer that was asked for before.
    pub(crate) fn forget(&self) {
        self.waiting.lock().clear();
    }

    /// Whoever asks about this token from now on begins anew.
    pub(crate) fn answered(&self, digest: &TokenDigest) {
        self.waiting.lock().remove(digest);
    }
}

fn claims_in(answer: &[u8]) -> Result<JsonObject, AskError> {
    if answer.len() > MAX_ANSWER {
        // So are the claims of this token.
        return Err(AskError::ThisToken(FetchError::new("the answer is too long")));
    }
    let claims: JsonObject =
        serde_json::from_slice(answer).map_err(|_| FetchError::new("the answer is no object"))?;
    match claims.get("active") {
        Some(Value::Bool(true)) => Ok(claims),
        Some(Value::Bool(false)) => Err(AskError::Inactive),
        _ => Err(FetchError::new("the answer does not say whether the token is active").into()),
    }
}

/// A value of a form.
fn form(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'*' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_true_is_active() {
        let says = |answer: &str| match claims_in(answer.as_bytes()) {
            Ok(_) => "active",
            Err(AskError::Inactive) => "inactive",
            Err(_) => "failed",
        };
        assert_eq!(says(r#"{"active": true, "sub": "ann"}"#), "active");
        assert_eq!(says(r#"{"active": false, "sub": "ann"}"#), "inactive");
        for answer in [r#"{"active": "true"}"#, r#"{"active": 1}"#, "{}", "[true]", "true", ""] {
            assert_eq!(says(answer), "failed", "{answer}");
        }
        let deep =
            format!("{{\"active\": true, \"a\": {}1{}}}", "[".repeat(9_000), "]".repeat(9_000));
        assert_eq!(says(&deep), "failed");
        assert_eq!(
            says(&format!("{{\"active\": true, \"a\": \"{}\"}}", "a".repeat(MAX_ANSWER))),
            "failed"
        );
    }

    #[test]
    fn our_secret_goes_where_the_issuer_reads_it() {
        let introspection = Introspection::new("my client".to_owned(), "s+c:t%".to_owned());
        assert!(!format!("{introspection:?}").contains("s+c"));
        let at = |is_secret_in_body| IntrospectionEndpoint {
            url: "https://a.example/i".to_owned(),
            is_secret_in_body,
        };
        let request = introspection.request(&at(false), "t&=").unwrap();
        let credentials = STANDARD.encode("my%20client:s%2Bc%3At%25");
        assert_eq!(request.headers()[AUTHORIZATION], format!("Basic {credentials}"));
        assert_eq!(request.body(), "token=t%26%3D&token_type_hint=access_token");
        let request = introspection.request(&at(true), "t").unwrap();
        assert!(!request.headers().contains_key(AUTHORIZATION));
        let body =
            "token=t&token_type_hint=access_token&client_id=my%20client&client_secret=s%2Bc%3At%25";
        assert_eq!(request.body(), body);
    }

    proptest! {
        #[test]
        fn a_value_of_a_form_is_one_value(text in "\\PC{0,20}") {
            let written = form(&text);
            prop_assert!(!written.contains(['&', '=', '+', ' ', ':']));
            let mut bytes = Vec::new();
            let mut rest = written.as_str();
            while let Some(first) = rest.chars().next() {
                let (taken, byte) = match first {
                    '%' => (3, u8::from_str_radix(&rest[1..3], 16).unwrap()),
                    other => (1, u8::try_from(other).unwrap()),
                };
                bytes.push(byte);
                rest = &rest[taken..];
            }
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), text);
        }
    }
}

//! Where the documents of issuers come from.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, Request, Response};

use crate::url::Url;

/// The longest document of an issuer that is read, in bytes.
pub const MAX_DOCUMENT: usize = 256 << 10;

/// How long a request to an issuer may take, with everything that it needs.
pub(crate) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends requests to issuers: for their metadata, for their keys, and for what they know of an
/// opaque token. Implement it if all requests of a program go through a client of its own.
///
/// The default is an HTTP client that follows no redirect and uses the proxy that the environment
/// names (`HTTPS_PROXY`), but for requests to this machine.
pub trait KeySource: fmt::Debug + Send + Sync + 'static {
    /// Sends a request, and returns the response with its whole body.
    ///
    /// A redirect must not be followed: it is a response like any other, and counts as a failure. A
    /// body that is longer than [`MAX_DOCUMENT`] must not be read to its end. Any status is a
    /// response, not an error. The future is dropped after 5 seconds; it is not dropped because the
    /// client whose token is checked breaks off.
    ///
    /// # Errors
    ///
    /// [`FetchError`] if there is no response. It is logged, so it must not contain the body of the
    /// request, which may be a token, nor its `Authorization` header.
    fn fetch(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, FetchError>>;
}

/// Why a document could not be fetched from an issuer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(#[source] Box<dyn Error + Send + Sync>);

impl FetchError {
    /// The error of the client that was used, or a text.
    #[must_use]
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// The default source.
pub(crate) struct Web {
    through_proxy: reqwest::Client,
    direct: reqwest::Client,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").finish_non_exhaustive()
    }
}

impl Web {
    pub(crate) fn new() -> Result<Self, FetchError> {
        let client = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(FETCH_TIMEOUT)
                .referer(false)
        };
        let through_proxy = client().build().map_err(|error| FetchError::new(chain(&error)))?;
        let direct = client().no_proxy().build().map_err(|error| FetchError::new(chain(&error)))?;
        Ok(Self { through_proxy, direct })
    }
}

impl KeySource for Web {
    fn fetch(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, FetchError>> {
        Box::pin(async move {
            let address = request.uri().to_string();
            let is_local = Url::parse(&address).is_some_and(|url| url.is_loopback());
            let client = if is_local { &self.direct } else { &self.through_proxy };
            let request = request.try_into().map_err(|error| FetchError::new(chain(&error)))?;
            let failed = |error: reqwest::Error| FetchError::new(chain(&error));
            let mut response = client.execute(request).await.map_err(failed)?;
            let mut body = BytesMut::new();
            while let Some(chunk) = response.chunk().await.map_err(failed)? {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_DOCUMENT {
                    return Err(FetchError::new("the document is too long"));
                }
            }
            let mut whole = Response::new(body.freeze());
            *whole.status_mut() = response.status();
            *whole.headers_mut() = std::mem::take(response.headers_mut());
            Ok(whole)
        })
    }
}

/// An error with all its causes, of which the client's errors show only the first.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A request for a document.
pub(crate) fn get(url: &str) -> Result<Request<Bytes>, FetchError> {
    let request = Request::get(url).header(http::header::ACCEPT, "application/json");
    request.body(Bytes::new()).map_err(FetchError::new)
}

/// The document in a response; and for how long it is fresh, if the sender says so.
pub(crate) fn document(response: Response<Bytes>) -> Result<(Bytes, Option<Duration>), FetchError> {
    let (head, body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(FetchError::new(format!("the status is {}", head.status)));
    }
    if body.len() > MAX_DOCUMENT {
        return Err(FetchError::new("the document is too long"));
    }
    Ok((body, max_age(&head.headers)))
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let ages = lines.flat_map(|line| line.split(',')).filter_map(|directive| {
        let (name, value) = directive.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("max-age").then(|| value.parse().ok())?
    });
    ages.min().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_document_is_fresh() {
        for (value, seconds) in [
            ("max-age=300", Some(300)),
            ("public, Max-Age = 300 , must-revalidate", Some(300)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=60, max-age=30", Some(30)),
            ("s-maxage=60", None),
            ("max-age=-1", None),
            ("max-age", None),
            ("no-store", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.parse().unwrap());
            assert_eq!(max_age(&headers), seconds.map(Duration::from_secs), "{value}");
        }
    }
}

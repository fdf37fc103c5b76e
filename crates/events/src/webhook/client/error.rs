//! What is said of an attempt that failed. Nothing that the endpoint sent is in it, but the status:
//! who subscribed must not read through the server what only the server can reach.

use std::error::Error;
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use hyper::HeaderMap;
use hyper::header::RETRY_AFTER;
use hyper_util::client::legacy;
use serde::{Deserialize, Serialize};

use super::resolver::is_forbidden;

/// The longest wait that an endpoint may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// The kind of a failure, as clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Category {
    /// No connection, or one that broke before there was an answer.
    #[serde(rename = "connection_refused")]
    ConnectionRefused,
    /// No answer in time.
    #[serde(rename = "timeout")]
    Timeout,
    /// No secure connection.
    #[serde(rename = "tls_error")]
    TlsError,
    /// A status from 300 to 499: a redirect is not followed.
    #[serde(rename = "http_4xx")]
    Http4xx,
    /// A status from 500 on.
    #[serde(rename = "http_5xx")]
    Http5xx,
    /// The endpoint did not answer the challenge as it should.
    #[serde(rename = "challenge_failed")]
    ChallengeFailed,
}

impl Category {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionRefused => "connection_refused",
            Self::Timeout => "timeout",
            Self::TlsError => "tls_error",
            Self::Http4xx => "http_4xx",
            Self::Http5xx => "http_5xx",
            Self::ChallengeFailed => "challenge_failed",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the callback endpoint could not be reached or did not accept the message: {category}")]
pub(crate) struct AttemptError {
    /// The kind of the failure.
    pub category: Category,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// For how long the endpoint asks not to be tried; at most an hour.
    pub retry_after: Option<Duration>,
    /// Whether nothing was sent because the callback, or an address of its host, is not allowed.
    pub forbidden_address: bool,
}

impl AttemptError {
    pub(super) fn new(category: Category) -> Self {
        Self { category, status: None, retry_after: None, forbidden_address: false }
    }

    pub(super) fn forbidden() -> Self {
        Self { forbidden_address: true, ..Self::new(Category::ConnectionRefused) }
    }

    /// An answer that is no challenge, or not this one.
    pub(super) fn challenge(status: u16) -> Self {
        Self { status: Some(status), ..Self::new(Category::ChallengeFailed) }
    }

    /// A status that is no success.
    pub(super) fn status(status: u16, headers: &HeaderMap) -> Self {
        let category = if status >= 500 { Category::Http5xx } else { Category::Http4xx };
        let retry_after = retry_after(headers, SystemTime::now());
        Self { status: Some(status), retry_after, ..Self::new(category) }
    }

    /// What went wrong while there was no answer.
    pub(super) fn of(failed: &legacy::Error) -> Self {
        let category_of = |kind: io::ErrorKind| match kind {
            io::ErrorKind::TimedOut => Some(Category::Timeout),
            io::ErrorKind::InvalidData => Some(Category::TlsError),
            // Later it means that the endpoint closed the connection.
            io::ErrorKind::UnexpectedEof if failed.is_connect() => Some(Category::TlsError),
            _ => None,
        };
        let mut category = Category::ConnectionRefused;
        let mut cause: Option<&(dyn Error + 'static)> = Some(failed);
        while let Some(error) = cause {
            if is_forbidden(error) {
                return Self::forbidden();
            }
            // The client wraps errors of TLS in others, which skip them as their source.
            cause = match error.downcast_ref::<io::Error>() {
                Some(io) => {
                    category = category_of(io.kind()).unwrap_or(category);
                    io.get_ref().map(|inner| inner as &(dyn Error + 'static))
                }
                None => error.source(),
            };
        }
        Self::new(category)
    }
}

/// For how long an endpoint asks not to be tried, in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = if !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit()) {
        // More seconds than a number holds are many.
        text.parse().map_or(Duration::MAX, Duration::from_secs)
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(asked.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_category_is_written_as_it_is_called() {
        for category in [
            Category::ConnectionRefused,
            Category::Timeout,
            Category::TlsError,
            Category::Http4xx,
            Category::Http5xx,
            Category::ChallengeFailed,
        ] {
            let json = serde_json::to_value(category).unwrap();
            assert_eq!(json, category.as_str());
            assert_eq!(serde_json::from_value::<Category>(json).unwrap(), category);
        }
    }

    #[test]
    fn how_long_an_endpoint_asks_not_to_be_tried() {
        let now = httpdate::parse_http_date("Tue, 01 Dec 2026 10:00:00 GMT").unwrap();
        for (value, seconds) in [
            ("0", Some(0)),
            (" 30 ", Some(30)),
            ("86400", Some(3600)),
            ("99999999999999999999999", Some(3600)),
            ("Tue, 01 Dec 2026 10:01:00 GMT", Some(60)),
            ("Tue, 01 Dec 2026 09:00:00 GMT", Some(0)),
            ("Wed, 01 Dec 2027 10:00:00 GMT", Some(3600)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}

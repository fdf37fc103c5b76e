//! How headers can disagree with the body.

use thiserror::Error;

use crate::bounds::quoted;

/// A request whose headers disagree with its body, lack a required header or are malformed.
///
/// Its text is the message of JSON-RPC error -32020 (`HeaderMismatch`), which is sent with HTTP
/// status 400. It names the header and, where they exist, both values, cut to a readable length.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Server Validation".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("header mismatch: {0}")]
pub struct HeaderMismatch(pub(super) Kind);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Kind {
    #[error("required {header} header is missing")]
    Missing { header: String },
    #[error("{header} header value '{found}' does not match body value '{expected}'")]
    Different { header: String, found: String, expected: String },
    #[error("{header} header value '{found}' is not expected, the body has no value for it")]
    Unexpected { header: String, found: String },
    #[error(
        "{header} header value '{found}' cannot match body value '{expected}', which is not a \
         string, a boolean or an integer from -(2^53-1) to 2^53-1"
    )]
    NotMirrored { header: String, found: String, expected: String },
    #[error("{header} header value '{found}' {fault}")]
    Malformed { header: String, found: String, fault: Fault },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Fault {
    #[error("contains the invalid character 0x{0:02x}")]
    Character(u8),
    #[error("is not valid base64 between '=?base64?' and '?='")]
    Base64,
    #[error("does not decode to UTF-8 text")]
    Utf8,
}

impl HeaderMismatch {
    pub(super) fn missing(header: &str) -> Self {
        Self(Kind::Missing { header: header.to_owned() })
    }

    pub(super) fn different(header: &str, found: &str, expected: &str) -> Self {
        Self(Kind::Different {
            header: header.to_owned(),
            found: quoted(found),
            expected: quoted(expected),
        })
    }

    pub(super) fn malformed(header: &str, found: &[u8], fault: Fault) -> Self {
        let found = quoted(&String::from_utf8_lossy(found));
        Self(Kind::Malformed { header: header.to_owned(), found, fault })
    }
}

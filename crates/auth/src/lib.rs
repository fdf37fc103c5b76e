//! Checks the OAuth access tokens of requests to an MCP server. Stentor is a *resource server*: it
//! checks tokens, and never issues them.
//!
//! ```no_run
//! # async fn f(engine: stentor::Engine) -> Result<(), Box<dyn std::error::Error>> {
//! use stentor::oauth::OAuth;
//!
//! let auth = OAuth::resource("https://mcp.example.com/mcp")
//!     .issuer("https://login.example.com")
//!     .scopes(["mcp:read"])
//!     .build()?;
//! # let _ = auth;
//! # Ok(())
//! # }
//! ```
//!
//! Pure parts, which are told the time and do no input or output:
//!
//! * `url.rs`: addresses that everybody reads in the same way.
//! * `bearer.rs`: the token of a request.
//! * `algorithm.rs`, `token.rs`: the form of a JWT, and its signature.
//! * `keys.rs`: the keys of an issuer, and which one a token is checked with.
//! * `claims.rs`: what a token must say, and whom it describes.
//! * `freshness.rs`, `misses.rs`: when keys are fetched again.
//! * `verdicts.rs`: what was found out about tokens a short while ago.
//!
//! Around them:
//!
//! * `source.rs`: sends requests to issuers.
//! * `discovery.rs`: where the endpoints of an issuer are.
//! * `refreshed.rs`: fetches something once at a time.
//! * `issuer.rs`: one issuer, with its keys.
//! * `introspection.rs`: asks an issuer about opaque tokens.
//! * `builder.rs`, `oauth.rs`: the authenticator.
//!
//! Specification: `basic/authorization` of 2026-07-28 and 2025-11-25; RFC 6750, 7517, 7519, 7662,
//! 8414, 8707, 8725, 9068, 9728.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod algorithm;
mod bearer;
mod builder;
mod claims;
mod clock;
mod discovery;
mod freshness;
mod introspection;
mod issuer;
mod keys;
mod misses;
mod oauth;
mod refreshed;
mod refused;
mod source;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod token;
mod url;
mod verdicts;

pub use algorithm::Algorithm;
pub use builder::{BuildError, Issuer, OAuthBuilder};
pub use oauth::OAuth;
pub use source::{FetchError, KeySource, MAX_DOCUMENT};

//! stdio and Streamable HTTP for Stentor, both protocol eras on one pipe and one endpoint.
//!
//! This crate handles only bytes, headers and status codes. The engine decides what a message
//! means, behind its [`transport_api`](stentor_engine::transport_api). A session outlives the
//! connections of its client.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "http")]
pub mod http;
pub mod signal;
#[cfg(feature = "stdio")]
pub mod stdio;

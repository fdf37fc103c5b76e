//! stdio and Streamable HTTP for Stentor, both protocol eras on one pipe and one endpoint.
//!
//! A transport visits, the session lives: here are only bytes, headers and status codes. What
//! a message means is decided by the engine behind its [`port`](stentor_engine::port).

#[cfg(feature = "http")]
pub mod http;
pub mod signal;
#[cfg(feature = "stdio")]
pub mod stdio;

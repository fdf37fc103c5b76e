//! The relay between Stentor nodes.
//!
//! An empty door so far: it turns on the engine's `cluster` feature, which a build needs where
//! anything else in it uses ractor's.

mod config;
#[allow(dead_code)]
mod mesh;

pub use config::{ClusterConfig, ClusterError, ClusterTls};
pub use mesh::{NodeState, NodeView};
pub use stentor_engine as engine;

// Not joined to anything yet.
#[allow(dead_code, unused_imports)]
mod feed;

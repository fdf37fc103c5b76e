//! Engines on several machines as one server: register on one node, hear it on all, call it from
//! anywhere.
//!
//! ```no_run
//! # async fn f(engine: stentor_engine::Engine) -> Result<(), Box<dyn std::error::Error>> {
//! use stentor_cluster::{Cluster, ClusterConfig};
//!
//! let mut config = ClusterConfig::new("prod", std::env::var("STENTOR_COOKIE")?);
//! config.seeds = vec!["10.0.0.7:7947".to_owned()];
//! let cluster = Cluster::join(&engine, config).await?;
//! // Serve as ever; a plain load balancer may send any request to any node.
//! # Ok(())
//! # }
//! ```
//!
//! * `mesh.rs`: how nodes find each other, notice the dead and the frozen, and exchange bytes.
//! * `feed.rs`: what a node tells all others, numbered, so that each hears it once.
//! * `replica.rs`: a node's feed and what it knows of the others'.
//! * `settle.rs`: when a changed list is announced.
//! * `errands.rs`: a request that is done on another node.
//! * `leave.rs`: how a node leaves, and where its sessions are then.
//! * `redis_store.rs`: where sessions are kept that are to survive their node (feature `redis`).
//! * `node.rs`: an engine as a node, which joins all of it.
//! * `cluster.rs`: the handle to it, for whoever embeds an engine.

mod cluster;
mod config;
mod errands;
mod feed;
mod frame;
mod leave;
mod mesh;
mod node;
mod post;
#[cfg(feature = "redis")]
mod redis_store;
mod replica;
mod settle;

pub use cluster::Cluster;
pub use config::{ClusterConfig, ClusterError, ClusterTls};
pub use mesh::{NodeState, NodeView};
#[cfg(feature = "redis")]
pub use redis_store::{RedisConfig, RedisStore, RedisStoreError};

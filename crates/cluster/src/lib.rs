//! Engines on several machines as one server: a tool that is registered on one node is announced on
//! all nodes, and can be called through each of them.
//!
//! ```no_run
//! # async fn f(engine: stentor::Engine) -> Result<(), Box<dyn std::error::Error>> {
//! use stentor::cluster::{Cluster, ClusterConfig};
//!
//! let mut config = ClusterConfig::new("prod", std::env::var("STENTOR_COOKIE")?);
//! config.seeds = vec!["10.0.0.7:7947".to_owned()];
//! let cluster = Cluster::join(&engine, config).await?;
//! // Serve as ever; a plain load balancer may send any request to any node.
//! # Ok(())
//! # }
//! ```
//!
//! * `mesh.rs`: how nodes find each other, detect dead and frozen nodes, and exchange bytes.
//! * `replication_log.rs`: a node's numbered facts, so that other nodes receive each fact once.
//! * `replica.rs`: a node's own log, and what it has read of the logs of other nodes.
//! * `announce_barrier.rs`: when a changed list is announced.
//! * `migrate.rs`, `successors.rs`: how a node leaves, and where its sessions are afterwards.
//! * `redis_store.rs`: the store for sessions that must survive their node (feature `redis`).
//! * `node.rs`: an engine as a node, and the messages between nodes; connects all of the above.
//! * `node/facts.rs`: how a node sends its facts, and handles those of others.
//! * `node/peer_requests.rs`: requests that run on another node.
//! * `cluster.rs`: the handle for applications.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod announce_barrier;
mod cluster;
mod config;
mod mesh;
mod migrate;
mod node;
#[cfg(feature = "redis")]
mod redis_store;
mod replica;
mod replication_log;
mod successors;

pub use cluster::Cluster;
pub use config::{ClusterConfig, ClusterError, ClusterTls};
#[cfg(feature = "redis")]
pub use redis_store::{RedisConfig, RedisStore, RedisStoreError};
pub use stentor_engine::remote::{NodeState, NodeView, PeerRequestCounts};

//! The configuration of a node, and the errors of joining a cluster.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use stentor_macros::Setters;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// How a node finds and connects to the other nodes of its cluster.
///
/// A node needs a name for the cluster, a secret that all nodes share, and the address of some
/// other node, the seed. Without TLS it connects over loopback only.
///
/// ```
/// let mut config = stentor::cluster::ClusterConfig::new("prod", "a long random secret");
/// config.seeds = vec!["10.0.0.7:7947".to_owned()];
/// ```
#[derive(Clone, Setters)]
#[setters(own_new)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// The name of the cluster. The node ignores nodes of other clusters.
    pub cluster: String,
    /// The TCP address on which this node accepts links. Default `127.0.0.1:0`: port 0 is any free
    /// port, and gossip announces which one.
    pub listen: SocketAddr,
    /// The UDP address for gossip. Default `127.0.0.1:0`. A seed needs a fixed port.
    pub gossip: SocketAddr,
    /// The address that this node announces to other nodes, if it is not the one that it listens
    /// on. Required where `listen` or `gossip` is an unspecified address, such as `0.0.0.0`.
    pub advertise: Option<IpAddr>,
    /// Gossip addresses of some other nodes, as `host:port`. Names are resolved again each minute.
    pub seeds: Vec<String>,
    /// The secret that all nodes of the cluster share: at least 16 bytes, preferably random.
    pub cookie: String,
    /// Keys for mutual TLS between nodes. Default: none, which allows loopback only.
    pub tls: Option<ClusterTls>,
    /// Allows links to other machines without TLS. An attacker on the network between the nodes can
    /// read and change their messages. Default `false`.
    pub plaintext_anywhere: bool,
    /// The node connects and sends only to addresses in these networks, whatever gossip contains.
    /// Default: loopback, link-local and private networks.
    pub dial: Vec<IpNet>,
    /// How often a node gossips. Default 250 ms.
    pub gossip_interval: Duration,
    /// About how long a node may be silent before this node gives it up. The failure detector
    /// adapts to how regularly it receives gossip of each node. Default 2.5 s.
    pub give_up_after: Duration,
    /// Bytes that may be in flight to one node, or wait there to be handled. Default 16 MiB.
    pub max_in_flight: usize,
    /// Bytes of one frame: at most half of `max_in_flight`, and enough for the largest request and
    /// its envelope. A larger answer is not sent to another node; the client there receives an
    /// error instead. Default 8 MiB.
    pub max_frame: usize,
    /// Requests that may run here at once for other nodes, streams included. Default 100,000.
    pub max_peer_requests: usize,
    /// Connections to `listen` whose other end has not proven yet that it belongs to the cluster.
    /// Each has 5 s and 128 KiB to do so. One more connection is still accepted: the oldest
    /// connection of the address with the most of them gives way. Connections from addresses of
    /// known nodes give way only when there are no others. Default 256.
    pub max_strangers: usize,
    /// Nodes that are known at once. Further nodes are ignored. Default 128.
    pub max_nodes: usize,
}

impl ClusterConfig {
    /// The minimum length of a cookie, in bytes.
    pub const MIN_COOKIE: usize = 16;

    /// A configuration for the cluster of this name, whose nodes share this secret.
    #[must_use]
    pub fn new(cluster: impl Into<String>, cookie: impl Into<String>) -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            cluster: cluster.into(),
            listen: loopback,
            gossip: loopback,
            advertise: None,
            seeds: Vec::new(),
            cookie: cookie.into(),
            tls: None,
            plaintext_anywhere: false,
            dial: private_networks(),
            gossip_interval: Duration::from_millis(250),
            give_up_after: Duration::from_millis(2_500),
            max_in_flight: 16 << 20,
            max_frame: 8 << 20,
            max_peer_requests: 100_000,
            max_strangers: 256,
            max_nodes: 128,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ClusterError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=64).contains(&self.cluster.len()) || !self.cluster.bytes().all(plain) {
            return Err(ClusterError::Name(self.cluster.clone()));
        }
        if self.cookie.len() < Self::MIN_COOKIE {
            return Err(ClusterError::Cookie);
        }
        if self.tls.is_none() && !self.allows_plaintext(self.listen.ip()) {
            return Err(ClusterError::Plaintext(self.listen));
        }
        for bound in [self.listen, self.gossip] {
            if bound.ip().is_unspecified() && self.advertise.is_none() {
                return Err(ClusterError::Advertise(bound));
            }
        }
        for seed in &self.seeds {
            let port = seed.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() {
                return Err(ClusterError::Seed(seed.clone()));
            }
        }
        if self.max_in_flight < 4_096 {
            return Err(ClusterError::Limits("`max_in_flight` is less than 4 KiB"));
        }
        if self.max_frame == 0 || self.max_frame > self.max_in_flight / 2 {
            return Err(ClusterError::Limits(
                "`max_frame` is 0, or more than half of `max_in_flight`",
            ));
        }
        if self.max_strangers == 0 {
            return Err(ClusterError::Limits(
                "`max_strangers` is 0, so that no node could connect",
            ));
        }
        if self.gossip_interval.is_zero() || self.give_up_after < 4 * self.gossip_interval {
            return Err(ClusterError::Limits("`give_up_after` is less than four gossip intervals"));
        }
        Ok(())
    }

    pub(crate) fn may_dial(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.dial.iter().any(|net| net.contains(&ip))
    }

    /// Whether a link to or at this address may exist without TLS.
    pub(crate) fn allows_plaintext(&self, ip: IpAddr) -> bool {
        self.plaintext_anywhere || ip.to_canonical().is_loopback()
    }
}

/// Networks whose addresses are not routed on the internet.
fn private_networks() -> Vec<IpNet> {
    ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]
        .into_iter()
        .chain(["::1/128", "fc00::/7", "fe80::/10"])
        .map(|net| net.parse().expect("a network, as written"))
        .collect()
}

impl fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The cookie is left out: debug output ends in logs, and the cookie is enough to join the
        // cluster.
        f.debug_struct("ClusterConfig")
            .field("cluster", &self.cluster)
            .field("listen", &self.listen)
            .field("gossip", &self.gossip)
            .field("advertise", &self.advertise)
            .field("seeds", &self.seeds)
            .field("tls", &self.tls.is_some())
            .field("dial", &self.dial)
            .finish_non_exhaustive()
    }
}

/// Keys for mutual TLS between nodes.
#[derive(Clone)]
pub struct ClusterTls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) connector: TlsConnector,
    pub(crate) name: ServerName<'static>,
}

impl ClusterTls {
    /// The DNS name in every node's certificate, unless [`named`](Self::named) sets another.
    pub const NAME: &'static str = "stentor";

    /// Reads PEM: the authority that signs the certificates of all nodes, the certificate of this
    /// node with its intermediate certificates, and the key of this node. The certificate serves
    /// both ends of a link, and is for the DNS name [`NAME`](Self::NAME).
    ///
    /// # Errors
    ///
    /// [`ClusterError::Tls`].
    pub fn from_pem(authority: &[u8], chain: &[u8], key: &[u8]) -> Result<Self, ClusterError> {
        let wrong = |why: &dyn fmt::Display| ClusterError::Tls(why.to_string());
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(authority) {
            let root = root.map_err(|error| wrong(&error))?;
            roots.add(root).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"no certificate of an authority"));
        }
        let roots = Arc::new(roots);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(&error))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong(&error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());

        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| wrong(&error))?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| wrong(&error))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| wrong(&error))?;
        Ok(Self {
            acceptor: Arc::new(server).into(),
            connector: Arc::new(client).into(),
            name: ServerName::try_from(Self::NAME).map_err(|error| wrong(&error))?,
        })
    }

    /// Sets the DNS name in the certificates of all nodes.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Tls`], if it is not a valid DNS name.
    pub fn named(mut self, name: impl Into<String>) -> Result<Self, ClusterError> {
        let name = ServerName::try_from(name.into());
        self.name = name.map_err(|error| ClusterError::Tls(error.to_string()))?;
        Ok(self)
    }
}

impl fmt::Debug for ClusterTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a node cannot join a cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The name of the cluster is not valid.
    #[error("'{0}' is no name of a cluster: 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.'")]
    Name(String),
    /// The cookie is too short, so it can be guessed.
    #[error("a cookie has at least {} bytes", ClusterConfig::MIN_COOKIE)]
    Cookie,
    /// The node would listen without TLS on an address that is not loopback.
    #[error("without TLS a node listens on loopback only, and {0} is not")]
    Plaintext(SocketAddr),
    /// The address is unspecified, so it cannot be announced to other nodes.
    #[error("{0} is all addresses: `advertise` must say which of them others connect to")]
    Advertise(SocketAddr),
    /// The seed is not of the form `host:port`.
    #[error("the seed '{0}' is not of the form host:port")]
    Seed(String),
    /// These limits contradict each other.
    #[error("{0}")]
    Limits(&'static str),
    /// The keys for TLS are not valid.
    #[error("tls: {0}")]
    Tls(String),
    /// The node cannot listen on an address.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// This process has a node already. `ractor` has one actor system for each process, so the
    /// actors of two nodes would see each other's links.
    #[error("there is a node in this process already")]
    SecondNode,
    /// A part of the node did not start.
    #[error("the node did not start: {0}")]
    Start(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ClusterConfig {
        ClusterConfig::new("test", "what all nodes know")
    }

    #[test]
    fn only_private_addresses_are_dialled_and_only_loopback_without_tls() {
        let config = config();
        for near in ["127.0.0.1", "10.1.2.3", "192.168.0.9", "::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(config.may_dial(near.parse().unwrap()), "{near}");
        }
        for far in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8", "0.0.0.0"] {
            assert!(!config.may_dial(far.parse().unwrap()), "{far}");
        }
        assert!(config.allows_plaintext("127.0.0.1".parse().unwrap()));
        assert!(!config.allows_plaintext("10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn invalid_settings_are_refused_with_a_specific_error() {
        let refused = |change: &dyn Fn(&mut ClusterConfig)| {
            let mut config = config();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert!(config().check().is_ok());
        assert!(matches!(refused(&|c| c.cluster = "a/b".into()), ClusterError::Name(_)));
        assert!(matches!(refused(&|c| c.cookie.truncate(9)), ClusterError::Cookie));
        assert!(matches!(refused(&|c| c.seeds.push("host".into())), ClusterError::Seed(_)));
        assert!(matches!(refused(&|c| c.max_frame = 9 << 20), ClusterError::Limits(_)));
        assert!(matches!(refused(&|c| c.max_strangers = 0), ClusterError::Limits(_)));
        assert!(matches!(refused(&|c| c.max_in_flight = 1), ClusterError::Limits(_)));
        assert!(matches!(
            refused(&|c| c.give_up_after = c.gossip_interval),
            ClusterError::Limits(_)
        ));
        let anywhere = "0.0.0.0:1".parse().unwrap();
        assert!(matches!(refused(&|c| c.listen = anywhere), ClusterError::Plaintext(_)));
        assert!(matches!(refused(&|c| c.gossip = anywhere), ClusterError::Advertise(_)));
    }

    #[test]
    fn the_cookie_is_not_in_debug_output() {
        assert!(!format!("{:?}", config()).contains("what all"));
    }
}

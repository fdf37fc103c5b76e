//! The gossip socket. It accepts only messages that were sealed with a key from the cookie, and
//! sends only to addresses to which the node may send.
//!
//! The encoding of gossip messages is internal to `chitchat`. So `chitchat` gets a socket on
//! loopback that talks to another socket of this node, the bridge. The bridge seals outgoing
//! messages and sends them on, and passes incoming messages with a valid seal to `chitchat`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpSocket as Inner};
use futures::FutureExt as _;
use hmac::{Hmac, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;
use tokio::net::UdpSocket;

use super::hello::keyed;
use super::shared::Shared;

/// The length of the seal before each message, in bytes: a hash of the message.
const SEAL: usize = 16;
/// The largest UDP datagram, in bytes.
const MAX_DATAGRAM: usize = 65_507;
/// How long to wait for a message between the two loopback sockets. After this time the message was
/// lost or not understood.
const BRIDGE_TIMEOUT: Duration = Duration::from_millis(200);

pub(crate) struct SealedSocket {
    shared: Arc<Shared>,
    key: Hmac<Sha256>,
    outer: UdpSocket,
    address: SocketAddr,
    inner: Inner,
    bridge: UdpSocket,
    bridge_addr: SocketAddr,
    /// The source of the message that was passed to `chitchat`.
    received_from: Option<SocketAddr>,
    buf: Vec<u8>,
}

impl SealedSocket {
    pub(crate) async fn bind(shared: Arc<Shared>) -> anyhow::Result<Self> {
        let outer = UdpSocket::bind(shared.config.gossip).await?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let inner = Inner::open(loopback).await?;
        let bridge = UdpSocket::bind(loopback).await?;
        // So that the bridge receives from `chitchat` only.
        bridge.connect(inner.local_addr()?).await?;
        Ok(Self {
            key: keyed(&shared.config.cookie, b"stentor gossip"),
            bridge_addr: bridge.local_addr()?,
            address: outer.local_addr()?,
            shared,
            outer,
            inner,
            bridge,
            received_from: None,
            buf: vec![0; MAX_DATAGRAM],
        })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    fn seal(&self, message: &[u8]) -> Hmac<Sha256> {
        let mut seal = self.key.clone();
        seal.update(message);
        seal
    }

    /// Waits for a message with a valid seal, and passes it to `chitchat`.
    async fn receive_sealed(&mut self) -> anyhow::Result<()> {
        loop {
            let (len, from) = match self.outer.recv_from(&mut self.buf).await {
                Ok(received) => received,
                // The network may report errors of earlier sends, for example that the port is
                // closed. The socket must continue to receive.
                Err(error) => {
                    stentor_engine::log!(debug, %error, "the gossip socket");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            // The node could not answer such an address. The check comes before the hash, whose
            // cost grows with the datagram.
            if !self.shared.config.may_dial(from.ip()) {
                continue;
            }
            let Some((seal, message)) = self.buf[..len].split_at_checked(SEAL) else { continue };
            if self.seal(message).verify_truncated_left(seal).is_err() {
                stentor_engine::log!(debug, %from, "gossip without the seal of the cluster");
                continue;
            }
            // Removes an old message that could be mistaken for this one.
            while self.inner.recv().now_or_never().is_some() {}
            self.received_from = Some(from);
            self.bridge.send(&self.buf[SEAL..len]).await?;
            return Ok(());
        }
    }
}

#[async_trait]
impl Socket for SealedSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.address)
    }

    async fn send(
        &mut self,
        to: SocketAddr,
        envelope: ChitchatEnvelope,
    ) -> anyhow::Result<SendOutcome> {
        if !self.shared.config.may_dial(to.ip()) {
            return Ok(SendOutcome { num_bytes_sent: 0 });
        }
        // Removes an old message that was not sent on.
        while self.bridge.try_recv(&mut self.buf).is_ok() {}
        self.inner.send(self.bridge_addr, envelope).await?;
        let out = self.bridge.recv(&mut self.buf[SEAL..]);
        let len = tokio::time::timeout(BRIDGE_TIMEOUT, out).await.context("lost on loopback")??;
        anyhow::ensure!(
            SEAL + len < MAX_DATAGRAM,
            "what nodes say of themselves is too long for a datagram"
        );
        let seal = self.seal(&self.buf[SEAL..SEAL + len]).finalize().into_bytes();
        self.buf[..SEAL].copy_from_slice(&seal[..SEAL]);
        let num_bytes_sent = self.outer.send_to(&self.buf[..SEAL + len], to).await?;
        Ok(SendOutcome { num_bytes_sent })
    }

    /// Cancel safe: the next call waits for the message that was passed on.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            if let Some(from_addr) = self.received_from {
                let bridged = async {
                    loop {
                        let outcome = self.inner.recv().await?;
                        // Other processes on this machine can send to loopback too.
                        if outcome.from_addr == self.bridge_addr {
                            return anyhow::Ok(outcome);
                        }
                    }
                };
                let received = tokio::time::timeout(BRIDGE_TIMEOUT, bridged).await;
                self.received_from = None;
                match received {
                    Ok(outcome) => return Ok(RecvOutcome { from_addr, ..outcome? }),
                    Err(_) => {
                        stentor_engine::log!(debug, from = %from_addr, "gossip that makes no sense")
                    }
                }
            }
            self.receive_sealed().await?;
        }
    }
}

/// A socket that is bound already, so that its port is known before gossip starts.
pub(crate) struct Bound(Mutex<Option<SealedSocket>>);

impl Bound {
    pub(crate) const fn new(socket: SealedSocket) -> Self {
        Self(Mutex::new(Some(socket)))
    }
}

#[async_trait]
impl Transport for Bound {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = self.0.lock().take();
        Ok(Box::new(socket.context("opened twice")?))
    }
}

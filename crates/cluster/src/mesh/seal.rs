//! The gossip socket, which takes only what was sealed by somebody who knows the cookie, and
//! sends only to where a node may send at all.
//!
//! How messages of gossip are written is `chitchat`'s own affair. So its socket is one on
//! loopback that talks to another one here, the turn: what comes out is sealed and sent on, and
//! what comes with a good seal goes in.

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

use super::{Shared, hello};

/// What is before each message: the hash of the rest.
const SEAL: usize = 16;
/// The largest datagram.
const MAX: usize = 65_507;
/// Between two sockets on loopback nothing takes long: then it was lost, or not understood.
const TURN: Duration = Duration::from_millis(200);

pub(crate) struct SealedSocket {
    shared: Arc<Shared>,
    key: Hmac<Sha256>,
    outer: UdpSocket,
    address: SocketAddr,
    inner: Inner,
    turn: UdpSocket,
    turn_addr: SocketAddr,
    /// Where the message came from that went in.
    came: Option<SocketAddr>,
    buf: Vec<u8>,
}

impl SealedSocket {
    pub(crate) async fn bind(shared: Arc<Shared>) -> anyhow::Result<Self> {
        let outer = UdpSocket::bind(shared.config.gossip).await?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let inner = Inner::open(loopback).await?;
        let turn = UdpSocket::bind(loopback).await?;
        // So it hears nobody else.
        turn.connect(inner.local_addr()?).await?;
        Ok(Self {
            key: hello::keyed(&shared.config.cookie, b"stentor gossip"),
            turn_addr: turn.local_addr()?,
            address: outer.local_addr()?,
            shared,
            outer,
            inner,
            turn,
            came: None,
            buf: vec![0; MAX],
        })
    }

    /// Where others reach it.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    fn seal(&self, message: &[u8]) -> Hmac<Sha256> {
        let mut seal = self.key.clone();
        seal.update(message);
        seal
    }

    /// Waits for a message with a good seal, and puts it in.
    async fn take_in(&mut self) -> anyhow::Result<()> {
        loop {
            let (len, from) = match self.outer.recv_from(&mut self.buf).await {
                Ok(received) => received,
                // What the network says of something that was sent before, such as that nobody
                // listens there, is no reason to hear nobody any more.
                Err(error) => {
                    stentor_engine::log!(debug, %error, "the gossip socket");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            // Nobody there could be answered. What comes from nowhere costs a look at its address: the
            // hash takes as long as the datagram is.
            if !self.shared.config.may_dial(from.ip()) {
                continue;
            }
            let Some((seal, message)) = self.buf[..len].split_at_checked(SEAL) else { continue };
            if self.seal(message).verify_truncated_left(seal).is_err() {
                stentor_engine::log!(debug, %from, "gossip without the seal of the cluster");
                continue;
            }
            // Nothing of before is in there that could be taken for this.
            while self.inner.recv().now_or_never().is_some() {}
            self.came = Some(from);
            self.turn.send(&self.buf[SEAL..len]).await?;
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
        // Nothing of before is on its way out.
        while self.turn.try_recv(&mut self.buf).is_ok() {}
        self.inner.send(self.turn_addr, envelope).await?;
        let out = self.turn.recv(&mut self.buf[SEAL..]);
        let len = tokio::time::timeout(TURN, out).await.context("lost on loopback")??;
        anyhow::ensure!(
            SEAL + len < MAX,
            "what nodes say of themselves is too long for a datagram"
        );
        let seal = self.seal(&self.buf[SEAL..SEAL + len]).finalize().into_bytes();
        self.buf[..SEAL].copy_from_slice(&seal[..SEAL]);
        let num_bytes_sent = self.outer.send_to(&self.buf[..SEAL + len], to).await?;
        Ok(SendOutcome { num_bytes_sent })
    }

    /// May be dropped at any time: what went in is waited for the next time.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            if let Some(from_addr) = self.came {
                let turned = async {
                    loop {
                        let outcome = self.inner.recv().await?;
                        // Others on this machine can send to loopback, too.
                        if outcome.from_addr == self.turn_addr {
                            return anyhow::Ok(outcome);
                        }
                    }
                };
                let received = tokio::time::timeout(TURN, turned).await;
                self.came = None;
                match received {
                    Ok(outcome) => return Ok(RecvOutcome { from_addr, ..outcome? }),
                    Err(_) => {
                        stentor_engine::log!(debug, from = %from_addr, "gossip that makes no sense")
                    }
                }
            }
            self.take_in().await?;
        }
    }
}

/// A socket that is bound already, so that its port is known before gossip begins.
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

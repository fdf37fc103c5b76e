//! The handshake on a new connection: both ends prove that they know the cookie, and exchange their
//! names. It comes before anything else on the connection, and after TLS.
//!
//! Both ends send a hello that contains random numbers. Then both send a proof, the dialling end
//! first: a keyed hash of both hellos and of the role of the sender. So a proof cannot be replayed,
//! and cannot be reflected to its sender.

use std::io;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use stentor_engine::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::shared::{Shared, random_u64};

/// How long the handshake of a stranger may take.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
const VERSION: u32 = 1;
const MAX_HELLO: u16 = 1_024;
const PROOF_BYTES: usize = 32;

/// The introduction of one end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    version: u32,
    cluster: String,
    pub(crate) node: NodeId,
    pub(crate) generation: u64,
    /// The number of this link in messages to the sender of the hello.
    pub(crate) link: u64,
    /// The most bytes that the sender accepts unhandled, and in one frame.
    pub(crate) window: u64,
    pub(crate) max_frame: u64,
    nonce: [u64; 2],
}

impl Hello {
    pub(crate) fn of(shared: &Shared) -> Self {
        Self {
            version: VERSION,
            cluster: shared.config.cluster.clone(),
            node: shared.node.clone(),
            generation: shared.generation,
            link: random_u64(),
            window: shared.config.max_in_flight as u64,
            max_frame: shared.config.max_frame as u64,
            nonce: [random_u64(), random_u64()],
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("it took too long")]
    Late(#[from] tokio::time::error::Elapsed),
    #[error("it speaks something else")]
    Unknown,
    #[error("it is of the cluster {0:?}")]
    OtherCluster(String),
    #[error("it is not the node it should be but '{0}'")]
    OtherNode(NodeId),
    #[error("it does not know the cookie")]
    Cookie,
}

#[derive(Clone, Debug)]
pub(crate) enum End {
    /// This end connected to this node.
    Dialled(NodeId),
    /// This end accepted the connection.
    Accepted,
}

/// The hellos of both ends of a link.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) mine: Hello,
    pub(crate) theirs: Hello,
}

/// A connection whose two ends have proven that they know the cookie.
pub(crate) struct Proven {
    pub(crate) proof: Proof,
    pub(crate) end: End,
    pub(crate) stream: Box<dyn Stream>,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Runs the handshake. `is_proven` is called once the other end has proven itself.
pub(super) async fn proven<S: Stream + 'static>(
    shared: &Shared,
    end: End,
    mut stream: S,
    is_proven: impl FnOnce(&mut S),
) -> Result<Proven, HelloError> {
    let mine = Hello::of(shared);
    let theirs = prove(&mut stream, &end, &mine, &shared.config.cookie).await?;
    is_proven(&mut stream);
    Ok(Proven { proof: Proof { mine, theirs }, end, stream: Box::new(stream) })
}

/// Proves this end to the other, and checks the proof of the other. Returns the other's hello.
pub(crate) async fn prove(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    end: &End,
    hello: &Hello,
    cookie: &str,
) -> Result<Hello, HelloError> {
    tokio::time::timeout(HELLO_TIMEOUT, exchange(stream, end, hello, cookie)).await?
}

async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    end: &End,
    hello: &Hello,
    cookie: &str,
) -> Result<Hello, HelloError> {
    let mine = serde_json::to_vec(hello).map_err(io::Error::from)?;
    match end {
        End::Dialled(node) => {
            write_hello(stream, &mine).await?;
            let theirs = read_hello(stream).await?;
            let other = parse_hello(&theirs, hello)?;
            if other.node != *node {
                return Err(HelloError::OtherNode(other.node));
            }
            let proof = |role| proof(cookie, role, &mine, &theirs);
            stream.write_all(&proof(b"dialled").finalize().into_bytes()).await?;
            stream.flush().await?;
            check(stream, proof(b"accepted")).await?;
            Ok(other)
        }
        End::Accepted => {
            let theirs = read_hello(stream).await?;
            let other = parse_hello(&theirs, hello)?;
            write_hello(stream, &mine).await?;
            let proof = |role| proof(cookie, role, &theirs, &mine);
            check(stream, proof(b"dialled")).await?;
            stream.write_all(&proof(b"accepted").finalize().into_bytes()).await?;
            stream.flush().await?;
            Ok(other)
        }
    }
}

async fn write_hello(stream: &mut (impl AsyncWrite + Unpin), hello: &[u8]) -> io::Result<()> {
    stream.write_u16(hello.len().try_into().map_err(io::Error::other)?).await?;
    stream.write_all(hello).await?;
    stream.flush().await
}

async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, HelloError> {
    let len = stream.read_u16().await?;
    if len > MAX_HELLO {
        return Err(HelloError::Unknown);
    }
    let mut hello = vec![0; len.into()];
    stream.read_exact(&mut hello).await?;
    Ok(hello)
}

fn parse_hello(theirs: &[u8], mine: &Hello) -> Result<Hello, HelloError> {
    let other: Hello = serde_json::from_slice(theirs).map_err(|_| HelloError::Unknown)?;
    if other.version != VERSION {
        return Err(HelloError::Unknown);
    }
    if other.cluster != mine.cluster {
        return Err(HelloError::OtherCluster(other.cluster));
    }
    if other.node == mine.node {
        return Err(HelloError::OtherNode(other.node));
    }
    Ok(other)
}

fn proof(cookie: &str, role: &[u8], dialled: &[u8], accepted: &[u8]) -> Hmac<Sha256> {
    let mut mac = keyed(cookie, b"stentor hello");
    for part in [role, dialled, accepted] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

async fn check(
    stream: &mut (impl AsyncRead + Unpin),
    expected: Hmac<Sha256>,
) -> Result<(), HelloError> {
    let mut proof = [0; PROOF_BYTES];
    stream.read_exact(&mut proof).await?;
    expected.verify_slice(&proof).map_err(|_| HelloError::Cookie)
}

/// A hash whose key is derived from the cookie, for this purpose only.
pub(crate) fn keyed(cookie: &str, purpose: &[u8]) -> Hmac<Sha256> {
    let mut key = mac(cookie.as_bytes());
    key.update(purpose);
    mac(&key.finalize().into_bytes())
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length will do")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(cluster: &str, node: &str) -> Hello {
        Hello {
            version: VERSION,
            cluster: cluster.to_owned(),
            node: NodeId::new(node).unwrap(),
            generation: 1,
            link: super::super::random_u64(),
            window: 2,
            max_frame: 1,
            nonce: [super::super::random_u64(), 7],
        }
    }

    /// The results at both ends: `a` connects to a node `b`.
    async fn meet(
        (a, cookie_a): (Hello, &str),
        (b, cookie_b): (Hello, &str),
    ) -> (Result<Hello, HelloError>, Result<Hello, HelloError>) {
        let (mut near, mut far) = tokio::io::duplex(4_096);
        let to_b = End::Dialled(NodeId::new("b").unwrap());
        tokio::join!(async move { prove(&mut near, &to_b, &a, cookie_a).await }, async move {
            prove(&mut far, &End::Accepted, &b, cookie_b).await
        },)
    }

    #[tokio::test]
    async fn two_nodes_of_a_cluster_exchange_their_hellos() {
        let (a, b) = (hello("x", "a"), hello("x", "b"));
        let (at_a, at_b) = meet((a.clone(), "cookie"), (b.clone(), "cookie")).await;
        assert_eq!((at_a.unwrap(), at_b.unwrap()), (b, a));
    }

    #[tokio::test]
    async fn a_node_with_a_wrong_cookie_is_refused() {
        let (a, b) = (hello("x", "a"), hello("x", "b"));
        let (at_a, at_b) = meet((a, "cookie"), (b, "biscuit")).await;
        assert!(at_a.is_err());
        assert!(matches!(at_b, Err(HelloError::Cookie)), "{at_b:?}");
    }

    #[tokio::test]
    async fn another_cluster_and_another_node_are_refused() {
        let (_, at_b) = meet((hello("y", "a"), "cookie"), (hello("x", "b"), "cookie")).await;
        assert!(matches!(at_b, Err(HelloError::OtherCluster(_))), "{at_b:?}");
        let (at_a, _) = meet((hello("x", "a"), "cookie"), (hello("x", "c"), "cookie")).await;
        assert!(matches!(at_a, Err(HelloError::OtherNode(_))), "{at_a:?}");
    }

    #[tokio::test]
    async fn a_reflected_proof_is_refused() {
        // A peer that echoes everything.
        let (mut near, far) = tokio::io::duplex(4_096);
        let (mut from, mut to) = tokio::io::split(far);
        let echo = tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
        let end = End::Dialled(NodeId::new("b").unwrap());
        assert!(prove(&mut near, &end, &hello("x", "a"), "cookie").await.is_err());
        echo.abort();
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_stranger_cause_a_panic(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut stranger = tokio_test_stream(bytes);
            let result = runtime.block_on(async {
                exchange(&mut stranger, &End::Accepted, &hello("x", "b"), "cookie").await
            });
            prop_assert!(result.is_err());
        }
    }

    /// A stream that yields these bytes, ignores writes and ends.
    fn tokio_test_stream(bytes: Vec<u8>) -> impl AsyncRead + AsyncWrite + Unpin {
        tokio::io::join(io::Cursor::new(bytes), tokio::io::sink())
    }
}

//! How the two ends of a new connection prove to each other that they know the cookie, and say
//! who they are. It comes before anything else on the connection, and after TLS.
//!
//! Both say hello, with something random in it; then both prove, the one that connected first,
//! with a keyed hash over both hellos and who of the two it is. So no proof can be used
//! again, or turned back to where it came from.

use std::io;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use stentor_engine::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// How long a stranger may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
const VERSION: u32 = 1;
const MAX_HELLO: u16 = 1_024;
const PROOF: usize = 32;

/// What one end says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    version: u32,
    cluster: String,
    pub(crate) node: NodeId,
    pub(crate) generation: u64,
    /// The number by which it will know what comes over this link.
    pub(crate) link: u64,
    /// What it takes before it has handled it, and in one frame.
    pub(crate) window: u64,
    pub(crate) max_frame: u64,
    nonce: [u64; 2],
}

impl Hello {
    pub(crate) fn of(shared: &super::Shared) -> Self {
        Self {
            version: VERSION,
            cluster: shared.config.cluster.clone(),
            node: shared.node.clone(),
            generation: shared.generation,
            link: super::unguessable(),
            window: shared.config.max_in_flight as u64,
            max_frame: shared.config.max_frame as u64,
            nonce: [super::unguessable(), super::unguessable()],
        }
    }
}

/// Why a connection is no link.
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

/// Which end of a connection this is.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// It connected, to this node.
    Dialled(NodeId),
    /// It was connected to.
    Accepted,
}

/// Proves this end to the other and the other to this. The other's hello.
pub(crate) async fn prove(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    end: &End,
    hello: &Hello,
    cookie: &str,
) -> Result<Hello, HelloError> {
    tokio::time::timeout(PATIENCE, exchange(stream, end, hello, cookie)).await?
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
            say(stream, &mine).await?;
            let theirs = hear(stream).await?;
            let other = understood(&theirs, hello)?;
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
            let theirs = hear(stream).await?;
            let other = understood(&theirs, hello)?;
            say(stream, &mine).await?;
            let proof = |role| proof(cookie, role, &theirs, &mine);
            check(stream, proof(b"dialled")).await?;
            stream.write_all(&proof(b"accepted").finalize().into_bytes()).await?;
            stream.flush().await?;
            Ok(other)
        }
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), hello: &[u8]) -> io::Result<()> {
    stream.write_u16(hello.len().try_into().map_err(io::Error::other)?).await?;
    stream.write_all(hello).await?;
    stream.flush().await
}

async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, HelloError> {
    let len = stream.read_u16().await?;
    if len > MAX_HELLO {
        return Err(HelloError::Unknown);
    }
    let mut hello = vec![0; len.into()];
    stream.read_exact(&mut hello).await?;
    Ok(hello)
}

fn understood(theirs: &[u8], mine: &Hello) -> Result<Hello, HelloError> {
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
    let mut proof = [0; PROOF];
    stream.read_exact(&mut proof).await?;
    expected.verify_slice(&proof).map_err(|_| HelloError::Cookie)
}

/// A hash with a key that comes from the cookie, and is for this use alone.
pub(crate) fn keyed(cookie: &str, what_for: &[u8]) -> Hmac<Sha256> {
    let mut key = mac(cookie.as_bytes());
    key.update(what_for);
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
            link: super::super::unguessable(),
            window: 2,
            max_frame: 1,
            nonce: [super::super::unguessable(), 7],
        }
    }

    /// What the one that connected to `b` as `a` and the one that was connected to find.
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
    async fn two_of_a_cluster_learn_who_the_other_is() {
        let (a, b) = (hello("x", "a"), hello("x", "b"));
        let (at_a, at_b) = meet((a.clone(), "cookie"), (b.clone(), "cookie")).await;
        assert_eq!((at_a.unwrap(), at_b.unwrap()), (b, a));
    }

    #[tokio::test]
    async fn who_does_not_know_the_cookie_is_refused() {
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
    async fn a_proof_turned_back_proves_nothing() {
        // Who sends back whatever it is sent.
        let (mut near, far) = tokio::io::duplex(4_096);
        let (mut from, mut to) = tokio::io::split(far);
        let echo = tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
        let end = End::Dialled(NodeId::new("b").unwrap());
        assert!(prove(&mut near, &end, &hello("x", "a"), "cookie").await.is_err());
        echo.abort();
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_stranger_panic(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut stranger = tokio_test_stream(bytes);
            let result = runtime.block_on(async {
                exchange(&mut stranger, &End::Accepted, &hello("x", "b"), "cookie").await
            });
            prop_assert!(result.is_err());
        }
    }

    /// A stream that says this, hears nothing and ends.
    fn tokio_test_stream(bytes: Vec<u8>) -> impl AsyncRead + AsyncWrite + Unpin {
        tokio::io::join(io::Cursor::new(bytes), tokio::io::sink())
    }
}

//! Looks up the names of callbacks, and refuses those that lead into a network that is not public.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Semaphore;
use tower_service::Service;

/// Finds the addresses of a name.
pub(crate) trait Lookup: Send + Sync + 'static {
    /// All addresses of a host.
    fn lookup(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Asks the operating system.
#[derive(Debug)]
pub(crate) struct SystemLookup {
    /// A lookup blocks a thread until it ends, also when nobody waits for it any more.
    at_once: Arc<Semaphore>,
}

impl SystemLookup {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { at_once: Arc::new(Semaphore::new(at_once)) }
    }
}

impl Lookup for SystemLookup {
    fn lookup(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let (host, at_once) = (host.to_owned(), self.at_once.clone());
        Box::pin(async move {
            let permit = at_once.acquire_owned().await.map_err(io::Error::other)?;
            let lookup = tokio::spawn(async move {
                let found = tokio::net::lookup_host((host, 0)).await;
                drop(permit);
                found.map(|found| found.map(|address| address.ip()).collect())
            });
            lookup.await.map_err(io::Error::other)?
        })
    }
}

/// A name has an address to which no connection may be made.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the host has an address that is not on the public internet")]
struct Forbidden;

/// Gives the client the addresses to which it connects: those that were checked, and no others.
#[derive(Clone)]
pub(super) struct Resolver {
    pub(super) lookup: Arc<dyn Lookup>,
    /// Whether a connection to an address may be made.
    pub(super) accepts: fn(IpAddr) -> bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, accepts) = (self.lookup.lookup(name.as_str()), self.accepts);
        Box::pin(async move {
            let found = found.await?;
            // One address that is not public makes the others doubtful, too.
            if !found.iter().all(|ip| accepts(*ip)) {
                return Err(Forbidden.into());
            }
            // The client puts the port of the URL in the place of 0.
            let addresses: Vec<_> = found.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}

/// Whether an error is that of a name that was refused.
pub(super) fn is_forbidden(error: &(dyn Error + 'static)) -> bool {
    error.is::<Forbidden>()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::super::address::is_global;
    use super::*;

    /// Answers that come one after the other.
    struct Answers(Mutex<Vec<Vec<&'static str>>>);

    impl Lookup for Answers {
        fn lookup(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let answer = self.0.lock().unwrap().remove(0);
            Box::pin(async { Ok(answer.into_iter().map(|it| it.parse().unwrap()).collect()) })
        }
    }

    #[tokio::test]
    async fn one_bad_address_refuses_the_host() {
        for (answer, passes) in [
            (vec!["8.8.8.8", "2606:4700::1111"], true),
            (vec!["8.8.8.8", "10.0.0.1"], false),
            (vec!["::ffff:127.0.0.1", "8.8.8.8"], false),
            (vec!["fe80::1"], false),
        ] {
            let lookup = Arc::new(Answers(Mutex::new(vec![answer.clone()])));
            let mut resolver = Resolver { lookup, accepts: is_global };
            match resolver.call("hook.example".parse().unwrap()).await {
                Ok(found) => {
                    let found: Vec<_> = found.map(|it| it.ip().to_string()).collect();
                    assert!(passes && found == answer, "{answer:?}");
                }
                Err(error) => assert!(!passes && is_forbidden(&*error), "{answer:?}"),
            }
        }
    }

    #[tokio::test]
    async fn the_operating_system_knows_this_machine() {
        let found = SystemLookup::new(1).lookup("localhost").await.unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
        let lookup = Arc::new(SystemLookup::new(1));
        let mut resolver = Resolver { lookup, accepts: is_global };
        let refused = resolver.call("localhost".parse().unwrap()).await.err().unwrap();
        assert!(is_forbidden(&*refused));
    }
}

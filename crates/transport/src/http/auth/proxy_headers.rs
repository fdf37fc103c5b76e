//! Identities that a proxy in front has found out.

use std::net::SocketAddr;

use http::request::Parts;
use http::{HeaderMap, HeaderName};
use stentor_engine::identity::Identity;

use super::{Authenticator, Challenge, Rejection, Verdict};
use crate::http::Networks;

/// An authenticator that believes a proxy in front: the proxy authenticates clients, and names them
/// in a header. From any other address the header is as if it were not there.
///
/// The proxy must remove the headers of this configuration from the requests of its clients.
///
/// ```
/// use stentor::http::{HttpConfig, Networks, ProxyHeaders};
///
/// # fn main() -> Result<(), stentor::http::NetworkError> {
/// let proxies = Networks::new(["10.0.0.0/24", "::1"])?;
/// let auth = ProxyHeaders::new(proxies, "x-remote-user").scopes("x-remote-scopes");
/// let config = HttpConfig::new().auth(auth);
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ProxyHeaders {
    proxies: Networks,
    name: Option<HeaderName>,
    scopes: Option<HeaderName>,
    client: Option<HeaderName>,
    challenge: Challenge,
}

impl ProxyHeaders {
    /// Believes the proxies in these networks. `name` is the header with the name of the principal.
    /// A text that cannot be the name of a header names nobody.
    #[must_use]
    pub fn new(proxies: Networks, name: &str) -> Self {
        let (name, challenge) = (header(name), Challenge::default());
        Self { proxies, name, scopes: None, client: None, challenge }
    }

    /// Sets the header with the scopes, which are separated by spaces or commas.
    #[must_use]
    pub fn scopes(mut self, name: &str) -> Self {
        self.scopes = header(name);
        self
    }

    /// Sets the header with the OAuth client that acts for the principal.
    #[must_use]
    pub fn client(mut self, name: &str) -> Self {
        self.client = header(name);
        self
    }

    fn find(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> Result<Identity, Rejection> {
        if !peer.is_some_and(|peer| self.proxies.contains(peer.ip())) {
            return Err(Rejection::Missing);
        }
        let name = value(headers, self.name.as_ref())?.ok_or(Rejection::Missing)?;
        let mut identity = Identity::named(name);
        if let Some(scopes) = value(headers, self.scopes.as_ref())? {
            identity = identity.scopes(scopes.split([' ', ',']).filter(|scope| !scope.is_empty()));
        }
        if let Some(client) = value(headers, self.client.as_ref())? {
            identity = identity.client(client);
        }
        Ok(identity)
    }
}

fn header(name: &str) -> Option<HeaderName> {
    let name = HeaderName::try_from(name).ok();
    if name.is_none() {
        stentor_engine::log!(warn, "a name is no name of a header, so no request can have it");
    }
    name
}

/// The value of a header, which must not occur twice. A blank value is none.
fn value<'a>(
    headers: &'a HeaderMap,
    name: Option<&HeaderName>,
) -> Result<Option<&'a str>, Rejection> {
    let Some(name) = name else { return Ok(None) };
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Ok(None) };
    if second.is_some() {
        return Err(Rejection::Invalid);
    }
    let value = std::str::from_utf8(value.as_bytes()).map_err(|_| Rejection::Invalid)?.trim();
    Ok((!value.is_empty()).then_some(value))
}

impl Authenticator for ProxyHeaders {
    fn check(&self, head: &Parts, peer: Option<SocketAddr>) -> Verdict {
        Verdict::Now(self.find(&head.headers, peer))
    }

    fn challenge(&self) -> &Challenge {
        &self.challenge
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::guard::tests::map;

    #[test]
    fn only_a_listed_proxy_is_believed() {
        let [name, scopes, client] =
            ["x-user", "x-scopes", "x-client"].map(HeaderName::from_static);
        let auth = ProxyHeaders::new(Networks::new(["10.0.0.0/8"]).unwrap(), "X-User")
            .scopes("x-scopes")
            .client("x-client");
        let find = |peer: Option<&str>, headers: &[(HeaderName, &str)]| {
            let peer = peer.map(|it| SocketAddr::new(it.parse().unwrap(), 1));
            auth.find(&map(headers), peer).map(|identity| {
                let scopes: Vec<_> = identity.granted_scopes().map(str::to_owned).collect();
                let client = identity.client_id().map(str::to_owned);
                (identity.principal().to_owned(), scopes.join("+"), client)
            })
        };
        let ann = |scopes: &str, client: Option<&str>| {
            Ok(("ann".to_owned(), scopes.to_owned(), client.map(str::to_owned)))
        };
        let proxy = Some("10.0.0.1");
        let named = [(name.clone(), "ann")];
        assert_eq!(find(proxy, &named), ann("", None));
        assert_eq!(find(Some("::ffff:10.0.0.1"), &named), ann("", None));
        for stranger in [None, Some("11.0.0.1"), Some("::1"), Some("127.0.0.1")] {
            assert_eq!(find(stranger, &named), Err(Rejection::Missing), "{stranger:?}");
        }
        let all = [(name.clone(), " ann "), (scopes.clone(), "b, a c"), (client.clone(), "app")];
        assert_eq!(find(proxy, &all), ann("a+b+c", Some("app")));
        let blank = [(name.clone(), "ann"), (scopes.clone(), " "), (client, "")];
        assert_eq!(find(proxy, &blank), ann("", None));
        assert_eq!(find(proxy, &[]), Err(Rejection::Missing));
        assert_eq!(find(proxy, &[(name.clone(), " ")]), Err(Rejection::Missing));
        let twice = [(name.clone(), "ann"), (name.clone(), "ann")];
        assert_eq!(find(proxy, &twice), Err(Rejection::Invalid));
        let twice = [(name.clone(), "ann"), (scopes.clone(), "a"), (scopes, "b")];
        assert_eq!(find(proxy, &twice), Err(Rejection::Invalid));
        let nobody = ProxyHeaders::new(Networks::new(["0.0.0.0/0"]).unwrap(), "no name");
        let peer = Some("10.0.0.1:1".parse().unwrap());
        assert_eq!(nobody.find(&map(&named), peer).unwrap_err(), Rejection::Missing);
    }
}

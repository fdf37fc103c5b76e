//! Which clients may call the HTTP endpoint, by the `Host` and `Origin` headers of a request. One
//! list decides which requests are accepted, and which pages of other origins may read the
//! responses ([`cors`](super::cors)).
//!
//! Specification: `basic/transports/streamable-http` of 2026-07-28, "Security & Endpoint".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use http::header::{HOST, ORIGIN};
use stentor_wire::headers::quoted;

use super::cors::Page;
use super::guard::{Refusal, sole};

/// The `Host` and `Origin` headers that the HTTP endpoint accepts.
///
/// Any other request is answered with 403 Forbidden. A page of an accepted origin may read its
/// responses: the endpoint says so in each response, and answers the preflight request of the
/// browser (CORS).
///
/// A web page that a user of this machine visits can send requests to a server on this machine, and
/// by DNS rebinding even read the responses. The headers show such a request: `Host` or `Origin`
/// names the page's domain. The default policy depends on the address on which the server listens,
/// see [`default`](Self::default). For a server that clients reach by a name, use
/// [`OriginPolicy::hosts`].
///
/// Every policy but [`OriginPolicy::any`] refuses `Origin: null`, several `Host` or `Origin`
/// headers, and invalid values. If a request has no `Host` header, as in HTTP/2, the authority of
/// its URI is used.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Security & Endpoint".
#[derive(Debug, Clone)]
pub struct OriginPolicy {
    hosts: Hosts,
    origins: Vec<Origin>,
    /// Whether only pages of `origins` may call.
    only_listed: bool,
}

#[derive(Debug, Clone)]
enum Hosts {
    Any,
    /// Not configured: as [`Loopback`](Self::Loopback), unless the server listens on another
    /// address.
    Unnamed,
    Loopback,
    Same,
    Named(Vec<Authority>),
}

impl OriginPolicy {
    /// Accepts requests that this machine sends to itself.
    ///
    /// The host is `localhost`, in 127.0.0.0/8 or `[::1]`, with any port. The origin is absent, or
    /// an http or https origin of such a host.
    pub fn loopback() -> Self {
        Self::of(Hosts::Loopback)
    }

    /// Accepts requests for every host, if their origin is the same host.
    ///
    /// The origin is absent, as for all clients that are not web pages, or it is the host that the
    /// request is for, with any port.
    ///
    /// By DNS rebinding the name of a page's own host can resolve to this server. So a host that is
    /// a name counts only where that is impossible: if the origin is https, because a certificate
    /// proved its name, or if the name is `localhost`. For pages that are served by plain http
    /// under another name, use [`OriginPolicy::hosts`].
    pub fn same_host() -> Self {
        Self::of(Hosts::Same)
    }

    /// Accepts requests for these hosts, with an origin that is absent or an http or https origin
    /// of one of these hosts.
    ///
    /// A host is a name or an IP address (`mcp.example.com`, `10.0.0.7`, `[fd00::7]`), compared
    /// without regard to case; `mcp.example.com:8443` accepts that port only. Write a name with
    /// non-ASCII letters in its punycode form, as clients send it. A value that is not a host (a
    /// URL, for instance) matches no request.
    pub fn hosts<I>(hosts: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let parse = |host: I::Item| {
            let host = host.as_ref();
            match host.parse::<Ipv6Addr>() {
                Ok(address) => Some(Authority { host: Host::Address(address.into()), port: None }),
                Err(_) => Authority::parse(host),
            }
        };
        Self::of(Hosts::Named(hosts.into_iter().filter_map(parse).collect()))
    }

    /// Accepts one more origin: exactly this scheme, host and port.
    ///
    /// The ports 80 and 443 may be left out for http and https. A value that is not an origin
    /// matches no request. Preflight responses also allow pages of this origin to call a server on
    /// a private network.
    #[must_use]
    pub fn with_origin(mut self, origin: impl AsRef<str>) -> Self {
        let origin = origin.as_ref();
        self.origins.extend(Origin::parse(origin.strip_suffix('/').unwrap_or(origin)));
        self
    }

    /// Accepts of web pages only those of the [origins that were added](Self::with_origin), and not
    /// those of the accepted hosts: on a machine with many servers, their pages are strangers to each
    /// other. Requests that are not from web pages are accepted as before.
    #[must_use]
    pub fn listed_origins_only(mut self) -> Self {
        self.only_listed = true;
        self
    }

    /// Accepts every request unchecked, and lets every web page read the responses.
    ///
    /// Use it only if something in front of the server checks the headers, or if everyone may call
    /// the server from everywhere.
    pub fn any() -> Self {
        Self::of(Hosts::Any)
    }

    fn of(hosts: Hosts) -> Self {
        Self { hosts, origins: Vec::new(), only_listed: false }
    }

    /// The policy for a listener on this address.
    pub(super) fn bound_to(mut self, address: IpAddr) -> Self {
        if matches!(self.hosts, Hosts::Unnamed) && !address.to_canonical().is_loopback() {
            self.hosts = Hosts::Same;
        }
        self
    }

    /// Whether only this machine can call.
    pub(super) fn is_loopback(&self) -> bool {
        matches!(self.hosts, Hosts::Unnamed | Hosts::Loopback)
    }

    /// Checks the `Host` and `Origin` headers, and returns the page that sends the request, if
    /// there is one. `authority` is the authority of the request's URI; it replaces an absent
    /// `Host`.
    pub(super) fn check<'a>(
        &self,
        headers: &'a HeaderMap,
        authority: Option<&str>,
    ) -> Result<Option<Page<'a>>, Refusal> {
        let Some(wanted) = self.wanted_host() else { return Ok(Page::sole(headers)) };
        let host = sole_host(headers, authority, wanted)?;
        if matches!(self.hosts, Hosts::Same) && !headers.contains_key(ORIGIN) {
            return Ok(None);
        }
        let host = self.host(host, wanted)?;

        let wanted = match self.hosts {
            Hosts::Same if !self.only_listed => {
                "one of the host that the request is for, or one this server was configured with"
            }
            Hosts::Same | Hosts::Named(_) => "one this server was configured with",
            _ if self.only_listed || !self.origins.is_empty() => {
                "one this server was configured with"
            }
            _ => "one of this machine itself",
        };
        let refused = |found| Refusal::OriginRefused { found, wanted };
        let Some(text) = sole(headers, ORIGIN).map_err(refused)? else { return Ok(None) };
        let origin = Origin::parse(text).ok_or_else(|| refused(quoted(text)))?;
        let is_named = self.origins.contains(&origin);
        if !is_named && (self.only_listed || !self.accepts_origin(&origin, &host)) {
            return Err(refused(quoted(text)));
        }
        Ok(headers.get(ORIGIN).map(|origin| Page { origin, is_named }))
    }

    /// Checks the `Host` header alone, for what any page may read.
    pub(super) fn check_host(
        &self,
        headers: &HeaderMap,
        authority: Option<&str>,
    ) -> Result<(), Refusal> {
        let Some(wanted) = self.wanted_host() else { return Ok(()) };
        let host = sole_host(headers, authority, wanted)?;
        match self.hosts {
            Hosts::Same => Ok(()),
            _ => self.host(host, wanted).map(drop),
        }
    }

    /// Which hosts are accepted, in words; `None` if they are not looked at.
    fn wanted_host(&self) -> Option<&'static str> {
        match self.hosts {
            Hosts::Any => None,
            Hosts::Unnamed | Hosts::Loopback => {
                Some("localhost, an address in 127.0.0.0/8 or [::1]")
            }
            Hosts::Same => Some("this server"),
            Hosts::Named(_) => Some("a host this server was configured with"),
        }
    }

    fn host(&self, found: Option<&str>, wanted: &'static str) -> Result<Authority, Refusal> {
        let text = found.ok_or(Refusal::HostMissing { wanted })?;
        let host = Authority::parse(text).filter(|host| self.accepts_host(host));
        host.ok_or_else(|| Refusal::HostRefused { found: quoted(text), wanted })
    }

    fn accepts_host(&self, found: &Authority) -> bool {
        match &self.hosts {
            Hosts::Any | Hosts::Same => true,
            Hosts::Unnamed | Hosts::Loopback => found.host.is_loopback(),
            Hosts::Named(hosts) => hosts.iter().any(|host| {
                let port = match (host.port, found.port) {
                    (None, _) => true,
                    // A proxy in front of the server may hide whether the request was http or
                    // https.
                    (Some(port), None) => port == 80 || port == 443,
                    (Some(port), Some(found)) => port == found,
                };
                host.host == found.host && port
            }),
        }
    }

    /// Whether an origin is one of the server's own, for a request to this host.
    fn accepts_origin(&self, found: &Origin, host: &Authority) -> bool {
        let (scheme, page, host) = (found.scheme.as_str(), &found.authority, &host.host);
        matches!(scheme, "http" | "https")
            && match self.hosts {
                Hosts::Same if host.is_loopback() => page.host.is_loopback(),
                Hosts::Same => {
                    page.host == *host && (scheme == "https" || matches!(host, Host::Address(_)))
                }
                _ => self.accepts_host(page),
            }
    }
}

impl Default for OriginPolicy {
    /// [`OriginPolicy::loopback`] if [`serve`](super::serve) or [`serve_on`](super::serve_on)
    /// listens on a loopback address, else [`OriginPolicy::same_host`]. [`router`](super::router)
    /// uses the former, because it does not know its address.
    fn default() -> Self {
        Self::of(Hosts::Unnamed)
    }
}

fn sole_host<'a>(
    headers: &'a HeaderMap,
    authority: Option<&'a str>,
    wanted: &'static str,
) -> Result<Option<&'a str>, Refusal> {
    let host = sole(headers, HOST).map_err(|found| Refusal::HostRefused { found, wanted })?;
    Ok(host.or(authority))
}

/// A host and its port, if one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// In lowercase.
    Name(String),
    Address(IpAddr),
}

impl Authority {
    /// Stricter than the grammar of RFC 3986: no user, no escapes, and only characters that host
    /// names on the network have.
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            (Host::Address(address.parse::<Ipv6Addr>().ok()?.into()), port)
        } else {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (Host::parse(name)?, port)
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            None if port.is_empty() => None,
            _ => return None,
        };
        Some(Self { host, port })
    }
}

impl Host {
    fn parse(name: &str) -> Option<Self> {
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let valid = !name.is_empty() && name.bytes().all(valid);
        valid.then(|| Self::Name(name.to_ascii_lowercase()))
    }

    fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost",
            Self::Address(address) => address.is_loopback(),
        }
    }
}

/// An origin of RFC 6454 that is not `null`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    /// In lowercase.
    scheme: String,
    /// With an explicit port if the scheme has a default port.
    authority: Authority,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if !scheme.starts_with(|char: char| char.is_ascii_alphabetic())
            || !scheme.bytes().all(valid)
        {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let Authority { host, port } = Authority::parse(authority)?;
        let port = port.or(match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        });
        Some(Self { scheme, authority: Authority { host, port } })
    }
}

#[cfg(test)]
mod tests;

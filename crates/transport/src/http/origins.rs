//! Who may call the HTTP endpoint, by the `Host` and `Origin` headers of a request: one list, for what
//! is let in and for what pages of other origins may read ([`cors`](super::cors)).
//!
//! Specification: `basic/transports/streamable-http` of 2026-07-28, "Security & Endpoint".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use http::header::{HOST, ORIGIN};
use stentor_wire::headers::quoted;

use super::cors::Page;
use super::guard::{Refusal, sole};

/// Which `Host` and `Origin` headers the HTTP endpoint accepts. Any other request is answered with
/// 403 Forbidden. What a page of an accepted origin is answered it may read: the endpoint says so in
/// each answer, and answers the question that a browser asks before it (CORS).
///
/// A web page that a user of this machine visits can send requests to a server on it, and by DNS
/// rebinding even read the answers. Such a request is betrayed by its headers: `Host` names the
/// page's domain, or `Origin` does. Who names no policy has one by where the server listens, see
/// [`default`](Self::default); a server that others reach by a name says so with
/// [`OriginPolicy::hosts`].
///
/// `Origin: null`, several `Host` or `Origin` headers and values that are none are refused by every
/// policy but [`OriginPolicy::any`]. Where a request has no `Host` header, as in HTTP/2, its
/// authority takes the place.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Security & Endpoint".
#[derive(Debug, Clone)]
pub struct OriginPolicy {
    hosts: Hosts,
    origins: Vec<Origin>,
}

#[derive(Debug, Clone)]
enum Hosts {
    Any,
    /// As [`Loopback`](Self::Loopback), unless it is known that others are to call.
    Unnamed,
    Loopback,
    Same,
    Named(Vec<Authority>),
}

impl OriginPolicy {
    /// Accepts what this machine sends to itself: the host is `localhost`, in 127.0.0.0/8 or
    /// `[::1]`, with any port, and the origin is absent or an http or https one of such a host.
    pub fn loopback() -> Self {
        Self::of(Hosts::Loopback)
    }

    /// Accepts requests for every host, with an origin that is absent, as it is for all clients that
    /// are no web pages, or one of the very host that the request is for, with any port.
    ///
    /// By DNS rebinding a page can have its own name mean this server. So a host that is a name only
    /// counts where that cannot be: where the origin is an https one, whose name was proven by a
    /// certificate, or the name is `localhost`. Pages that are served by plain http under another name
    /// want [`OriginPolicy::hosts`].
    pub fn same_host() -> Self {
        Self::of(Hosts::Same)
    }

    /// Accepts requests for these hosts, with an origin that is absent or an http or https one of
    /// these hosts.
    ///
    /// A host is a name or an IP address (`mcp.example.com`, `10.0.0.7`, `[fd00::7]`), compared
    /// without regard to case; `mcp.example.com:8443` accepts that port only. A name with non-ASCII
    /// letters is given in its punycode form, as clients send it. What is no host (a URL, for
    /// instance) matches no request.
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

    /// Accepts one more origin: exactly this scheme, host and port, where 80 and 443 need not be
    /// written for http and https. What is no origin matches no request. A browser is told that
    /// pages of it may call a server on a private network.
    #[must_use]
    pub fn with_origin(mut self, origin: impl AsRef<str>) -> Self {
        let origin = origin.as_ref();
        self.origins.extend(Origin::parse(origin.strip_suffix('/').unwrap_or(origin)));
        self
    }

    /// Accepts every request unchecked, and lets every page of the web read the answers. Only right
    /// where something in front of the server checks the headers, or where everyone may call it
    /// from everywhere.
    pub fn any() -> Self {
        Self::of(Hosts::Any)
    }

    fn of(hosts: Hosts) -> Self {
        Self { hosts, origins: Vec::new() }
    }

    /// What it is for a listener on this address.
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

    /// Checks the `Host` and `Origin` headers, and gives the page that asks, if it is one;
    /// `authority` is that of the request's URI, which stands in for an absent `Host`.
    pub(super) fn check<'a>(
        &self,
        headers: &'a HeaderMap,
        authority: Option<&str>,
    ) -> Result<Option<Page<'a>>, Refusal> {
        let wanted = match self.hosts {
            Hosts::Any => return Ok(Page::sole(headers)),
            Hosts::Unnamed | Hosts::Loopback => "localhost, an address in 127.0.0.0/8 or [::1]",
            Hosts::Same => "this server",
            Hosts::Named(_) => "a host this server was configured with",
        };
        let refused = |found| Refusal::HostRefused { found, wanted };
        let host = sole(headers, HOST).map_err(refused)?.or(authority);
        if matches!(self.hosts, Hosts::Same) && !headers.contains_key(ORIGIN) {
            return Ok(None);
        }
        let text = host.ok_or(Refusal::HostMissing { wanted })?;
        let host = Authority::parse(text).filter(|host| self.accepts_host(host));
        let host = host.ok_or_else(|| refused(quoted(text)))?;

        let wanted = match self.hosts {
            Hosts::Same => {
                "one of the host that the request is for, or one this server was configured with"
            }
            Hosts::Named(_) => "one this server was configured with",
            _ if !self.origins.is_empty() => "one this server was configured with",
            _ => "one of this machine itself",
        };
        let refused = |found| Refusal::OriginRefused { found, wanted };
        let Some(text) = sole(headers, ORIGIN).map_err(refused)? else { return Ok(None) };
        let origin = Origin::parse(text).ok_or_else(|| refused(quoted(text)))?;
        let is_named = self.origins.contains(&origin);
        if !is_named && !self.accepts_origin(&origin, &host) {
            return Err(refused(quoted(text)));
        }
        Ok(headers.get(ORIGIN).map(|origin| Page { origin, is_named }))
    }

    fn accepts_host(&self, found: &Authority) -> bool {
        match &self.hosts {
            Hosts::Any | Hosts::Same => true,
            Hosts::Unnamed | Hosts::Loopback => found.host.is_loopback(),
            Hosts::Named(hosts) => hosts.iter().any(|host| {
                let port = match (host.port, found.port) {
                    (None, _) => true,
                    // Whether it was http or https, a proxy in front of us may have hidden.
                    (Some(port), None) => port == 80 || port == 443,
                    (Some(port), Some(found)) => port == found,
                };
                host.host == found.host && port
            }),
        }
    }

    /// Whether an origin is one of the server's own, where a request is for this host.
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
    /// Where [`serve`](super::serve) or [`serve_on`](super::serve_on) listens on a loopback address
    /// [`OriginPolicy::loopback`], on any other [`OriginPolicy::same_host`].
    /// [`router`](super::router), which does not know where it is served, has the former.
    fn default() -> Self {
        Self::of(Hosts::Unnamed)
    }
}

/// A host and the port, where one is given.
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
    /// Stricter than the grammar of RFC 3986: no user, no escapes, no characters that no host name
    /// on the network has.
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
    /// With the port written out, where the scheme has one by default.
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
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::http::guard::tests::{map, texts};

    fn check(
        policy: &OriginPolicy,
        headers: &HeaderMap,
        authority: Option<&str>,
    ) -> Result<(), Refusal> {
        policy.check(headers, authority).map(drop)
    }

    fn host(policy: &OriginPolicy, host: &str) -> Result<(), Refusal> {
        check(policy, &map(&[(HOST, host)]), None)
    }

    fn origin(policy: &OriginPolicy, host: &str, origin: &str) -> Result<(), Refusal> {
        check(policy, &map(&[(HOST, host), (ORIGIN, origin)]), None)
    }

    #[test]
    fn loopback_accepts_this_machine_under_every_name_and_port() {
        let policy = OriginPolicy::default();
        for name in [
            "localhost",
            "LocalHost:3000",
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.255.3.4",
            "[::1]",
            "[::1]:65535",
            "[0:0:0:0:0:0:0:1]:80",
        ] {
            assert_eq!(host(&policy, name), Ok(()), "{name}");
            for scheme in ["http", "https", "HTTP"] {
                assert_eq!(origin(&policy, "localhost", &format!("{scheme}://{name}")), Ok(()));
            }
        }
    }

    #[test]
    fn loopback_refuses_every_other_host() {
        let policy = OriginPolicy::loopback();
        for name in [
            "evil.example.com",
            "localhost.evil.example.com",
            "evil-localhost",
            "foo.localhost",
            "localhost.",
            "127.0.0.1.evil.example.com",
            "127.1",
            "0x7f.0.0.1",
            "2130706433",
            "128.0.0.1",
            "0.0.0.0",
            "::1",
            "[::]",
            "[::2]",
            "[::ffff:127.0.0.1]",
            "[::1",
            "[::1]x",
            "[localhost]",
            "localhost:",
            "localhost:x",
            "localhost:+80",
            "localhost:65536",
            "localhost:80:80",
            "user@localhost",
            "localhost@evil.example.com",
            "localhost/",
            "http://localhost",
            "localhost,evil.example.com",
            " localhost",
            "localhost evil",
            "löcalhost",
            "",
        ] {
            assert_eq!(
                host(&policy, name).map_err(|refusal| refusal.status()),
                Err(StatusCode::FORBIDDEN),
                "{name}"
            );
            assert!(check(&policy, &HeaderMap::new(), Some(name)).is_err(), "{name}");
            assert!(origin(&policy, "localhost", &format!("http://{name}")).is_err(), "{name}");
        }
        assert_eq!(
            host(&policy, "evil.example.com").unwrap_err().to_string(),
            "host 'evil.example.com' is not served here; the one Host header must name localhost, \
             an address in 127.0.0.0/8 or [::1]"
        );
    }

    #[test]
    fn loopback_refuses_every_other_origin() {
        let policy = OriginPolicy::loopback();
        for name in [
            "null",
            "",
            "localhost",
            "//localhost",
            "://localhost",
            "http:localhost",
            "http://localhost/",
            "http://localhost http://evil.example.com",
            "https://evil.example.com",
            "http://localhost.evil.example.com",
            "http://localhost@evil.example.com",
            "ftp://localhost",
            "file://",
            "1http://localhost",
            "chrome-extension://localhost",
        ] {
            assert_eq!(
                origin(&policy, "localhost", name).map_err(|refusal| refusal.status()),
                Err(StatusCode::FORBIDDEN),
                "{name}"
            );
        }
        assert_eq!(
            origin(&policy, "localhost", "null").unwrap_err().to_string(),
            "origin 'null' is not allowed; the one Origin header must be absent or one of this \
             machine itself"
        );
    }

    #[test]
    fn the_authority_stands_in_for_an_absent_host() {
        let none = HeaderMap::new();
        for policy in [OriginPolicy::loopback(), OriginPolicy::hosts(["localhost"])] {
            assert_eq!(check(&policy, &none, Some("localhost:3000")), Ok(()));
            assert!(matches!(check(&policy, &none, None), Err(Refusal::HostMissing { .. })));
            assert!(check(&policy, &none, Some("evil.example.com")).is_err());
            assert!(check(&policy, &map(&[(HOST, "evil")]), Some("localhost")).is_err());
        }
    }

    #[test]
    fn repeated_hosts_and_origins_are_refused() {
        let policy = OriginPolicy::loopback();
        let hosts = map(&[(HOST, "localhost"), (HOST, "localhost")]);
        assert_eq!(
            check(&policy, &hosts, None).unwrap_err().to_string(),
            "host 'localhost, localhost' is not served here; the one Host header must name \
             localhost, an address in 127.0.0.0/8 or [::1]"
        );
        let origins =
            map(&[(HOST, "localhost"), (ORIGIN, "http://localhost"), (ORIGIN, "http://localhost")]);
        assert!(matches!(check(&policy, &origins, None), Err(Refusal::OriginRefused { .. })));
    }

    #[test]
    fn named_hosts_accept_their_names_and_origins() {
        let policy = OriginPolicy::hosts(["MCP.example.com", "api.example.com:8443", "::7"]);
        for name in ["mcp.example.com", "mcp.EXAMPLE.com:9", "api.example.com:8443", "[::7]:1"] {
            assert_eq!(host(&policy, name), Ok(()), "{name}");
            assert_eq!(origin(&policy, "mcp.example.com", &format!("https://{name}")), Ok(()));
        }
        for name in ["localhost", "api.example.com", "api.example.com:443", "x.mcp.example.com"] {
            assert!(host(&policy, name).is_err(), "{name}");
            assert!(origin(&policy, "mcp.example.com", &format!("https://{name}")).is_err());
        }
        assert!(origin(&policy, "mcp.example.com", "null").is_err());
        assert!(origin(&policy, "mcp.example.com", "app://mcp.example.com").is_err());
    }

    #[test]
    fn a_configured_default_port_need_not_be_sent() {
        let policy = OriginPolicy::hosts(vec!["example.com:443".to_owned()]);
        assert_eq!(host(&policy, "example.com"), Ok(()));
        assert_eq!(host(&policy, "example.com:443"), Ok(()));
        assert!(host(&policy, "example.com:80").is_err());
        assert_eq!(origin(&policy, "example.com", "https://example.com"), Ok(()));
        assert!(origin(&policy, "example.com", "http://example.com").is_err());
    }

    #[test]
    fn what_is_no_host_in_the_configuration_matches_nothing() {
        let policy = OriginPolicy::hosts(["https://example.com", "", "*", "a b"]);
        for name in ["example.com", "https://example.com", "", "*", "a b"] {
            assert!(host(&policy, name).is_err(), "{name}");
        }
        assert!(host(&OriginPolicy::hosts([""; 0]), "localhost").is_err());
    }

    #[test]
    fn an_extra_origin_is_exact() {
        let policy = OriginPolicy::loopback()
            .with_origin("https://App.example.com/")
            .with_origin("http://dev.example.com:8080")
            .with_origin("chrome-extension://abcdefgh")
            .with_origin("null")
            .with_origin("");
        for name in [
            "https://app.example.com",
            "https://app.example.com:443",
            "http://dev.example.com:8080",
            "chrome-extension://abcdefgh",
            "http://localhost:5173",
        ] {
            assert_eq!(origin(&policy, "localhost", name), Ok(()), "{name}");
        }
        for name in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://x.app.example.com",
            "http://dev.example.com",
            "chrome-extension://abcdefghi",
            "null",
            "",
        ] {
            assert!(origin(&policy, "localhost", name).is_err(), "{name}");
        }
        assert!(host(&policy, "app.example.com").is_err());
    }

    #[test]
    fn any_checks_nothing() {
        let policy = OriginPolicy::any();
        assert_eq!(check(&policy, &HeaderMap::new(), None), Ok(()));
        assert_eq!(origin(&policy, "evil.example.com", "null"), Ok(()));
    }

    #[test]
    fn no_host_and_no_origin_make_it_panic() {
        let policy = OriginPolicy::hosts(["a:1", "[::1]"]).with_origin("a://b");
        for text in texts(&["[", "]", ":", "://", "a", "1", "::1", "é", "."]) {
            let _ = host(&policy, &text);
            let _ = origin(&policy, "[::1]", &text);
            let _ = OriginPolicy::hosts([&text]).with_origin(&text);
        }
    }

    #[test]
    fn a_refused_value_is_shown_short_and_escaped() {
        let policy = OriginPolicy::loopback();
        let long = host(&policy, &"é".repeat(5000)).unwrap_err().to_string();
        assert!(long.contains("é...'") && long.chars().count() < 300, "{long}");
        let tab = host(&policy, "a\tb").unwrap_err().to_string();
        assert!(tab.starts_with("host 'a\\tb' is"), "{tab}");
    }

    fn at(address: &str) -> OriginPolicy {
        OriginPolicy::default().bound_to(address.parse().unwrap())
    }

    #[test]
    fn who_names_no_policy_has_one_by_where_the_server_listens() {
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(host(&at(address), "localhost").is_ok(), "{address}");
            assert!(host(&at(address), "mcp.example.com").is_err(), "{address}");
        }
        for address in ["0.0.0.0", "::", "10.0.0.7", "fd00::7", "::ffff:10.0.0.7"] {
            assert!(host(&at(address), "mcp.example.com").is_ok(), "{address}");
            assert!(origin(&at(address), "10.0.0.7", "https://evil.example").is_err(), "{address}");
            let listed = at(address).with_origin("https://app.example");
            assert!(origin(&listed, "10.0.0.7", "https://app.example").is_ok(), "{address}");
            let named = OriginPolicy::loopback().bound_to(address.parse().unwrap());
            assert!(named.is_loopback() && host(&named, "10.0.0.7").is_err(), "{address}");
            let named = OriginPolicy::hosts(["a"]).bound_to(address.parse().unwrap());
            assert!(host(&named, "10.0.0.7").is_err() && host(&named, "a").is_ok(), "{address}");
        }
    }

    #[test]
    fn where_no_host_is_named_a_client_that_is_no_page_may_use_any() {
        let policy = OriginPolicy::same_host();
        for name in ["mcp.example.com", "10.0.0.7:8000", "[fd00::7]", "my_service:80", "localhost"]
        {
            assert_eq!(host(&policy, name), Ok(()), "{name}");
        }
        assert_eq!(check(&policy, &HeaderMap::new(), None), Ok(()), "as in HTTP/1.0");
        assert!(check(&policy, &map(&[(HOST, "a"), (HOST, "b")]), None).is_err());
    }

    #[test]
    fn where_no_host_is_named_a_page_must_be_of_the_host_it_calls() {
        let policy = OriginPolicy::same_host();
        for (host, name) in [
            ("10.0.0.7:8000", "http://10.0.0.7:3000"),
            ("10.0.0.7", "https://10.0.0.7"),
            ("[fd00::7]:8000", "http://[fd00:0::7]"),
            ("MCP.example.com", "https://mcp.EXAMPLE.com"),
            ("localhost:8000", "http://localhost:5173"),
            ("127.0.0.1:8000", "http://localhost:5173"),
        ] {
            assert_eq!(origin(&policy, host, name), Ok(()), "{host} {name}");
        }
        for (host, name) in [
            ("10.0.0.7:8000", "http://10.0.0.8:8000"),
            ("10.0.0.7:8000", "https://evil.example"),
            ("10.0.0.7:8000", "http://localhost:8000"),
            ("localhost:8000", "https://evil.example"),
            ("localhost:8000", "http://10.0.0.7:8000"),
            ("localhost:8000", "null"),
            ("mcp.example.com", "https://www.mcp.example.com"),
            ("mcp.example.com", "https://mcp.example.com.evil.example"),
            // By DNS rebinding: this name, too, means this server.
            ("evil.example:8000", "http://evil.example:8000"),
            ("evil.example", "ftp://evil.example"),
            ("evil.localhost", "http://evil.localhost"),
            ("a b", "https://a b"),
            ("", "http://localhost"),
        ] {
            assert!(origin(&policy, host, name).is_err(), "{host} {name}");
        }
        let page = map(&[(ORIGIN, "http://10.0.0.7")]);
        assert!(matches!(check(&policy, &page, None), Err(Refusal::HostMissing { .. })));
        assert_eq!(check(&policy, &page, Some("10.0.0.7:8000")), Ok(()));
        let refused = origin(&policy, "mcp.example.com", "https://evil.example").unwrap_err();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        let named = OriginPolicy::same_host().with_origin("https://app.example");
        assert_eq!(origin(&named, "mcp.example.com", "https://app.example"), Ok(()));
    }

    #[test]
    fn a_page_is_what_it_says_and_named_only_where_it_is_listed() {
        let listed = OriginPolicy::loopback().with_origin("https://app.example");
        for (policy, origin, named) in [
            (&listed, "https://App.example:443", Some(true)),
            (&listed, "http://localhost:5173", Some(false)),
            (&OriginPolicy::any(), "https://evil.example", Some(false)),
            (&OriginPolicy::any(), "null", Some(false)),
            (&OriginPolicy::same_host(), "http://localhost", Some(false)),
            (&listed, "https://evil.example", None),
        ] {
            let headers = map(&[(HOST, "localhost"), (ORIGIN, origin)]);
            let page = policy.check(&headers, None).ok().flatten();
            assert_eq!(page.map(|page| page.is_named), named, "{origin}");
            assert!(page.is_none_or(|page| page.origin == origin), "{origin}");
        }
        assert_eq!(listed.check(&map(&[(HOST, "localhost")]), None), Ok(None));
    }
}

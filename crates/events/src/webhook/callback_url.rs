//! The URLs to which events are sent, which clients choose.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hyper::Uri;
use parking_lot::RwLock;
use url::Url;

use super::address::is_global;

/// The longest URL of a callback, in bytes.
const MAX_BYTES: usize = 2_048;

/// Origins that the host of the server trusts: their callbacks need neither https nor an address on
/// the open internet. Clones share the same set.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedOrigins(Arc<RwLock<BTreeSet<String>>>);

/// Why an origin is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// The text is no origin.
    #[error("an origin is http:// or https://, a host, and a port if it is not the usual one")]
    Malformed,
    /// The engine has stopped, or has not started.
    #[error("no engine runs")]
    NotRunning,
}

impl AllowedOrigins {
    /// Adds an origin: a scheme, a host and a port. All three must be the same in a callback.
    ///
    /// # Errors
    ///
    /// [`OriginError::Malformed`] if the text is no origin, or more than one.
    pub(crate) fn allow(&self, origin: &str) -> Result<(), OriginError> {
        let origin = parse_origin(origin)?;
        self.0.write().insert(origin);
        Ok(())
    }

    #[cfg(test)]
    /// Removes an origin; and whether it was there. Attempts that begin later are refused.
    pub(crate) fn remove(&self, origin: &str) -> bool {
        parse_origin(origin).is_ok_and(|origin| self.0.write().remove(&origin))
    }

    fn allows(&self, origin: &str) -> bool {
        self.0.read().contains(origin)
    }
}

fn parse_origin(text: &str) -> Result<String, OriginError> {
    let url = Url::parse(text).map_err(|_| OriginError::Malformed)?;
    let is_bare = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && has_no_user(&url)
        && matches!(url.scheme(), "http" | "https");
    if is_bare { Ok(url.origin().ascii_serialization()) } else { Err(OriginError::Malformed) }
}

fn has_no_user(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

/// Whether connections to a callback are guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Only with https, and only to addresses on the open internet.
    On,
    /// Anywhere, as the origin is allowed.
    Lifted,
}

/// The URL of a callback. That it was fit when it was read does not make it so for ever: it is
/// [checked](Self::check) again at each attempt.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct CallbackUrl {
    url: Url,
    /// The same, as the client wants it.
    uri: Uri,
    /// The scheme, the host, and the port unless it is the usual one.
    origin: String,
}

/// Why a client's URL is no callback. The text is for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallbackUrlError {
    /// The URL is longer than is allowed.
    #[error("the callback URL is longer than 2048 bytes")]
    TooLong,
    /// The text is no URL.
    #[error("the callback URL is malformed")]
    Malformed,
    /// The URL is not for https.
    #[error("the callback URL must begin with https://")]
    NotHttps,
    /// The URL has a user or a password.
    #[error("the callback URL must not contain a user or a password")]
    UserInfo,
    /// The URL has a fragment.
    #[error("the callback URL must not contain a fragment")]
    Fragment,
    /// The URL has no host.
    #[error("the callback URL has no host")]
    NoHost,
    /// The host is a name that means this machine, or one that ends with a dot.
    #[error("the callback URL has a host that is not allowed")]
    ForbiddenHost,
    /// The host is an address that is not on the open internet.
    #[error("the callback URL has an address that is not on the public internet")]
    ForbiddenAddress,
}

impl CallbackUrl {
    /// Reads and checks a client's URL. Nothing is connected to, and no name is looked up.
    ///
    /// # Errors
    ///
    /// [`CallbackUrlError`] if no events may be sent there.
    pub(crate) fn parse(text: &str, allowed: &AllowedOrigins) -> Result<Self, CallbackUrlError> {
        if text.len() > MAX_BYTES {
            return Err(CallbackUrlError::TooLong);
        }
        let url = Self::stored(text)?;
        // Letters that must be escaped make it longer.
        if url.as_str().len() > MAX_BYTES {
            return Err(CallbackUrlError::TooLong);
        }
        url.check(allowed)?;
        Ok(url)
    }

    /// Reads a URL that was checked before it was stored. It is checked again at each attempt.
    ///
    /// # Errors
    ///
    /// [`CallbackUrlError`] if it is none.
    pub(crate) fn stored(text: &str) -> Result<Self, CallbackUrlError> {
        let url = Url::parse(text).map_err(|_| CallbackUrlError::Malformed)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(CallbackUrlError::NotHttps);
        }
        let uri = url.as_str().parse().map_err(|_| CallbackUrlError::Malformed)?;
        let origin = url.origin().ascii_serialization();
        Ok(Self { url, uri, origin })
    }

    /// Whether events may be sent there at this moment, and how.
    ///
    /// # Errors
    ///
    /// [`CallbackUrlError`] if they may not, as when its origin is no longer allowed.
    pub(crate) fn check(&self, allowed: &AllowedOrigins) -> Result<Guard, CallbackUrlError> {
        let url = &self.url;
        if !has_no_user(url) {
            return Err(CallbackUrlError::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(CallbackUrlError::Fragment);
        }
        let host = url.host_str().ok_or(CallbackUrlError::NoHost)?;
        if self.is_allowed(allowed) {
            return Ok(Guard::Lifted);
        }
        if url.scheme() != "https" {
            return Err(CallbackUrlError::NotHttps);
        }
        match literal(host) {
            Some(ip) if !is_global(ip) => Err(CallbackUrlError::ForbiddenAddress),
            None if is_forbidden_name(host) => Err(CallbackUrlError::ForbiddenHost),
            _ => Ok(Guard::On),
        }
    }

    /// Whether its origin is one of those that are allowed.
    pub(crate) fn is_allowed(&self, allowed: &AllowedOrigins) -> bool {
        allowed.allows(&self.origin)
    }

    /// The URL as it is compared and stored, with its query.
    pub(crate) fn as_str(&self) -> &str {
        self.url.as_str()
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The host, in lowercase, and in brackets if it is an address of IPv6.
    pub(crate) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The scheme, the host, and the port unless it is the usual one.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }
}

/// Whether a URL has the origin of `prefix`, and a path that begins with the path of `prefix`.
pub(crate) fn is_under(url: &CallbackUrl, prefix: &str) -> bool {
    Url::parse(prefix).is_ok_and(|prefix| {
        prefix.origin() == url.url.origin() && url.url.path().starts_with(prefix.path())
    })
}

/// Shows only the origin: a path or a query may contain a token of the receiver.
impl fmt::Debug for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CallbackUrl").field(&self.origin).finish()
    }
}

/// The address that a host is. All its spellings are one in a URL that was read.
fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::from),
    }
}

fn is_forbidden_name(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost") || host.ends_with('.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::CallbackUrlError::*;
    use super::*;

    fn parse(text: &str) -> Result<CallbackUrl, CallbackUrlError> {
        CallbackUrl::parse(text, &AllowedOrigins::default())
    }

    #[test]
    fn what_is_a_callback() {
        for (text, written) in [
            ("https://r.example", "https://r.example/"),
            ("https://R.Example:443/h", "https://r.example/h"),
            ("HTTPS://r.example:8443/h?a=1&b=%20", "https://r.example:8443/h?a=1&b=%20"),
            ("https://r.example/a/../h?", "https://r.example/h?"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
            ("https://8.8.8.8/h", "https://8.8.8.8/h"),
            ("https://0x08080808/h", "https://8.8.8.8/h"),
            ("https://[2606:4700::1111]/h", "https://[2606:4700::1111]/h"),
            ("https://localhost.example/", "https://localhost.example/"),
            ("https://127.0.0.1.example/", "https://127.0.0.1.example/"),
        ] {
            assert_eq!(parse(text).unwrap().as_str(), written);
        }
    }

    #[test]
    fn what_is_no_callback() {
        for (text, problem) in [
            ("", Malformed),
            ("/hook", Malformed),
            ("r.example/hook", Malformed),
            ("https://", Malformed),
            ("https://r.example:x/", Malformed),
            ("https://a b/", Malformed),
            ("https://[::1", Malformed),
            ("https://[fe80::1%25eth0]/", Malformed),
            ("https://1.2.3.4.5/", Malformed),
            ("http://r.example/h", NotHttps),
            ("http://127.0.0.1/h", NotHttps),
            ("ftp://r.example/h", NotHttps),
            ("file:///etc/passwd", NotHttps),
            ("mailto:a@r.example", NotHttps),
            ("unix:/run/s", NotHttps),
            ("https://u@r.example/", UserInfo),
            ("https://u:p@r.example/", UserInfo),
            ("https://:p@r.example/", UserInfo),
            ("https://r.example/#f", Fragment),
            ("https://r.example/h#", Fragment),
            ("https://localhost/", ForbiddenHost),
            ("https://LOCALHOST:1/", ForbiddenHost),
            ("https://a.localhost/", ForbiddenHost),
            ("https://localhost./", ForbiddenHost),
            ("https://r.example./", ForbiddenHost),
            ("https://127.0.0.1/", ForbiddenAddress),
            ("https://127.0.0.1./", ForbiddenAddress),
            ("https://127.1/", ForbiddenAddress),
            ("https://2130706433/", ForbiddenAddress),
            ("https://0x7f000001/", ForbiddenAddress),
            ("https://0x7f.1/", ForbiddenAddress),
            ("https://0177.0.0.1/", ForbiddenAddress),
            ("https://%31%32%37.0.0.1/", ForbiddenAddress),
            ("https://１２７.0.0.1/", ForbiddenAddress),
            ("https://0/", ForbiddenAddress),
            ("https://10.255.255.1/", ForbiddenAddress),
            ("https://169.254.169.254/latest/", ForbiddenAddress),
            ("https://[::]/", ForbiddenAddress),
            ("https://[::1]:8443/", ForbiddenAddress),
            ("https://[::ffff:127.0.0.1]/", ForbiddenAddress),
            ("https://[0:0:0:0:0:ffff:7f00:1]/", ForbiddenAddress),
            ("https://[64:ff9b::10.0.0.1]/", ForbiddenAddress),
            ("https://[fd00:ec2::254]/", ForbiddenAddress),
        ] {
            assert_eq!(parse(text), Err(problem), "{text}");
        }
    }

    #[test]
    fn the_length_is_bounded_as_it_is_stored() {
        let of = |length: usize, letter: &str| {
            let start = "https://r.example/";
            format!("{start}{}", letter.repeat((length - start.len()) / letter.len()))
        };
        assert!(parse(&of(2048, "a")).is_ok());
        assert_eq!(parse(&of(2049, "a")), Err(TooLong));
        // Each of these letters is two bytes in the text and six in the URL.
        assert_eq!(parse(&of(1000, "ä")), Err(TooLong));
    }

    #[test]
    fn an_allowed_origin_is_exactly_one() {
        let allowed = AllowedOrigins::default();
        allowed.allow("http://127.0.0.1:8080").unwrap();
        allowed.allow("https://localhost/").unwrap();
        let guard = |text: &str| CallbackUrl::parse(text, &allowed)?.check(&allowed);
        for text in [
            "http://127.0.0.1:8080/h?x=1",
            "http://127.1:8080",
            "https://localhost:443/a/b",
            "HTTPS://LOCALHOST",
        ] {
            assert_eq!(guard(text), Ok(Guard::Lifted), "{text}");
        }
        for (text, problem) in [
            ("https://127.0.0.1:8080/", ForbiddenAddress),
            ("http://127.0.0.1:8081/", NotHttps),
            ("http://127.0.0.1/", NotHttps),
            ("http://127.0.0.2:8080/", NotHttps),
            ("http://localhost/", NotHttps),
            ("https://localhost:8443/", ForbiddenHost),
            ("http://u@127.0.0.1:8080/", UserInfo),
            ("http://127.0.0.1:8080/#f", Fragment),
        ] {
            assert_eq!(guard(text), Err(problem), "{text}");
        }
        assert_eq!(guard("https://r.example/"), Ok(Guard::On));
    }

    #[test]
    fn an_origin_that_is_removed_is_refused_from_then_on() {
        let allowed = AllowedOrigins::default();
        allowed.clone().allow("http://r.example:80").unwrap();
        let url = CallbackUrl::parse("http://r.example/h", &allowed).unwrap();
        assert!(url.is_allowed(&allowed));
        assert!(allowed.remove("http://r.example") && !allowed.remove("http://r.example"));
        assert_eq!(url.check(&allowed), Err(NotHttps));
    }

    #[test]
    fn what_is_no_origin() {
        let allowed = AllowedOrigins::default();
        for text in [
            "",
            "*",
            "r.example",
            "https://",
            "https://r.example/h",
            "https://r.example/?a",
            "https://r.example/#",
            "https://u@r.example",
            "ftp://r.example",
            "file:///",
            "null",
        ] {
            assert_eq!(allowed.allow(text), Err(OriginError::Malformed), "{text}");
        }
    }

    #[test]
    fn a_path_and_a_query_are_not_shown() {
        let shown = format!("{:?}", parse("https://r.example:8443/token?key=1").unwrap());
        assert_eq!(shown, r#"CallbackUrl("https://r.example:8443")"#);
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read_as_the_same(text in "https://\\PC{0,40}|\\PC{0,60}") {
            match parse(&text) {
                Ok(url) => prop_assert_eq!(parse(url.as_str()), Ok(url)),
                Err(error) => prop_assert!(error.to_string().len() < 100),
            }
        }

        #[test]
        fn no_spelling_of_an_address_passes(bits in any::<u32>()) {
            let ip = Ipv4Addr::from(bits);
            let [a, b, c, d] = ip.octets();
            let low = u32::from(b) << 16 | u32::from(c) << 8 | u32::from(d);
            for host in [
                format!("{ip}"),
                format!("{bits}"),
                format!("{bits:#x}"),
                format!("0{bits:o}"),
                format!("{a}.{low}"),
                format!("0{a:o}.{b:#x}.{c}.{d}."),
                format!("[::ffff:{ip}]"),
            ] {
                let passes = parse(&format!("https://{host}/")).is_ok();
                prop_assert_eq!(passes, is_global(ip.into()), "{}", host);
            }
        }
    }
}

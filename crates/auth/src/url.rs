//! Addresses of resources and issuers, as strict as both have to be: what this reads in one way,
//! no client and no library reads in another.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An absolute http or https URL without a user and without a fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Url<'a> {
    text: &'a str,
    is_https: bool,
    /// Where the authority ends, in bytes.
    authority_end: usize,
    host: &'a str,
}

impl<'a> Url<'a> {
    /// `None` unless each character is one that RFC 3986 allows in its place. The scheme must be in
    /// lowercase.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (is_https, start) = match text {
            _ if text.starts_with("https://") => (true, "https://".len()),
            _ if text.starts_with("http://") => (false, "http://".len()),
            _ => return None,
        };
        let after = text.get(start..)?;
        let length = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(length);
        let host = host(authority)?;
        let is_fit = |(at, byte): (usize, u8)| match byte {
            b'%' => {
                let escaped = rest.as_bytes().get(at + 1..at + 3);
                escaped.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            }
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte),
        };
        let fits = rest.bytes().enumerate().all(is_fit);
        fits.then_some(Self { text, is_https, authority_end: start + length, host })
    }

    /// Whether the scheme and the host are in lowercase.
    pub(crate) fn is_lower_case(&self) -> bool {
        !self.origin().bytes().any(|byte| byte.is_ascii_uppercase())
    }

    /// The scheme, the host and the port.
    pub(crate) fn origin(&self) -> &'a str {
        self.text.get(..self.authority_end).unwrap_or_default()
    }

    /// The path, which is empty or begins with a slash.
    pub(crate) fn path(&self) -> &'a str {
        self.after_origin().split('?').next().unwrap_or_default()
    }

    pub(crate) fn has_query(&self) -> bool {
        self.after_origin().contains('?')
    }

    fn after_origin(&self) -> &'a str {
        self.text.get(self.authority_end..).unwrap_or_default()
    }

    /// Whether the host is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let address = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match address {
            Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|it| it.is_loopback()),
            None => {
                self.host.eq_ignore_ascii_case("localhost")
                    || self.host.parse::<Ipv4Addr>().is_ok_and(|it| it.is_loopback())
            }
        }
    }

    /// Whether what is read from here is what the host wrote: over plain http only from this
    /// machine.
    pub(crate) fn is_trusted(&self) -> bool {
        self.is_https || self.is_loopback()
    }
}

/// The host of an authority that has no user.
fn host(authority: &str) -> Option<&str> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            rest.get(..end)?.parse::<Ipv6Addr>().ok()?;
            end + 2
        }
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.is_empty() || !host.starts_with('[') && !host.bytes().all(is_fit) {
        return None;
    }
    match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|it| it.is_ascii_digit()) => {
            digits.parse::<u16>().ok().map(|_| host)
        }
        None if port.is_empty() => Some(host),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_of_an_address() {
        let url = Url::parse("https://mcp.example.com:8443/a/mcp?x=1").unwrap();
        assert_eq!((url.origin(), url.path()), ("https://mcp.example.com:8443", "/a/mcp"));
        assert!(url.has_query() && url.is_trusted() && url.is_lower_case() && !url.is_loopback());
        assert!(!Url::parse("https://MCP.example.com").unwrap().is_lower_case());
        assert!(Url::parse("https://mcp.example.com/A%2f").unwrap().is_lower_case());
    }

    #[test]
    fn what_is_no_address() {
        for text in [
            "",
            "mcp.example.com",
            "HTTPS://a",
            "ftp://a",
            "https://",
            "https:///mcp",
            "https://a b",
            "https://a/b c",
            "https://a/\"",
            "https://a/\\",
            "https://a\\@b",
            "https://u@a",
            "https://u:p@a",
            "https://a#f",
            "https://a/b#",
            "https://a:",
            "https://a:x",
            "https://a:65536",
            "https://[::1",
            "https://[x]",
            "https://[::1]x",
            "https://ä",
            "https://a/ä",
            "https://a/%2",
            "https://a/%zz",
            "https://a\n",
            "//a/b",
            "/mcp",
        ] {
            assert!(Url::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn plain_http_is_trusted_only_on_this_machine() {
        for (text, trusted) in [
            ("http://localhost:1", true),
            ("http://127.0.0.1", true),
            ("http://127.8.8.8/x", true),
            ("http://[::1]:9797/odd", true),
            ("http://LOCALHOST", true),
            ("http://a.example", false),
            ("http://127.0.0.1.example", false),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
            ("http://[::2]", false),
            ("http://2130706433", false),
            ("http://0x7f.1", false),
        ] {
            assert_eq!(Url::parse(text).unwrap().is_trusted(), trusted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_address_can_stand_in_quotes_in_a_header(text in "https?://[ -~]{0,40}|\\PC{0,40}") {
            if let Some(url) = Url::parse(&text) {
                prop_assert!(text.bytes().all(|it| it.is_ascii_graphic() && !b"\"\\<>#".contains(&it)));
                prop_assert!(text.starts_with(url.origin()) && text.contains(url.path()));
                prop_assert!(text.parse::<http::Uri>().is_ok(), "{text}");
            }
        }
    }
}

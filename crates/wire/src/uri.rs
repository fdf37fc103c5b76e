//! The normal form of a URI. URIs are compared by it.

use std::fmt::Write as _;

/// The normal form of a URI: the same for all its spellings (RFC 3986, section 6.2).
///
/// The scheme is in lowercase. Characters that must be escaped are escaped, with uppercase digits;
/// all others are not. A path behind a host has no dot segments. For the schemes that the web
/// defines, also the host is in lowercase, the default port is left out, and a path is never empty.
///
/// Two URIs with any other difference are different. In particular, the host of any other scheme is
/// kept as written, because it is a name that the author chose: `user://Ada` is not `user://ada`. A
/// text that is not a URI has a normal form, too.
#[must_use]
pub fn normal(uri: &str) -> String {
    let (scheme, rest) = split_scheme(uri);
    let special = SPECIAL.iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name));
    let mut out = String::with_capacity(uri.len() + 8);
    if !scheme.is_empty() {
        out.push_str(&scheme.to_ascii_lowercase());
        out.push(':');
    }
    let (rest, fragment) = split_at_first(rest, "#");
    let (rest, query) = split_at_first(rest, "?");
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (Some(authority), path)
        }
        None => (None, rest),
    };
    if let Some(authority) = authority {
        out.push_str("//");
        match special {
            Some((_, port)) => put_host(&mut out, authority, port),
            None => escape(&mut out, authority, "@:[]"),
        }
    }
    let mut escaped = String::with_capacity(path.len());
    escape(&mut escaped, path, "@:/");
    match authority {
        Some(_) if !escaped.is_empty() => put_without_dots(&mut out, &escaped),
        Some(_) if special.is_some() => out.push('/'),
        _ => out.push_str(&escaped),
    }
    if let Some(query) = query {
        out.push('?');
        escape(&mut out, query, "@:/?");
    }
    if let Some(fragment) = fragment {
        out.push('#');
        escape(&mut out, fragment, "@:/?");
    }
    out
}

/// The schemes whose hosts are names on a network, or of this machine, and their default ports.
const SPECIAL: [(&str, &str); 6] =
    [("http", "80"), ("https", "443"), ("ws", "80"), ("wss", "443"), ("ftp", "21"), ("file", "")];

fn split_scheme(uri: &str) -> (&str, &str) {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    match uri.split_once(':') {
        Some((scheme, rest))
            if scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(valid) =>
        {
            (scheme, rest)
        }
        _ => ("", uri),
    }
}

fn split_at_first<'a>(text: &'a str, separator: &str) -> (&'a str, Option<&'a str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn put_host(out: &mut String, authority: &str, default_port: &str) {
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if let Some(user) = user {
        escape(out, user, ":");
        out.push('@');
    }
    let mut escaped = String::with_capacity(host.len());
    escape(&mut escaped, host, ":[]");
    // A second colon before the port is of no URI, unless it is in an address in brackets.
    let is_host = |name: &str| !name.contains(':') || name.ends_with(']');
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let (name, port) = match escaped.rsplit_once(':') {
        Some((name, port)) if is_host(name) && is_port(port) => (name, port),
        _ => (&*escaped, ""),
    };
    // The digits of escapes stay in uppercase.
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        out.push(byte.to_ascii_lowercase() as char);
        if byte == b'%' {
            out.extend(bytes.by_ref().take(2).map(char::from));
        }
    }
    if !port.is_empty() && port != default_port {
        out.push(':');
        out.push_str(port);
    }
}

/// Appends `text`, and escapes every character except unreserved ones, delimiters within a part of
/// a URI, and those in `allowed`. A percent sign that begins no escape is escaped itself.
fn escape(out: &mut String, text: &str, allowed: &str) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        let stands_for = if byte == b'%' { escaped(&bytes[at..]) } else { None };
        match stands_for {
            Some(byte) => {
                at += 2;
                if is_unreserved(byte) {
                    out.push(byte as char);
                } else {
                    put_escape(out, byte);
                }
            }
            None if is_unreserved(byte)
                || b"!$&'()*+,;=".contains(&byte)
                || allowed.as_bytes().contains(&byte) =>
            {
                out.push(byte as char);
            }
            None => put_escape(out, byte),
        }
    }
}

/// The byte that two hexadecimal digits encode, if `digits` begins with two.
fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn put_escape(out: &mut String, byte: u8) {
    let _ = write!(out, "%{byte:02X}");
}

/// Appends an absolute path without its `.` and `..` (RFC 3986, section 5.2.4).
fn put_without_dots(out: &mut String, path: &str) {
    let start = out.len();
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    let parent = out[start..].rfind('/').unwrap_or(0);
                    out.truncate(start + parent);
                }
                if segments.peek().is_none() {
                    out.push('/');
                }
            }
            segment => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
}

/// Decodes the escapes in a part of a URI in its normal form; `None` if the result is not UTF-8.
#[must_use]
pub fn decode(part: &str) -> Option<String> {
    let bytes = part.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match if byte == b'%' { escaped(&bytes[at..]) } else { None } {
            Some(byte) => {
                at += 2;
                out.push(byte);
            }
            None => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_uri_have_one_normal_form() {
        for (normal_form, spellings) in [
            ("docs://a%20b", &["docs://a b", "DOCS://a%20b"][..]),
            (
                "docs://x/%C3%BCber",
                &["docs://x/über", "docs://x/%c3%bcber", "docs://%78/%C3%BCber"],
            ),
            ("docs://x/~a-b_c.d", &["docs://x/%7Ea%2Db%5fc%2ed"]),
            (
                "https://example.com/",
                &["https://example.com", "HTTPS://EXAMPLE.com:443", "https://example.com:"],
            ),
            (
                "https://example.com/?q=1",
                &["https://example.com?q=1", "https://example.com:443/?q=1"],
            ),
            ("http://u:P@h:8080/A", &["http://u:P@H:8080/A"]),
            ("http://[2001:db8::1]/", &["http://[2001:DB8::1]", "http://[2001:db8::1]:80/"]),
            ("http://[::1]::80/", &["http://[::1]::80"]),
            ("file:///a/b", &["file:///a/./b", "file:///x/../a/b", "file:///%2e%2E/a/b"]),
            ("x://a/b%2Fc", &["x://a/b%2fc"]),
            ("x://a/100%25", &["x://a/100%"]),
            ("x://a/%7Bb%7D%7C%22%5B%5D", &["x://a/{b}|\"[]"]),
            ("x://a?q=%5B1%5D#f%23g", &["x://a?q=[1]#f#g"]),
            ("urn:isbn:0451450523", &["URN:isbn:0451450523"]),
            ("a%20name", &["a name"]),
        ] {
            assert_eq!(normal(normal_form), normal_form);
            for spelling in spellings {
                assert_eq!(normal(spelling), normal_form, "{spelling}");
            }
        }
    }

    #[test]
    fn uris_that_may_differ_in_meaning_stay_different() {
        for (one, other) in [
            ("user://Ada", "user://ada"),
            ("x://a/b", "x://a/B"),
            ("x://a/b%2Fc", "x://a/b/c"),
            ("x://a?b+c", "x://a?b%20c"),
            ("db://users", "db://users/"),
            ("x://a/b", "x://a/b#"),
            ("https://example.com/a", "https://example.com/a/"),
        ] {
            assert_ne!(normal(one), normal(other), "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own_and_is_all_ascii(
            uri in r"((HTTPS?|file|db):)?/{0,3}([a-zA-Z.%~:@\[{ü ?#]|%[0-9a-fA-F]{2}|/\.{0,2}){0,30}"
        ) {
            let once = normal(&uri);
            prop_assert!(once.bytes().all(|byte| byte.is_ascii_graphic()), "{}", once);
            prop_assert_eq!(normal(&once), once);
        }

        #[test]
        fn unneeded_escapes_change_nothing(text in "[ -~ü]{0,30}") {
            let all: String = text.bytes().map(|byte| match byte {
                b'/' | b'%' | b'?' | b'#' | b'@' | b':' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*'
                | b'+' | b',' | b';' | b'=' => (byte as char).to_string(),
                byte => format!("%{byte:02x}"),
            }).collect();
            prop_assume!(!text.contains('%') && !text.contains('['));
            prop_assert_eq!(normal(&format!("x://h/{text}")), normal(&format!("x://h/{all}")));
            prop_assert!(decode(&normal(&text)).is_some());
        }
    }
}

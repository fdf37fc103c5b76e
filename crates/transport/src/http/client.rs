//! What a handler may know of the client beside its identity: some headers, and its address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use http::header::FORWARDED;

use super::guard::{split_unquoted, trim};
use super::{HttpConfig, Networks};

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Names of headers and their values.
pub(super) type Exposed = Arc<[(Arc<str>, Arc<str>)]>;

/// The headers of a request that handlers may read, in the order of the configuration. `None` if
/// there are none. A value that is not UTF-8 is left out.
pub(super) fn exposed(headers: &HeaderMap, config: &HttpConfig) -> Option<Exposed> {
    if config.exposed.is_empty() {
        return None;
    }
    let found = config.exposed.iter().flat_map(|(name, text)| {
        let values = headers.get_all(name).iter();
        let values = values.filter_map(|value| std::str::from_utf8(value.as_bytes()).ok());
        values.map(|value| (text.clone(), Arc::from(value)))
    });
    let found: Vec<(Arc<str>, Arc<str>)> = found.collect();
    (!found.is_empty()).then(|| found.into())
}

/// The address of the client: the other end of the connection, or, if that is a trusted proxy, the
/// nearest hop before it that is not one.
///
/// A hop that a proxy does not name ends the search: what stands before it was said by somebody
/// unknown. The address is then that of the proxy. The same holds if `Forwarded` and
/// `X-Forwarded-For` disagree: a proxy adds to one of them and passes the other one on, as the client
/// has sent it.
pub(super) fn client_address(
    headers: &HeaderMap,
    peer: Option<SocketAddr>,
    config: &HttpConfig,
) -> Option<IpAddr> {
    let peer = peer?.ip().to_canonical();
    let trusted = &config.trusted_proxies;
    if !trusted.contains(peer) {
        return Some(peer);
    }
    let forwarded = headers.contains_key(FORWARDED).then(|| {
        let hops = elements(headers, FORWARDED.as_str(), forwarded_elements);
        first_untrusted(peer, hops.iter().rev().map(|it| forwarded_for(it)), trusted)
    });
    let x_forwarded = headers.contains_key(X_FORWARDED_FOR).then(|| {
        // It has no quoted strings.
        let hops = elements(headers, X_FORWARDED_FOR, |line| line.split(',').collect());
        first_untrusted(peer, hops.iter().rev().map(|it| node(it)), trusted)
    });
    Some(match (forwarded, x_forwarded) {
        (Some(one), Some(other)) if one != other => peer,
        (one, other) => one.or(other).unwrap_or(peer),
    })
}

/// The nearest hop that is not a trusted proxy, from `hops`, the nearest first.
fn first_untrusted(
    peer: IpAddr,
    hops: impl Iterator<Item = Option<IpAddr>>,
    trusted: &Networks,
) -> IpAddr {
    let mut nearest = peer;
    for hop in hops {
        let Some(hop) = hop else { break };
        nearest = hop;
        if !trusted.contains(hop) {
            break;
        }
    }
    nearest
}

/// The elements of a list header, of all its lines.
fn elements(headers: &HeaderMap, name: &str, split: fn(&str) -> Vec<&str>) -> Vec<String> {
    let lines = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let trimmed = |element: &str| trim(element).to_owned();
    let elements = lines.flat_map(|line| split(&line).into_iter().map(trimmed).collect::<Vec<_>>());
    elements.filter(|element| !element.is_empty()).collect()
}

/// The elements of a line of `Forwarded`. A line with an open quote counts as one element that says
/// nothing: a client could hide in the quote what a proxy adds to its line.
fn forwarded_elements(line: &str) -> Vec<&str> {
    let (mut open, mut chars) = (false, line.chars());
    while let Some(char) = chars.next() {
        match char {
            '\\' if open => drop(chars.next()),
            '"' => open = !open,
            _ => {}
        }
    }
    if open { vec!["unknown"] } else { split_unquoted(line, ',').collect() }
}

/// The address of the `for` parameter of an element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = split_unquoted(element, ';').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| trim(name).eq_ignore_ascii_case("for"));
    let (Some((_, value)), None) = (values.next(), values.next()) else { return None };
    let value = trim(value);
    match value.strip_prefix('"') {
        // An address needs no escapes.
        Some(quoted) => node(quoted.strip_suffix('"')?),
        None => node(value),
    }
}

/// The address of a node: with or without a port, and an IPv6 address with or without brackets.
fn node(text: &str) -> Option<IpAddr> {
    let address = match text.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                if !port.is_empty() && !is_port(port.strip_prefix(':')?) {
                    return None;
                }
                address.parse::<Ipv6Addr>().ok()?.into()
            }
            None => {
                let (address, port) = text.split_once(':')?;
                is_port(port).then_some(address)?.parse().ok()?
            }
        },
    };
    Some(address.to_canonical())
}

/// A port may be hidden, as `_name` (RFC 7239, section 6).
fn is_port(text: &str) -> bool {
    let is_digits =
        !text.is_empty() && text.len() <= 5 && text.bytes().all(|it| it.is_ascii_digit());
    is_digits || text.starts_with('_')
}

#[cfg(test)]
mod tests;

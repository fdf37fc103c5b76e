//! Which headers and which address a handler sees.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::http::guard::tests::map;

const XFF: HeaderName = HeaderName::from_static(X_FORWARDED_FOR);

fn behind(proxies: &[&str]) -> HttpConfig {
    HttpConfig::new().trusted_proxies(Networks::new(proxies).unwrap())
}

fn address(peer: &str, headers: &[(HeaderName, &str)], proxies: &[&str]) -> String {
    let peer = SocketAddr::new(peer.parse().unwrap(), 7);
    client_address(&map(headers), Some(peer), &behind(proxies)).unwrap().to_string()
}

#[test]
fn only_listed_headers_are_exposed_and_never_credentials() {
    let config = HttpConfig::new().expose_headers([
        "X-Tenant",
        "authorization",
        "Cookie",
        "PROXY-AUTHORIZATION",
        "no name",
        "",
        "x-tenant",
        "x-b",
    ]);
    let tenant = HeaderName::from_static("x-tenant");
    let mut headers = map(&[
        (tenant.clone(), "one"),
        (http::header::AUTHORIZATION, "Bearer secret"),
        (http::header::COOKIE, "a=secret"),
        (HeaderName::from_static("x-other"), "hidden"),
        (tenant.clone(), "zwei ü"),
    ]);
    headers.append(tenant, HeaderValue::from_bytes(b"\xff").unwrap());
    let found = exposed(&headers, &config).unwrap();
    let found: Vec<_> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(found, [("x-tenant", "one"), ("x-tenant", "zwei ü")]);
    assert!(exposed(&headers, &HttpConfig::new()).is_none());
    assert!(exposed(&HeaderMap::new(), &config).is_none());
    let none = config.expose_headers(["authorization"]);
    assert!(exposed(&headers, &none).is_none());
}

#[test]
fn a_client_that_is_no_proxy_is_where_its_connection_comes_from() {
    let claims = [(XFF, "6.6.6.6"), (FORWARDED, "for=6.6.6.6")];
    assert_eq!(address("192.0.2.1", &claims, &[]), "192.0.2.1");
    assert_eq!(address("192.0.2.1", &claims, &["10.0.0.0/8"]), "192.0.2.1");
    assert_eq!(address("::ffff:192.0.2.1", &claims, &["10.0.0.0/8"]), "192.0.2.1");
    assert_eq!(client_address(&map(&claims), None, &behind(&["0.0.0.0/0"])), None);
}

#[test]
fn behind_trusted_proxies_a_client_is_the_nearest_hop_that_is_none() {
    for (forwarded, expected) in [
        (&["for=6.6.6.6"][..], "6.6.6.6"),
        (&["for=6.6.6.6, for=9.9.9.9"], "9.9.9.9"),
        (&["for=6.6.6.6, for=9.9.9.9,for=10.0.0.2"], "9.9.9.9"),
        (&["for=6.6.6.6, for=9.9.9.9", "for=10.0.0.2"], "9.9.9.9"),
        (&["for=10.0.0.3, for=10.0.0.2"], "10.0.0.3"),
        (&["For=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.1"], "2001:db8::1"),
        (&["by=10.0.0.1 ; FOR=9.9.9.9:80"], "9.9.9.9"),
        (&["for=\"9.9.9.9:_hidden\""], "9.9.9.9"),
        (&["for=6.6.6.6, for=unknown"], "10.0.0.1"),
        (&["for=6.6.6.6, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
        (&["for=6.6.6.6, proto=https"], "10.0.0.1"),
        (&["for=6.6.6.6;for=7.7.7.7"], "10.0.0.1"),
        (&["for=\"6.6.6.6, for=9.9.9.9"], "10.0.0.1"),
        (&["for=6.6.6.6;x=\", for=9.9.9.9"], "10.0.0.1"),
        (&["for=6.6.6.6;x=\", for=\"9.9.9.9\""], "10.0.0.1"),
        (&["for=6.6.6.6;x=\"\\\", for=\"9.9.9.9\""], "10.0.0.1"),
        (&["for=6.6.6.6;x=\", for=9.9.9.9", "for=10.0.0.2"], "10.0.0.2"),
        (&[""], "10.0.0.1"),
    ] {
        let headers: Vec<_> = forwarded.iter().map(|line| (FORWARDED, *line)).collect();
        assert_eq!(address("10.0.0.1", &headers, &["10.0.0.0/8"]), expected, "{forwarded:?}");
    }
    for (hops, expected) in [
        (&["6.6.6.6"][..], "6.6.6.6"),
        (&["6.6.6.6, 9.9.9.9"], "9.9.9.9"),
        (&["6.6.6.6 ,9.9.9.9 , 10.0.0.2"], "9.9.9.9"),
        (&["6.6.6.6", "9.9.9.9", "10.0.0.2,"], "9.9.9.9"),
        (&["9.9.9.9:1234"], "9.9.9.9"),
        (&["2001:db8::1"], "2001:db8::1"),
        (&["[2001:db8::1]:443"], "2001:db8::1"),
        (&["::ffff:9.9.9.9"], "9.9.9.9"),
        (&["6.6.6.6, nonsense"], "10.0.0.1"),
        (&["\"6.6.6.6, 9.9.9.9"], "9.9.9.9"),
        (&["6.6.6.6, é, 10.0.0.2"], "10.0.0.2"),
    ] {
        let headers: Vec<_> = hops.iter().map(|line| (XFF, *line)).collect();
        assert_eq!(address("10.0.0.1", &headers, &["10.0.0.0/8"]), expected, "{hops:?}");
    }
}

#[test]
fn a_header_that_the_proxy_passes_on_cannot_lie() {
    // The proxy adds to one of both, and the client has sent the other one.
    for (forwarded, hops) in [("for=6.6.6.6", "9.9.9.9"), ("for=9.9.9.9", "6.6.6.6")] {
        let headers = [(FORWARDED, forwarded), (XFF, hops)];
        assert_eq!(address("10.0.0.1", &headers, &["10.0.0.0/8"]), "10.0.0.1");
    }
    let agreed = [(FORWARDED, "for=9.9.9.9"), (XFF, "6.6.6.6, 9.9.9.9")];
    assert_eq!(address("10.0.0.1", &agreed, &["10.0.0.0/8"]), "9.9.9.9");
}

proptest! {
    /// Whatever a client claims, what the last trusted proxy has added counts.
    #[test]
    fn what_a_client_sends_changes_nothing(
        claims in prop::collection::vec("[ -~]{0,30}|for=[0-9.\"\\\\;,]{0,9}", 0..3),
        is_new: bool,
    ) {
        let (name, added) = if is_new { (FORWARDED, "for=9.9.9.9") } else { (XFF, "9.9.9.9") };
        let mut headers: Vec<_> = claims.iter().map(|it| (name.clone(), &**it)).collect();
        headers.push((name, added));
        prop_assert_eq!(address("10.0.0.1", &headers, &["10.0.0.0/8"]), "9.9.9.9");
    }

    #[test]
    fn every_address_is_read_in_all_its_forms(v4: [u8; 4], v6: u128, port: u16) {
        let (v4, v6) = (IpAddr::from(v4), IpAddr::from(Ipv6Addr::from(v6)));
        for text in [format!("{v4}"), format!("{v4}:{port}")] {
            prop_assert_eq!(node(&text), Some(v4));
        }
        for text in [format!("{v6}"), format!("[{v6}]"), format!("[{v6}]:{port}")] {
            prop_assert_eq!(node(&text), Some(v6.to_canonical()), "{}", text);
            prop_assert_eq!(forwarded_for(&format!("for=\"{text}\"")), Some(v6.to_canonical()));
        }
    }

    #[test]
    fn any_text_is_an_address_or_none(text in "\\PC{0,20}") {
        let _ = (node(&text), forwarded_for(&text));
    }
}

//! Which hosts and origins each policy accepts.

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
fn an_invalid_host_in_the_configuration_matches_nothing() {
    let policy = OriginPolicy::hosts(["https://example.com", "", "*", "a b"]);
    for name in ["example.com", "https://example.com", "", "*", "a b"] {
        assert!(host(&policy, name).is_err(), "{name}");
    }
    assert!(host(&OriginPolicy::hosts([""; 0]), "localhost").is_err());
}

#[test]
fn with_listed_origins_only_a_page_of_the_own_host_is_a_stranger() {
    let host = "localhost:8000";
    for policy in [OriginPolicy::loopback(), OriginPolicy::same_host(), OriginPolicy::hosts([host])]
    {
        let policy = policy.with_origin("https://app.example.com").listed_origins_only();
        assert_eq!(origin(&policy, host, "https://app.example.com"), Ok(()));
        for page in ["http://localhost:8000", "http://localhost:9000", "http://127.0.0.1"] {
            assert!(origin(&policy, host, page).is_err(), "{page}");
        }
        let no_page = map(&[(HOST, host)]);
        assert_eq!(policy.check(&no_page, None), Ok(None), "no page at all");
    }
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
fn no_host_and_no_origin_panic() {
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
fn the_default_policy_depends_on_the_address_of_the_listener() {
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
fn with_same_host_a_client_that_is_not_a_page_may_use_any_host() {
    let policy = OriginPolicy::same_host();
    for name in ["mcp.example.com", "10.0.0.7:8000", "[fd00::7]", "my_service:80", "localhost"] {
        assert_eq!(host(&policy, name), Ok(()), "{name}");
    }
    assert_eq!(check(&policy, &HeaderMap::new(), None), Ok(()), "as in HTTP/1.0");
    assert!(check(&policy, &map(&[(HOST, "a"), (HOST, "b")]), None).is_err());
}

#[test]
fn with_same_host_a_page_must_have_the_host_that_it_calls() {
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
        // By DNS rebinding this name resolves to this server, too.
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
fn a_page_has_the_origin_it_sends_and_is_named_only_if_it_is_listed() {
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

//! What is described wrongly, and what clients are told.

use std::time::Duration;

use proptest::prelude::*;
use stentor_transport::http::Authenticator as _;

use crate::testing::*;
use crate::{BuildError, Issuer, OAuth, OAuthBuilder};

fn builder(resource: &str) -> OAuthBuilder {
    OAuth::resource(resource).issuer(ISSUER).key_source(Net::default())
}

#[test]
fn what_clients_are_told() {
    let auth = builder(RESOURCE)
        .issuer("http://127.0.0.1:9797/odd")
        .scopes(["mcp:read", "mcp:write"])
        .resource_name("Notes")
        .documentation("https://example.com/notes")
        .build()
        .unwrap();
    let challenge = auth.challenge();
    let metadata = challenge.metadata.as_ref().unwrap();
    assert_eq!(challenge.scopes, ["mcp:read", "mcp:write"]);
    assert_eq!(metadata.resource, RESOURCE);
    assert_eq!(metadata.authorization_servers, [ISSUER, "http://127.0.0.1:9797/odd"]);
    assert_eq!(metadata.resource_name.as_deref(), Some("Notes"));
    assert_eq!(metadata.resource_documentation.as_deref(), Some("https://example.com/notes"));
}

#[test]
fn a_resource_is_a_url_that_is_written_in_one_way() {
    for url in [
        "https://mcp.example.com",
        "https://mcp.example.com/",
        "http://localhost:8000/mcp",
        "https://mcp.example.com:8443/A/b?x=1",
        "http://10.0.0.1/mcp",
        "https://[::1]/mcp",
    ] {
        assert!(builder(url).build().is_ok(), "{url}");
    }
    for url in [
        "",
        "mcp",
        "/mcp",
        "mcp.example.com/mcp",
        "ftp://mcp.example.com",
        "https://",
        "https://mcp.example.com/#x",
        "https://mcp.example.com#",
        "https://MCP.example.com/mcp",
        "HTTPS://mcp.example.com/mcp",
        "https://mcp.example.com/a b",
        "https://u:p@mcp.example.com",
        "https://mcp.example.com/\"",
        "https://mcp.example.com\\x",
        "https://mcp.example.com:x/",
    ] {
        let error = builder(url).build().unwrap_err();
        assert!(matches!(error, BuildError::Resource { .. }), "{url}: {error}");
    }
}

#[test]
fn issuers_are_https_or_on_this_machine() {
    for url in [
        "http://login.example.com",
        "login.example.com",
        "https://a.example/?x",
        "https://a.example#x",
        ISSUER,
    ] {
        let error = builder(RESOURCE).issuer(url).build().unwrap_err();
        assert!(matches!(error, BuildError::Issuer { .. }), "{url}: {error}");
    }
    let none = OAuth::resource(RESOURCE).build().unwrap_err();
    assert!(matches!(none, BuildError::NoIssuer), "{none}");
}

#[test]
fn other_mistakes() {
    for scope in ["", "a b", "a\"", "a\\", "\u{e4}", "a\n", "offline_access"] {
        let error = builder(RESOURCE).scopes([scope]).build().unwrap_err();
        assert!(matches!(error, BuildError::Scope { .. }), "{scope}: {error}");
    }
    let error = |builder: OAuthBuilder| builder.build().unwrap_err();
    assert!(matches!(error(builder(RESOURCE).audience(" ")), BuildError::BlankAudience));
    let leeway = Duration::from_secs(301);
    assert!(matches!(error(builder(RESOURCE).leeway(leeway)), BuildError::Leeway(_)));
    assert!(matches!(error(builder(RESOURCE).algorithms([])), BuildError::NoAlgorithm(_)));
    let others = ["https://a.example", "https://b.example"];
    let several = builder(RESOURCE).issuer(others[0]).introspect("us", "s3cret");
    assert!(matches!(error(several), BuildError::SeveralIntrospections));
    let several = others.map(|url| Issuer::at(url).introspect("us", "s3cret"));
    let several = several.into_iter().fold(builder(RESOURCE), OAuthBuilder::issuer);
    assert!(matches!(error(several), BuildError::SeveralIntrospections));
}

#[test]
fn nothing_shows_a_secret() {
    let issuer = Issuer::at(ISSUER).introspect("us", "s3cret");
    let builder = OAuth::resource(RESOURCE).issuer(issuer.clone()).introspect("us", "s3cret");
    let shown = format!("{issuer:?} {builder:?}");
    assert!(shown.contains("us") && !shown.contains("s3cret"), "{shown}");
    assert!(!format!("{:?}", builder.build().unwrap()).contains("s3cret"));
}

proptest! {
    #[test]
    fn what_clients_are_told_can_stand_in_quotes(
        resource in "https?://[a-z.]{1,9}[ -~]{0,12}",
        scope in "[ -~]{0,12}",
    ) {
        let built = OAuth::resource(&resource).issuer(ISSUER).scopes([&scope]).key_source(Net::default());
        if built.build().is_ok() {
            for text in [&resource, &scope] {
                prop_assert!(text.bytes().all(|it| it.is_ascii_graphic() && !b"\"\\".contains(&it)));
            }
            prop_assert!(!scope.is_empty() && !resource.contains('#'));
        }
    }
}

//! The protocol version, the method and the name agree with the body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use crate::headers::{check_protocol_version, check_standard, encode_value};

#[test]
fn the_method_header_is_required_and_exact() {
    let check = |header: Option<&str>| {
        check_standard("tools/list", None, header.map(str::as_bytes), None)
            .map_err(|error| error.to_string())
    };
    assert_eq!(check(Some("tools/list")), Ok(()));
    assert_eq!(check(Some("  tools/list\t")), Ok(()));
    assert_eq!(check(None).unwrap_err(), "header mismatch: required Mcp-Method header is missing");
    assert_eq!(
        check(Some("Tools/List")).unwrap_err(),
        "header mismatch: Mcp-Method header value 'Tools/List' does not match body value \
         'tools/list'"
    );
    assert!(check(Some("")).is_err());
    assert!(check(Some("tools/list\u{1}")).is_err());
}

#[test]
fn the_method_header_has_no_base64_form() {
    let value = format!("=?base64?{}?=", STANDARD.encode("tools/list"));
    assert!(check_standard("tools/list", None, Some(value.as_bytes()), None).is_err());
}

#[test]
fn the_name_header_is_required_and_decoded_where_the_body_has_a_name() {
    let check = |header: Option<&str>| {
        check_standard("tools/call", Some("bar"), Some(b"tools/call"), header.map(str::as_bytes))
            .map_err(|error| error.to_string())
    };
    assert_eq!(check(Some("bar")), Ok(()));
    assert_eq!(check(Some(" bar ")), Ok(()));
    assert_eq!(check(Some("=?base64?YmFy?=")), Ok(()));
    assert_eq!(check(None).unwrap_err(), "header mismatch: required Mcp-Name header is missing");
    assert_eq!(
        check(Some("foo")).unwrap_err(),
        "header mismatch: Mcp-Name header value 'foo' does not match body value 'bar'"
    );
    assert_eq!(
        check(Some("=?base64?YmF?=")).unwrap_err(),
        "header mismatch: Mcp-Name header value '=?base64?YmF?=' is not valid base64 between \
         '=?base64?' and '?='"
    );
    assert!(check(Some("Bar")).is_err());
}

#[test]
fn the_name_header_is_ignored_where_the_body_needs_none() {
    assert_eq!(
        check_standard("tools/list", None, Some(b"tools/list"), Some(b"any\x00thing")),
        Ok(())
    );
}

#[test]
fn the_protocol_version_header_is_required_and_exact() {
    let check = |header: Option<&str>| {
        check_protocol_version("2026-07-28", header.map(str::as_bytes))
            .map_err(|error| error.to_string())
    };
    assert_eq!(check(Some("2026-07-28")), Ok(()));
    assert_eq!(
        check(None).unwrap_err(),
        "header mismatch: required MCP-Protocol-Version header is missing"
    );
    assert_eq!(
        check(Some("v999.0.0")).unwrap_err(),
        "header mismatch: MCP-Protocol-Version header value 'v999.0.0' does not match body \
         value '2026-07-28'"
    );
}

#[test]
fn a_message_quotes_only_the_start_of_a_long_value() {
    let long = "é".repeat(100_000);
    let error =
        check_standard("tools/call", Some(&long), Some(b"tools/call"), Some(b"x")).unwrap_err();
    let message = error.to_string();
    assert!(message.ends_with("é...'"), "{message}");
    assert!(message.chars().count() < 200);
}

proptest! {
    #[test]
    fn a_name_matches_its_own_header_and_no_other(
        name in any::<String>(),
        other in any::<String>(),
    ) {
        let check = |header: &str| {
            let header = encode_value(header);
            let header = Some(header.as_bytes());
            check_standard("tools/call", Some(&name), Some(b"tools/call"), header)
        };
        prop_assert!(check(&name).is_ok());
        prop_assert_eq!(check(&other).is_ok(), name == other);
    }
}

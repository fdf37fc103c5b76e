//! Values survive a header, and malformed ones are refused.

use std::borrow::Cow;

use proptest::prelude::*;

use crate::headers::value::is_value_byte;
use crate::headers::{decode_value, encode_value};

fn decoded(raw: &str) -> Result<String, String> {
    decode_value(raw.as_bytes()).map(Cow::into_owned).map_err(|error| error.to_string())
}

#[test]
fn a_plain_value_is_literal() {
    assert_eq!(decoded("us-west1").unwrap(), "us-west1");
    assert_eq!(decoded("").unwrap(), "");
    assert_eq!(decoded("a b\tc").unwrap(), "a b\tc");
}

#[test]
fn whitespace_around_a_value_is_not_part_of_it() {
    assert_eq!(decoded(" \t us-west1\t ").unwrap(), "us-west1");
    assert_eq!(decoded(" \t ").unwrap(), "");
    assert_eq!(decoded(" =?base64?IHBhZGRlZCA=?= ").unwrap(), " padded ");
}

#[test]
fn the_encoding_examples_of_the_specification_hold() {
    for (text, value) in [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
    ] {
        assert_eq!(encode_value(text), value);
        assert_eq!(decoded(value).unwrap(), text);
    }
}

#[test]
fn without_the_exact_prefix_and_suffix_a_value_is_literal() {
    for value in [
        "SGVsbG8=",
        "SGVsbG8=?=",
        "=?base64?SGVsbG8=",
        "=?BASE64?SGVsbG8=?=",
        "=?Base64?SGVsbG8=?=",
        "=?base64?=",
        "=?base64?",
        "?=",
    ] {
        assert_eq!(decoded(value).unwrap(), value);
    }
}

#[test]
fn base64_is_strict() {
    assert_eq!(decoded("=?base64?SGVsbG8=?=").unwrap(), "Hello");
    assert_eq!(decoded("=?base64??=").unwrap(), "");
    for value in [
        "=?base64?SGVsbG8?=",
        "=?base64?SGVsbG8==?=",
        "=?base64?SGVs!!!bG8=?=",
        "=?base64?SGVsbG9=?=",
        "=?base64?SGVs bG8=?=",
        "=?base64? SGVsbG8=?=",
        "=?base64?_-_-?=",
    ] {
        assert_eq!(
            decoded(value).unwrap_err(),
            format!(
                "header mismatch: a header value '{value}' is not valid base64 between \
                 '=?base64?' and '?='"
            )
        );
    }
    assert_eq!(
        decoded("=?base64?/w==?=").unwrap_err(),
        "header mismatch: a header value '=?base64?/w==?=' does not decode to UTF-8 text"
    );
}

#[test]
fn invalid_characters_are_refused_and_shown_escaped() {
    assert_eq!(
        decoded("a\u{7}b").unwrap_err(),
        "header mismatch: a header value 'a\\u{7}b' contains the invalid character 0x07"
    );
    assert_eq!(
        decoded("\nx").unwrap_err(),
        "header mismatch: a header value '\\nx' contains the invalid character 0x0a"
    );
    assert_eq!(
        decoded("é").unwrap_err(),
        "header mismatch: a header value 'é' contains the invalid character 0xc3"
    );
    assert!(decode_value(b"\x7f").is_err());
    assert!(decode_value(b"\xff\xfe").is_err());
}

proptest! {
    #[test]
    fn every_text_survives_a_header(text in any::<String>()) {
        let value = encode_value(&text);
        prop_assert!(value.bytes().all(is_value_byte));
        prop_assert_eq!(decode_value(value.as_bytes()).unwrap(), text.as_str());
    }

    #[test]
    fn texts_like_the_base64_form_survive_a_header(
        text in "[ \t]?(=\\?base64\\?)?[a-zA-Z=?]{0,8}(\\?=)?[ \t]?"
    ) {
        let value = encode_value(&text);
        prop_assert_eq!(decode_value(value.as_bytes()).unwrap(), text.as_str());
    }

    #[test]
    fn no_bytes_panic_the_decoder(raw in any::<Vec<u8>>()) {
        if let Ok(text) = decode_value(&raw) {
            let value = encode_value(&text);
            prop_assert_eq!(decode_value(value.as_bytes()).unwrap(), text.as_ref());
        }
    }
}

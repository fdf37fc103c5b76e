//! Sets of keys, as issuers write them.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::Algorithm;
use crate::keys::{Choice, KeySet, KeySetError};
use crate::refused::Refused;
use crate::testing::*;

fn set(keys: &[Value]) -> Result<KeySet, KeySetError> {
    KeySet::parse(json!({"keys": keys}).to_string().as_bytes())
}

/// What is chosen, as one word.
fn chosen(set: &KeySet, kid: Option<&str>, algorithm: Algorithm) -> &'static str {
    match set.choose(kid, algorithm) {
        Choice::Key(_) => "key",
        Choice::Refused(Refused::UnfitKey) => "unfit",
        Choice::Refused(Refused::AmbiguousKey) => "ambiguous",
        Choice::Refused(_) => "refused",
        Choice::Unknown => "unknown",
    }
}

#[test]
fn one_odd_key_spoils_no_other() {
    let with = |members| ed(0).jwk("used", members);
    let odd = [
        json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "a", "pub": "AAAA"}),
        json!({"kty": "RSA", "kid": "b"}),
        json!({"kty": "RSA", "kid": "c", "n": "!!", "e": "AQAB"}),
        json!({"kty": "RSA", "kid": "d", "n": b64([0xff; 128]), "e": "AQAB"}),
        json!({"kty": "RSA", "kid": "e", "n": b64([0xff; 256]), "e": ""}),
        json!({"kty": "EC", "crv": "secp256k1", "kid": "f", "x": b64([1; 32]), "y": b64([1; 32])}),
        json!({"kty": "EC", "crv": "P-256", "kid": "g", "x": b64([1; 31]), "y": b64([1; 32])}),
        json!({"kid": "h"}),
        json!({"kty": "oct", "kid": "i", "k": "AAAA", "alg": "HS256"}),
        json!({"kty": "OKP", "crv": "X25519", "kid": "j", "x": b64([1; 32])}),
        json!({"kty": 1, "kid": "k"}),
        with(json!({"kid": "l", "use": "enc"})),
        with(json!({"kid": "m", "key_ops": ["encrypt", "wrapKey"]})),
        with(json!({"kid": "n", "alg": "ES256"})),
        with(json!({"kid": "o", "alg": "HS256"})),
        with(json!({"kid": 5})),
        json!("text"),
        json!(null),
        with(json!({"kid": "good"})),
    ];
    let set = set(&odd).unwrap();
    assert_eq!(chosen(&set, Some("good"), Algorithm::EdDSA), "key");
    assert_eq!(chosen(&set, None, Algorithm::EdDSA), "key");
    for kid in "abcdefghijklmno".chars().map(String::from) {
        for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
            // Fetching the set again for these would be of no use.
            assert_eq!(chosen(&set, Some(&kid), algorithm), "unfit", "{kid}");
        }
    }
}

#[test]
fn a_key_fits_only_its_own_algorithm() {
    let keys = [
        rsa(0).jwk("r", json!({})),
        rsa(1).jwk("ps", json!({"alg": "PS256"})),
        ec().jwk("e", json!({})),
        // The same name for two keys is allowed, if they are of different kinds.
        ed(0).jwk("e", json!({})),
    ];
    let set = set(&keys).unwrap();
    for (kid, algorithm, expected) in [
        (Some("r"), Algorithm::RS256, "key"),
        (Some("r"), Algorithm::PS512, "key"),
        (Some("r"), Algorithm::ES256, "unfit"),
        (Some("ps"), Algorithm::PS256, "key"),
        (Some("ps"), Algorithm::RS256, "unfit"),
        (Some("e"), Algorithm::ES256, "key"),
        (Some("e"), Algorithm::EdDSA, "key"),
        (Some("e"), Algorithm::ES384, "unfit"),
        (Some("x"), Algorithm::ES256, "unknown"),
        (Some(""), Algorithm::ES256, "unknown"),
        (None, Algorithm::RS256, "key"),
        (None, Algorithm::PS256, "ambiguous"),
        (None, Algorithm::ES256, "key"),
        (None, Algorithm::ES384, "unknown"),
    ] {
        assert_eq!(chosen(&set, kid, algorithm), expected, "{kid:?} {algorithm:?}");
    }
}

#[test]
fn a_key_without_a_name_is_not_for_a_token_with_one() {
    let set = set(&[ed(0).jwk("", json!({"kid": null}))]).unwrap();
    assert_eq!(chosen(&set, Some("k1"), Algorithm::EdDSA), "unknown");
    assert_eq!(chosen(&set, None, Algorithm::EdDSA), "key");
}

#[test]
fn what_is_no_set_of_keys() {
    for text in ["", "{", "[]", "null", "{}", r#"{"keys": {}}"#, r#"{"keys": [ {"kty":"#] {
        assert_eq!(KeySet::parse(text.as_bytes()).unwrap_err(), KeySetError::Form, "{text:.20}");
    }
    // Nothing that is skipped is read in depth.
    let deep = format!("{{\"keys\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(KeySet::parse(deep.as_bytes()).unwrap_err(), KeySetError::NoneFits);
    assert_eq!(set(&[]).unwrap_err(), KeySetError::NoneFits);
    let key = ed(0).jwk("k", json!({}));
    assert!(set(&vec![key.clone(); 100]).is_ok());
    assert_eq!(set(&vec![key; 101]).unwrap_err(), KeySetError::TooMany);
}

proptest! {
    #[test]
    fn no_document_makes_it_panic(
        text in "\\PC{0,60}",
        members in prop::collection::vec(("kty|use|key_ops|alg|crv|n|e|x|y|kid", "[A-Za-z0-9_=-]{0,70}"), 0..6),
    ) {
        let _ = KeySet::parse(text.as_bytes());
        let good = ed(0).jwk("good", json!({}));
        let odd: serde_json::Map<_, Value> =
            members.into_iter().map(|(name, value)| (name, value.into())).collect();
        let set = set(&[Value::Object(odd), good]).unwrap();
        prop_assert_eq!(chosen(&set, Some("good"), Algorithm::EdDSA), "key");
    }
}

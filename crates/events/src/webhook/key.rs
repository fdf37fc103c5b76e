//! What tells one subscription from another.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// How many bytes of the hash are in an id.
const ID_BYTES: usize = 16;

/// The key of a subscription. None of its parts changes while the subscription lives: with another
/// part it is another subscription.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct SubscriptionKey {
    /// Who subscribed.
    pub principal: Arc<str>,
    /// Where events go, as a parsed URL is written.
    pub url: String,
    /// The event type.
    pub name: Arc<str>,
    /// The arguments, as canonical JSON.
    pub arguments: String,
}

impl SubscriptionKey {
    /// A key with the arguments in their canonical form. Absent arguments are the same as none.
    ///
    /// # Errors
    ///
    /// [`CanonicalError`] if the arguments have no canonical form.
    pub(crate) fn new(
        principal: Arc<str>,
        url: &str,
        name: Arc<str>,
        arguments: Option<&Map<String, Value>>,
    ) -> Result<Self, CanonicalError> {
        let arguments = arguments.map_or_else(|| Ok("{}".to_owned()), canonical)?;
        Ok(Self { principal, url: url.to_owned(), name, arguments })
    }

    /// The id of the subscription, which is the same on each node and after a restart. It routes
    /// deliveries at the receiver and opens nothing, so it may be logged.
    pub(crate) fn id(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&*self.principal, &self.url, &*self.name, &self.arguments] {
            // With the lengths, no two keys are hashed from the same bytes.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut id = String::from("sub_");
        for byte in hash.finalize().iter().take(ID_BYTES) {
            // Writing to a string does not fail.
            let _ = write!(id, "{byte:02x}");
        }
        id
    }
}

/// Shows only the id: a URL may contain a token of the receiver, and arguments are the client's.
impl fmt::Debug for SubscriptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SubscriptionKey").field(&self.id()).finish()
    }
}

/// Why arguments have no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CanonicalError {
    /// Canonical JSON has doubles only, so this integer would be the same as the next one.
    #[error("the arguments contain an integer that a double cannot represent; send it as a string")]
    InexactInteger,
    /// The JSON could not be written.
    #[error("the arguments cannot be written as canonical JSON")]
    Unwritable,
}

/// Arguments as canonical JSON (RFC 8785): members in the order of their UTF-16 units, numbers as
/// doubles, no white space.
///
/// # Errors
///
/// [`CanonicalError`] for an integer that a double does not tell from others.
pub(crate) fn canonical(arguments: &Map<String, Value>) -> Result<String, CanonicalError> {
    if !arguments.values().all(is_exact) {
        return Err(CanonicalError::InexactInteger);
    }
    serde_json_canonicalizer::to_string(arguments).map_err(|_| CanonicalError::Unwritable)
}

/// Whether canonical JSON writes each integer in a value as it is. So no two of them are the same.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) if number.is_f64() => true,
        Value::Number(number) => {
            let written = serde_json_canonicalizer::to_string(number);
            written.is_ok_and(|written| written == number.to_string())
        }
        Value::Array(values) => values.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(value: Value) -> Result<String, CanonicalError> {
        canonical(value.as_object().unwrap())
    }

    fn key(parts: [&str; 3], arguments: Value) -> SubscriptionKey {
        let [principal, url, name] = parts;
        SubscriptionKey::new(principal.into(), url, name.into(), arguments.as_object()).unwrap()
    }

    #[test]
    fn members_stand_in_the_order_of_utf_16_units() {
        // In UTF-8 the face comes after U+FB33, in UTF-16 its surrogates come before it.
        let text = r#"{"\ufb33":1,"\ud83d\ude00":2,"\u20ac":3,"\r":4,"1":5,"\u00f6":6}"#;
        let ordered =
            "{\"\\r\":4,\"1\":5,\"\u{f6}\":6,\"\u{20ac}\":3,\"\u{1f600}\":2,\"\u{fb33}\":1}";
        assert_eq!(of(serde_json::from_str(text).unwrap()).unwrap(), ordered);
    }

    #[test]
    fn numbers_are_doubles() {
        assert_eq!(of(json!({"n": 1})), of(json!({"n": 1.0})));
        assert_eq!(of(json!({"n": 0})), of(json!({"n": -0.0})));
        assert_eq!(of(json!({"n": 1e21, "m": 0.5})).unwrap(), r#"{"m":0.5,"n":1e+21}"#);
        assert_ne!(of(json!({"n": 1})), of(json!({"n": "1"})));
    }

    #[test]
    fn integers_that_would_collide_are_refused() {
        let limit = 1u64 << 53;
        // The last is the way in which a double of that size is written.
        for number in [json!(limit), json!(-(1i64 << 53)), json!(1_152_921_504_606_847_000u64)] {
            assert!(of(json!({"n": number})).is_ok(), "{number}");
        }
        for number in [
            json!(limit + 1),
            json!(1u64 << 60),
            json!(u64::MAX),
            json!(i64::MAX),
            json!(-(1i64 << 53) - 1),
        ] {
            let nested = json!({"a": [{"n": number}]});
            assert_eq!(of(nested), Err(CanonicalError::InexactInteger));
        }
    }

    #[test]
    fn absent_arguments_are_none() {
        let url = "https://r.example/h";
        let absent = SubscriptionKey::new("p".into(), url, "n".into(), None).unwrap();
        assert_eq!(absent, key(["p", url, "n"], json!({})));
    }

    #[test]
    fn an_id_stays_the_same_from_release_to_release() {
        let key = key(["iss sub", "https://r.example/h?a=1", "job.done"], json!({"queue": "q1"}));
        assert_eq!(key.id(), "sub_37f54373cb832d308d54b7ad8e383519");
        assert_eq!(format!("{key:?}"), format!("SubscriptionKey({:?})", key.id()));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let ids = [["ab", "c", "d"], ["a", "bc", "d"], ["a", "b", "cd"], ["", "abc", "d"]]
            .map(|parts| key(parts, json!({})).id());
        let different: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-1e21..1e21f64).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    /// The same value with the members of each object the other way round.
    fn reversed(value: Value) -> Value {
        match value {
            Value::Array(values) => values.into_iter().map(reversed).collect(),
            Value::Object(members) => {
                let members: Vec<_> = members.into_iter().collect();
                let pairs = members.into_iter().rev().map(|(name, value)| (name, reversed(value)));
                Value::Object(pairs.collect())
            }
            other => other,
        }
    }

    proptest! {
        #[test]
        fn the_order_of_members_does_not_matter(
            members in vec((any::<String>(), any_json()), 0..6),
        ) {
            let value = Value::Object(members.into_iter().collect());
            let text = of(value.clone()).unwrap();
            prop_assert_eq!(&of(reversed(value)).unwrap(), &text);
            // What was written reads as the same arguments.
            prop_assert_eq!(of(serde_json::from_str(&text).unwrap()).unwrap(), text);
        }

        #[test]
        fn no_two_integers_are_the_same(start in any::<i64>(), distance in 1i64..2000) {
            let [one, other] = [start, start.wrapping_add(distance)].map(|it| of(json!({"n": it})));
            prop_assert!(one.is_err() || one != other);
        }

        #[test]
        fn an_id_has_32_digits(principal in ".*", name in ".*") {
            let id = key([&principal, "https://r.example/", &name], json!({})).id();
            let digits = id.strip_prefix("sub_").unwrap();
            let is_digit = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
            prop_assert!(digits.len() == 32 && digits.bytes().all(is_digit), "{id}");
        }

        #[test]
        fn a_key_survives_being_stored(principal in ".*", name in ".*", value in any_json()) {
            let key = key([&principal, "https://r.example/", &name], json!({"v": value}));
            let stored = serde_json::to_string(&key).unwrap();
            prop_assert_eq!(serde_json::from_str::<SubscriptionKey>(&stored).unwrap(), key);
        }
    }
}

//! The `requestState` of a question: an opaque token that only the retry of its own request can
//! use.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use stentor_wire::{Method, Params};

use crate::identity::{Identity, Who};

/// A key that seals request states. Nodes that serve the same clients share their keys.
#[derive(Clone, PartialEq, Eq)]
pub struct StateKey([u8; 32]);

impl StateKey {
    /// Makes a key from 32 secret bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Makes a random key, for one process.
    ///
    /// # Panics
    ///
    /// If the operating system gives no random bytes.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        Self(bytes)
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateKey")
    }
}

/// The content of a sealed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateToken {
    /// The handle of a call that awaits input. Each round has a new handle.
    Waiting([u8; 16]),
    /// The state that the author's code gave, for the client to send back.
    Explicit(Vec<u8>),
}

/// The hash of a request and its principal, to which a state is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binding([u8; 32]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StateError {
    #[error("the requestState is not one of this server, or not for this request")]
    Invalid,
    #[error("the requestState has expired or was used already")]
    Expired,
    #[error("the call gave way to other callers")]
    GaveWay,
}

impl Binding {
    /// Hashes the owner, the method, and the parameters without the members that a retry adds.
    pub(crate) fn new(who: &Who, method: &Method, params: &Params) -> Self {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        let identity = who.identity();
        for owner in [identity.map(Identity::principal), identity.and_then(Identity::client_id)] {
            part(&[u8::from(owner.is_some())]);
            part(owner.unwrap_or_default().as_bytes());
        }
        part(method.as_str().as_bytes());
        match members(params) {
            Ok(members) => {
                for (key, value) in members {
                    part(key.as_bytes());
                    canonical(&value, &mut part);
                }
            }
            // Some member cannot be read, such as a number that is too large. The raw JSON is
            // hashed instead, so no retry matches: a retry adds members.
            Err(_) => part(params.as_json()),
        }
        Self(hash.finalize().into())
    }
}

/// A retry must repeat a member of more bytes than this exactly, because parsing it takes long.
const MAX_REORDERED: usize = 64 * 1024;

/// The parameters by name, without the members that a retry adds.
fn members(params: &Params) -> serde_json::Result<BTreeMap<String, Value>> {
    let json = std::str::from_utf8(params.as_json()).unwrap_or_default();
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_str(json)?;
    members.retain(|key, _| !matches!(&**key, "_meta" | "inputResponses" | "requestState"));
    let read = |raw: &RawValue| match raw.get() {
        long if long.len() > MAX_REORDERED => Ok(Value::from(long)),
        short => serde_json::from_str(short),
    };
    members.into_iter().map(|(key, raw)| Ok((key, read(raw)?))).collect()
}

/// Hashes a value whatever the order of its members: a client may write the same parameters in
/// another order when it retries.
fn canonical(value: &Value, part: &mut impl FnMut(&[u8])) {
    match value {
        Value::Object(members) => {
            part(b"{");
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            for (key, value) in sorted {
                part(key.as_bytes());
                canonical(value, part);
            }
            part(b"}");
        }
        Value::Array(items) => {
            part(b"[");
            items.iter().for_each(|item| canonical(item, part));
            part(b"]");
        }
        other => part(other.to_string().as_bytes()),
    }
}

/// Seals and opens states with several keys: the first key seals, each key opens.
#[derive(Debug)]
pub(crate) struct StateSealer {
    keys: Vec<StateKey>,
    ttl: Duration,
}

const MAC_LEN: usize = 32;
const HEAD_LEN: usize = 9;

impl StateSealer {
    pub(crate) fn new(mut keys: Vec<StateKey>, ttl: Duration) -> Self {
        if keys.is_empty() {
            keys.push(StateKey::random());
        }
        Self { keys, ttl }
    }

    pub(crate) fn seal(&self, sealed: &StateToken, binding: &Binding, now: SystemTime) -> String {
        let expires = millis(now + self.ttl);
        let (kind, body) = match sealed {
            StateToken::Waiting(handle) => (0, &handle[..]),
            StateToken::Explicit(state) => (1, &state[..]),
        };
        let mut bytes = Vec::with_capacity(HEAD_LEN + body.len() + MAC_LEN);
        bytes.push(kind);
        bytes.extend_from_slice(&expires.to_be_bytes());
        bytes.extend_from_slice(body);
        let mac = mac(&self.keys[0], &bytes, binding).finalize().into_bytes();
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn open(
        &self,
        state: &str,
        binding: &Binding,
        now: SystemTime,
    ) -> Result<StateToken, StateError> {
        let bytes = URL_SAFE_NO_PAD.decode(state).map_err(|_| StateError::Invalid)?;
        let split = bytes.len().checked_sub(MAC_LEN).ok_or(StateError::Invalid)?;
        let (payload, tag) = bytes.split_at(split);
        let genuine =
            self.keys.iter().any(|key| mac(key, payload, binding).verify_slice(tag).is_ok());
        let (head, body) = payload.split_at_checked(HEAD_LEN).ok_or(StateError::Invalid)?;
        if !genuine {
            return Err(StateError::Invalid);
        }
        let expires = head[1..].try_into().map(u64::from_be_bytes).unwrap_or_default();
        if millis(now) >= expires {
            return Err(StateError::Expired);
        }
        match head[0] {
            0 => body.try_into().map(StateToken::Waiting).map_err(|_| StateError::Invalid),
            _ => Ok(StateToken::Explicit(body.to_vec())),
        }
    }
}

fn mac(key: &StateKey, payload: &[u8], binding: &Binding) -> Hmac<Sha256> {
    // HMAC accepts a key of this length.
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).unwrap_or_else(|_| unreachable!());
    mac.update(&binding.0);
    mac.update(payload);
    mac
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: SystemTime = UNIX_EPOCH;

    fn binding(principal: Option<&str>, params: Value) -> Binding {
        let who = Who::from(principal.map(Identity::named));
        Binding::new(&who, &Method::ToolsCall, &Params::from_json(params.to_string()))
    }

    fn sealer(key: u8) -> StateSealer {
        StateSealer::new(vec![StateKey::new([key; 32])], Duration::from_secs(60))
    }

    #[test]
    fn a_state_opens_only_for_its_own_request() {
        let own = binding(Some("ann"), json!({"name": "x", "arguments": {"a": 1, "b": 2}}));
        let state = sealer(1).seal(&StateToken::Waiting([7; 16]), &own, NOW);
        assert_eq!(sealer(1).open(&state, &own, NOW), Ok(StateToken::Waiting([7; 16])));

        let reordered = json!({"arguments": {"b": 2, "a": 1}, "name": "x", "inputResponses": {}});
        assert!(sealer(1).open(&state, &binding(Some("ann"), reordered), NOW).is_ok());
        for other in [
            binding(None, json!({"name": "x", "arguments": {"a": 1, "b": 2}})),
            binding(Some("bob"), json!({"name": "x", "arguments": {"a": 1, "b": 2}})),
            binding(Some("ann"), json!({"name": "y", "arguments": {"a": 1, "b": 2}})),
            binding(Some("ann"), json!({"name": "x", "arguments": {"a": 1, "b": 3}})),
        ] {
            assert_eq!(sealer(1).open(&state, &other, NOW), Err(StateError::Invalid));
        }
    }

    #[test]
    fn a_state_for_unreadable_parameters_opens_for_no_other_parameters() {
        let bound = |amount| {
            let json = format!(r#"{{"name":"pay","arguments":{{"amount":{amount}}},"x":1e999}}"#);
            Binding::new(&Who::Nobody, &Method::ToolsCall, &Params::from_json(json))
        };
        let state = sealer(1).seal(&StateToken::Explicit(b"s".to_vec()), &bound(1), NOW);
        assert_eq!(sealer(1).open(&state, &bound(1_000_000), NOW), Err(StateError::Invalid));
        assert!(sealer(1).open(&state, &bound(1), NOW).is_ok());
    }

    #[test]
    fn a_state_expires_and_keys_rotate() {
        let own = binding(None, json!({}));
        let state = sealer(1).seal(&StateToken::Explicit(b"s".to_vec()), &own, NOW);
        let late = NOW + Duration::from_secs(60);
        assert_eq!(sealer(1).open(&state, &own, late), Err(StateError::Expired));
        assert_eq!(sealer(2).open(&state, &own, NOW), Err(StateError::Invalid));
        let keys = vec![StateKey::new([2; 32]), StateKey::new([1; 32])];
        let rotated = StateSealer::new(keys, Duration::from_secs(60));
        assert!(rotated.open(&state, &own, NOW).is_ok());
    }

    proptest! {
        #[test]
        fn no_other_text_opens(text in ".*", flip in 0usize..200, handle in any::<[u8; 16]>()) {
            let own = binding(None, json!({}));
            prop_assert!(sealer(1).open(&text, &own, NOW).is_err());
            let state = sealer(1).seal(&StateToken::Waiting(handle), &own, NOW);
            let mut tampered = URL_SAFE_NO_PAD.decode(&state).unwrap();
            let at = flip % tampered.len();
            tampered[at] ^= 1;
            prop_assert!(sealer(1).open(&URL_SAFE_NO_PAD.encode(tampered), &own, NOW).is_err());
            let appended = format!("{}-TAMPERED", state);
            prop_assert!(sealer(1).open(&appended, &own, NOW).is_err());
        }
    }
}

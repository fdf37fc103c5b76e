//! The keys of an issuer, and which of them a token is checked with (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::algorithm::{Algorithm, KeyKind};
use crate::refused::Refused;

/// The most keys of an issuer.
const MAX_KEYS: usize = 100;

/// The bits of an RSA key that the library accepts.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// The keys of an issuer with which tokens can be checked.
#[derive(Debug)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
    /// The names of keys that are for something else, or of a kind that is not known.
    others: Vec<String>,
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    algorithm: Option<Algorithm>,
    kind: KeyKind,
    key: DecodingKey,
}

/// The key for a token.
#[derive(Debug)]
pub(crate) enum Choice<'a> {
    Key(&'a DecodingKey),
    /// A newer set would not help.
    Refused(Refused),
    /// There is no such key, but it may be a new one.
    Unknown,
}

/// Why a document is not a set of keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeySetError {
    #[error("it is not a set of keys")]
    Form,
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    #[error("none of its keys can check a token")]
    NoneFits,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Only the name of a key, whatever else is wrong with it.
#[derive(Deserialize)]
struct Named {
    kid: Option<String>,
}

impl KeySet {
    /// Reads a set key by key: one that is not understood spoils no other.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, KeySetError> {
        let document: Document<'_> =
            serde_json::from_slice(document).map_err(|_| KeySetError::Form)?;
        if document.keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let mut set = Self { keys: Vec::new(), others: Vec::new() };
        for text in document.keys {
            let Ok(Named { kid }) = serde_json::from_str(text.get()) else { continue };
            let jwk = serde_json::from_str::<Jwk>(text.get()).ok();
            match jwk.and_then(|jwk| jwk.key(kid.clone())) {
                Some(key) => set.keys.push(key),
                None => set.others.extend(kid),
            }
        }
        if set.keys.is_empty() {
            return Err(KeySetError::NoneFits);
        }
        Ok(set)
    }

    /// The key that a token is checked with. A token that names a key is checked with no other; one
    /// that names none only if there is no doubt.
    pub(crate) fn choose(&self, kid: Option<&str>, algorithm: Algorithm) -> Choice<'_> {
        let fits = |key: &&Key| {
            key.kind == algorithm.key_kind() && key.algorithm.is_none_or(|it| it == algorithm)
        };
        let Some(kid) = kid else {
            let mut fitting = self.keys.iter().filter(fits);
            return match (fitting.next(), fitting.next()) {
                (Some(key), None) => Choice::Key(&key.key),
                (Some(_), Some(_)) => Choice::Refused(Refused::AmbiguousKey),
                (None, _) => Choice::Unknown,
            };
        };
        let mut named = self.keys.iter().filter(|key| key.kid.as_deref() == Some(kid)).peekable();
        let is_known = named.peek().is_some() || self.others.iter().any(|other| other == kid);
        match named.find(fits) {
            Some(key) => Choice::Key(&key.key),
            None if is_known => Choice::Refused(Refused::UnfitKey),
            None => Choice::Unknown,
        }
    }
}

impl Jwk {
    /// The key, if tokens can be checked with it.
    fn key(&self, kid: Option<String>) -> Option<Key> {
        let is_for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|all| all.iter().any(|it| it == "verify"));
        if !is_for_signatures {
            return None;
        }
        let algorithm = match &self.alg {
            Some(name) => Some(Algorithm::named(name)?),
            None => None,
        };
        let (kind, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => (KeyKind::Rsa, self.rsa()?),
            ("EC", Some("P-256")) => (KeyKind::P256, self.point(32)?),
            ("EC", Some("P-384")) => (KeyKind::P384, self.point(48)?),
            ("OKP", Some("Ed25519")) => {
                let x = bytes(self.x.as_deref()?, 32)?;
                (KeyKind::Ed25519, DecodingKey::from_ed_der(&x))
            }
            _ => return None,
        };
        let fits = algorithm.is_none_or(|algorithm| algorithm.key_kind() == kind);
        fits.then_some(Key { kid, algorithm, kind, key })
    }

    fn rsa(&self) -> Option<DecodingKey> {
        let significant = |text: &str| -> Option<Vec<u8>> {
            let bytes = decode(text)?;
            let start = bytes.iter().position(|byte| *byte != 0)?;
            Some(bytes.get(start..)?.to_vec())
        };
        let (n, e) = (significant(self.n.as_deref()?)?, significant(self.e.as_deref()?)?);
        let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
        let is_fit = RSA_BITS.contains(&bits) && e.len() <= 8;
        is_fit.then(|| DecodingKey::from_rsa_raw_components(&n, &e))
    }

    fn point(&self, length: usize) -> Option<DecodingKey> {
        let (x, y) = (bytes(self.x.as_deref()?, length)?, bytes(self.y.as_deref()?, length)?);
        // A point that is not compressed begins with a 4.
        Some(DecodingKey::from_ec_der(&[&[4], &x[..], &y[..]].concat()))
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

fn bytes(text: &str, length: usize) -> Option<Vec<u8>> {
    decode(text).filter(|bytes| bytes.len() == length)
}

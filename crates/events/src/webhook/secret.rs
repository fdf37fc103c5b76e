//! Secrets of subscriptions, and the signatures that they make.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// The fewest bytes of a secret.
const MIN_BYTES: usize = 24;

/// The most bytes of a secret.
const MAX_BYTES: usize = 64;

/// The standard alphabet, with or without padding. Bits after the last byte are ignored, as most
/// receivers do, so that a secret of random letters is one.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The secret of a subscription, which the client made and its receiver knows.
#[derive(Clone)]
pub(crate) struct Secret(Box<[u8]>);

/// Why a text is no secret. It does not contain the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecretError {
    /// The text does not begin as a secret.
    #[error("the secret must begin with \"whsec_\"")]
    NoPrefix,
    /// What follows the prefix is not base64 of the standard alphabet.
    #[error("the secret must be base64 after \"whsec_\"")]
    NotBase64,
    /// The secret is easier to guess than is allowed.
    #[error("the secret must have at least 24 bytes")]
    TooShort,
    /// The secret is longer than is allowed.
    #[error("the secret must have at most 64 bytes")]
    TooLong,
}

impl Secret {
    /// Reads a secret as clients and stores write it.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if the text is no secret.
    pub(crate) fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(SecretError::NoPrefix)?;
        // Nothing that is longer than the longest secret with padding is decoded.
        if encoded.len() > MAX_BYTES.div_ceil(3) * 4 {
            return Err(SecretError::TooLong);
        }
        let bytes = LENIENT.decode(encoded).map_err(|_| SecretError::NotBase64)?;
        match bytes.len() {
            ..MIN_BYTES => Err(SecretError::TooShort),
            MIN_BYTES..=MAX_BYTES => Ok(Self(bytes.into())),
            _ => Err(SecretError::TooLong),
        }
    }

    /// The secret as text, for a store. [`parse`](Self::parse) reads it.
    pub(crate) fn encoded(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// The signature of a message: of its id, the second in which it is sent, and its body.
    pub(crate) fn sign(&self, id: &str, timestamp_seconds: i64, body: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        let head = format!("{id}.{timestamp_seconds}.");
        let signature = mac.chain_update(head).chain_update(body).finalize().into_bytes();
        format!("v1,{}", STANDARD.encode(signature))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The secret of a subscription, and for a while the one before it: a receiver may learn of the new
/// one after the server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Secrets {
    /// The secret that signs.
    pub current: Secret,
    /// The secret before, and until when it signs, too.
    pub previous: Option<Box<(Secret, SystemTime)>>,
}

impl Secrets {
    pub(crate) fn new(current: Secret) -> Self {
        Self { current, previous: None }
    }

    /// Replaces the secret. The one that it replaces signs, too, for the time of `grace`. The same
    /// secret again changes nothing.
    pub(crate) fn rotate(&mut self, new: Secret, now: SystemTime, grace: Duration) {
        if new != self.current {
            let replaced = std::mem::replace(&mut self.current, new);
            // A time that no clock shows is no grace.
            self.previous = now.checked_add(grace).map(|until| Box::new((replaced, until)));
        }
    }

    /// The signatures of a message by all secrets that sign now, the newest first, separated by
    /// spaces.
    pub(crate) fn signatures(
        &self,
        now: SystemTime,
        id: &str,
        timestamp_seconds: i64,
        body: &[u8],
    ) -> String {
        let newest = self.current.sign(id, timestamp_seconds, body);
        match self.previous.as_deref() {
            Some((previous, until)) if *until > now => {
                format!("{newest} {}", previous.sign(id, timestamp_seconds, body))
            }
            _ => newest,
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use standardwebhooks::Webhook;

    use super::*;

    fn secret(byte: u8) -> Secret {
        Secret([byte; 32].into())
    }

    fn later(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_a_secret() {
        let of = |length: usize| format!("whsec_{}", STANDARD.encode(vec![0xfb; length]));
        for (text, problem) in [
            (of(24), None),
            (of(25), None),
            (of(64), None),
            (of(25).trim_end_matches('=').to_owned(), None),
            (of(64).trim_end_matches('=').to_owned(), None),
            (format!("whsec_{}", "Z".repeat(43)), None),
            (of(23), Some(SecretError::TooShort)),
            (of(8), Some(SecretError::TooShort)),
            ("whsec_".to_owned(), Some(SecretError::TooShort)),
            (of(65), Some(SecretError::TooLong)),
            (of(66), Some(SecretError::TooLong)),
            (of(1 << 20), Some(SecretError::TooLong)),
            (of(32).replace('+', "-"), Some(SecretError::NotBase64)),
            (format!("{}\n", of(32)), Some(SecretError::NotBase64)),
            (format!("whsec_{}", "Z".repeat(41)), Some(SecretError::NotBase64)),
            (of(32).replace("whsec_", ""), Some(SecretError::NoPrefix)),
            (of(32).replace("whsec_", "WHSEC_"), Some(SecretError::NoPrefix)),
            (String::new(), Some(SecretError::NoPrefix)),
        ] {
            assert_eq!(Secret::parse(&text).err(), problem, "{text:.100}");
        }
    }

    #[test]
    fn a_known_signature() {
        let secret = Secret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let signature = secret.sign("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body);
        assert_eq!(signature, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let mut secrets = Secrets::new(secret(1));
        secrets.rotate(secret(2), later(0), Duration::from_secs(60));
        let shown = format!("{secrets:?} {secrets:#?}");
        assert!(
            !shown.contains(&STANDARD.encode([1; 8])[..8]) && !shown.contains("2, 2"),
            "{shown}"
        );
        assert_eq!(format!("{:?}", secret(7)), "Secret");
    }

    #[test]
    fn the_secret_before_signs_for_a_while() {
        let [old, new] = [secret(1), secret(2)];
        let [by_old, by_new] = [&old, &new].map(|it| it.sign("e1", 5, b"{}"));
        let mut secrets = Secrets::new(old.clone());
        assert_eq!(secrets.signatures(later(0), "e1", 5, b"{}"), by_old);

        let grace = Duration::from_secs(60);
        secrets.rotate(new.clone(), later(100), grace);
        assert_eq!(secrets.signatures(later(159), "e1", 5, b"{}"), format!("{by_new} {by_old}"));
        // The same secret once more does not lengthen the grace, nor end it.
        secrets.rotate(new, later(150), grace);
        assert_eq!(secrets.signatures(later(159), "e1", 5, b"{}"), format!("{by_new} {by_old}"));
        assert_eq!(secrets.signatures(later(160), "e1", 5, b"{}"), by_new);

        secrets.rotate(old, later(200), grace);
        assert_eq!(secrets.signatures(later(200), "e1", 5, b"{}"), format!("{by_old} {by_new}"));
        secrets.rotate(secret(3), later(300), Duration::MAX);
        assert_eq!(secrets.previous, None);
    }

    /// What a receiver that knows this secret says to the signatures.
    fn accepts(secret: &str, id: &str, seconds: i64, signatures: &str, body: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", id.parse().unwrap());
        headers.insert("webhook-timestamp", seconds.into());
        headers.insert("webhook-signature", signatures.parse().unwrap());
        Webhook::new(secret).unwrap().verify(body.as_bytes(), &headers).is_ok()
    }

    proptest! {
        #[test]
        fn a_receiver_accepts_what_its_secret_signed(
            keys in [vec(any::<u8>(), 24..=64), vec(any::<u8>(), 24..=64)],
            id in "[!-~]{1,256}",
            body in ".*",
        ) {
            prop_assume!(keys[0] != keys[1]);
            let [old, new] = keys.map(|key| Secret(key.into()));
            let now = SystemTime::now();
            let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
            let mut secrets = Secrets::new(old.clone());
            secrets.rotate(new.clone(), now, Duration::from_secs(60));
            let signatures = secrets.signatures(now, &id, seconds, body.as_bytes());
            for secret in [&old, &new] {
                let text = secret.encoded();
                prop_assert!(accepts(&text, &id, seconds, &signatures, &body));
                prop_assert!(!accepts(&text, &id, seconds + 1, &signatures, &body));
                let (other_id, other_body) = (format!("{id}x"), format!("{body} "));
                prop_assert!(!accepts(&text, &other_id, seconds, &signatures, &body));
                prop_assert!(!accepts(&text, &id, seconds, &signatures, &other_body));
            }
            let after = now + Duration::from_secs(60);
            let after = secrets.signatures(after, &id, seconds, body.as_bytes());
            prop_assert!(!accepts(&old.encoded(), &id, seconds, &after, &body));
        }

        #[test]
        fn a_secret_survives_being_stored(bytes in vec(any::<u8>(), 24..=64)) {
            let secret = Secret(bytes.into());
            let stored = secret.encoded();
            prop_assert_eq!(&Secret::parse(&stored).unwrap(), &secret);
            prop_assert_eq!(&Secret::parse(stored.trim_end_matches('=')).unwrap(), &secret);
        }

        #[test]
        fn no_text_breaks_the_reading(text in "(whsec_)?.*") {
            if let Err(error) = Secret::parse(&text) {
                prop_assert!(error.to_string().len() < 80);
            }
        }
    }
}

//! The encryption of webhooks, for stores that others can read.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{StoreError, StoredWebhook};

/// The key that encrypts the webhooks in a store: their secrets are in it.
#[derive(Clone)]
pub struct StoreKey(Arc<LessSafeKey>);

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey")
    }
}

impl StoreKey {
    /// A key of 32 bytes, which should be random and kept apart from the store.
    ///
    /// # Panics
    ///
    /// Never: each 32 bytes are a key.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &bytes).expect("a key of this length");
        Self(Arc::new(LessSafeKey::new(key)))
    }

    /// Encrypts webhooks, each with its id beside it.
    pub(super) fn seal_all(
        &self,
        webhooks: &[StoredWebhook],
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let sealed = webhooks.iter().map(|webhook| {
            let id = webhook.id();
            let json = serde_json::to_vec(webhook).ok()?;
            let sealed = self.seal(&id, json)?;
            Some((id, sealed))
        });
        let sealed = sealed.collect::<Option<_>>();
        sealed.ok_or_else(|| StoreError("a webhook is not encrypted".to_owned()))
    }

    /// Reads a webhook that was kept with this id.
    pub(super) fn open_webhook(
        &self,
        id: &str,
        sealed: &[u8],
    ) -> Result<StoredWebhook, StoreError> {
        let unreadable =
            || StoreError("a webhook cannot be decrypted: is it another key?".to_owned());
        let json = self.open(id, sealed).ok_or_else(unreadable)?;
        serde_json::from_slice(&json).map_err(|error| StoreError(error.to_string()))
    }

    /// Encrypts and authenticates; the id is authenticated, too.
    fn seal(&self, id: &str, mut text: Vec<u8>) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let unique = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(unique, Aad::from(id.as_bytes()), &mut text).ok()?;
        Some([&nonce[..], &text].concat())
    }

    fn open(&self, id: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(id.as_bytes()), &mut text).ok()?;
        Some(opened.to_vec())
    }
}

//! Tokens that are known in advance.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use http::request::Parts;
use sha2::{Digest as _, Sha256};
use stentor_engine::identity::Identity;

use super::bearer::{bearer, is_token};
use super::{Authenticator, Challenge, Rejection, Verdict};

/// The shortest secret, in bytes.
const SHORTEST: usize = 16;

/// An authenticator with a fixed list of secret tokens, each of one identity. There is no OAuth:
/// clients have to know their token, and send it as `Authorization: Bearer TOKEN`.
///
/// ```
/// use stentor::http::{HttpConfig, StaticTokens};
/// use stentor::identity::Identity;
///
/// # fn main() -> Result<(), stentor::http::StaticTokenError> {
/// let (ann, bot) = ("from the environment of Ann".replace(' ', "-"), "0123456789abcdef");
/// let auth = StaticTokens::new([
///     (ann.as_str(), Identity::named("ann").scopes(["read", "write"])),
///     (bot, Identity::named("bot").scopes(["read"])),
/// ])?;
/// let config = HttpConfig::new().auth(auth);
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StaticTokens {
    /// By the digests of the secrets. How long it takes to compare digests says nothing about a
    /// secret.
    identities: HashMap<[u8; 32], Identity>,
    challenge: Challenge,
}

/// Why a list of tokens is not accepted. It names an entry by its position, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StaticTokenError {
    /// A secret is so short that it can be guessed.
    #[error("the secret of token {position} has fewer than 16 bytes; take a longer random one")]
    TooShort {
        /// Which token.
        position: usize,
    },
    /// A secret cannot be sent in a header.
    #[error("the secret of token {position} has characters other than visible ASCII ones")]
    NotAToken {
        /// Which token.
        position: usize,
    },
    /// Two tokens have the same secret.
    #[error("the secret of token {position} is that of an earlier one")]
    Repeated {
        /// Which token.
        position: usize,
    },
    /// The identity of a token is blank.
    #[error("the identity of token {position} is blank; name somebody")]
    Blank {
        /// Which token.
        position: usize,
    },
}

impl StaticTokens {
    /// The tokens of these secrets. A secret is at least 16 bytes long; take random ones.
    ///
    /// # Errors
    ///
    /// [`StaticTokenError`].
    pub fn new<I, S>(tokens: I) -> Result<Self, StaticTokenError>
    where
        I: IntoIterator<Item = (S, Identity)>,
        S: AsRef<str>,
    {
        let mut identities = HashMap::new();
        for (position, (secret, identity)) in tokens.into_iter().enumerate() {
            let secret = secret.as_ref();
            if secret.len() < SHORTEST {
                return Err(StaticTokenError::TooShort { position });
            }
            if !is_token(secret) {
                return Err(StaticTokenError::NotAToken { position });
            }
            if identity.is_blank() {
                return Err(StaticTokenError::Blank { position });
            }
            if identities.insert(digest(secret), identity).is_some() {
                return Err(StaticTokenError::Repeated { position });
            }
        }
        Ok(Self { identities, challenge: Challenge::default() })
    }

    fn find(&self, head: &Parts) -> Result<Identity, Rejection> {
        let token = bearer(&head.headers)?;
        self.identities.get(&digest(token)).cloned().ok_or(Rejection::Invalid)
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

impl Authenticator for StaticTokens {
    fn check(&self, head: &Parts, _peer: Option<SocketAddr>) -> Verdict {
        Verdict::Now(self.find(head))
    }

    fn challenge(&self) -> &Challenge {
        &self.challenge
    }
}

impl fmt::Debug for StaticTokens {
    /// Without the tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticTokens")
            .field("tokens", &self.identities.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "ann-secret-token-0001";

    fn check(tokens: &StaticTokens, authorization: Option<&str>) -> Result<String, Rejection> {
        let mut request = http::Request::builder();
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        match tokens.check(&head, None) {
            Verdict::Now(known) => known.map(|it| it.principal().to_owned()),
            Verdict::Later(_) => panic!("it is known at once"),
        }
    }

    #[test]
    fn each_token_is_one_identity() {
        let tokens = [(ANN, "ann"), ("bob-secret-token-0002", "bob")];
        let tokens =
            StaticTokens::new(tokens.map(|(secret, name)| (secret, Identity::named(name))))
                .unwrap();
        assert_eq!(check(&tokens, Some("Bearer ann-secret-token-0001")).unwrap(), "ann");
        assert_eq!(check(&tokens, Some("bearer bob-secret-token-0002")).unwrap(), "bob");
        assert_eq!(check(&tokens, None), Err(Rejection::Missing));
        assert_eq!(check(&tokens, Some(ANN)), Err(Rejection::Missing));
        for bad in ["ann-secret-token-0002", "ann-secret-token-000", "ann-secret-token-00011", ""] {
            assert_eq!(check(&tokens, Some(&format!("Bearer {bad}"))), Err(Rejection::Invalid));
        }
        assert_eq!(*tokens.challenge(), Challenge::default());
        assert_eq!(format!("{tokens:?}"), "StaticTokens { tokens: 2, .. }");
    }

    #[test]
    fn a_bad_entry_is_named_by_its_position_and_never_shown() {
        use StaticTokenError::{Blank, NotAToken, Repeated, TooShort};
        let (ann, position) = (|| Identity::named("ann"), 1);
        for (secret, identity, error) in [
            ("fifteen-bytes-!", ann(), TooShort { position }),
            ("", ann(), TooShort { position }),
            ("has a space in the middle", ann(), NotAToken { position }),
            ("länger als sechzehn", ann(), NotAToken { position }),
            (ANN, ann(), Repeated { position }),
            ("another-secret-token", Identity::named(" "), Blank { position }),
        ] {
            let found = StaticTokens::new([(ANN, ann()), (secret, identity)]).unwrap_err();
            assert_eq!(found, error);
            assert!(secret.is_empty() || !found.to_string().contains(secret));
        }
        assert!(StaticTokens::new([("exactly-16-bytes", ann())]).is_ok());
    }
}

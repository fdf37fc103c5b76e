//! Why a token is not good. It goes to the log only: clients are told the same of every bad token.

/// What is wrong with a token. No variant repeats a part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it is not a JWT, and there is nobody to ask about other tokens")]
    Opaque,
    #[error("its form is not that of a JWT")]
    Form,
    #[error("its `typ` is not that of an access token")]
    Type,
    #[error("its `alg` is none of the allowed ones")]
    Algorithm,
    #[error("it has `crit`, and nothing that can be critical is known")]
    Critical,
    #[error("its issuer is none of the configured ones")]
    Issuer,
    #[error("its issuer has no such key")]
    UnknownKey,
    #[error("the key that it names does not fit its `alg`, or is not for signatures")]
    UnfitKey,
    #[error("it names no key, and several fit")]
    AmbiguousKey,
    #[error("its signature does not hold")]
    Signature,
    #[error("it is not for this resource")]
    Audience,
    #[error("it has expired, or does not say when it will")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("a claim has the wrong form")]
    Claim,
    #[error("it is bound to a key of its client, and such proofs are not read")]
    Bound,
    #[error("it names nobody")]
    Nobody,
    #[error("its issuer says that it is not active")]
    Inactive,
}

impl Refused {
    /// Whether the same token will be refused in a moment, too, and finding that out again is not
    /// cheaper than remembering it.
    pub(crate) fn is_worth_remembering(self) -> bool {
        match self {
            Self::Opaque | Self::Form | Self::Type | Self::Algorithm | Self::Critical => false,
            Self::Issuer | Self::UnfitKey | Self::AmbiguousKey => false,
            // The key may be there at the next look; the time will come.
            Self::UnknownKey | Self::NotYet => false,
            Self::Signature | Self::Audience | Self::Expired | Self::Claim => true,
            Self::Bound | Self::Nobody | Self::Inactive => true,
        }
    }
}

//! The form of a token, and its signature (RFC 7515, RFC 7519).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc;
use serde::Deserialize;
use serde_json::Value;
use stentor_wire::model::JsonObject;

use crate::algorithm::Algorithm;
use crate::refused::Refused;

/// A token whose form is that of a JWT. Nothing in it is true before [`claims`](Self::claims).
#[derive(Debug)]
pub(crate) struct Jwt<'a> {
    /// The header and the payload, as they are signed.
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
}

#[derive(Deserialize)]
struct Issued {
    iss: String,
}

impl<'a> Jwt<'a> {
    /// Whether a token is a JWT; else it is opaque.
    pub(crate) fn is_one(token: &str) -> bool {
        token.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// Reads the header of a token. What it says of keys (`jku`, `jwk`, `x5u`) is ignored.
    pub(crate) fn parse(token: &'a str, is_strict: bool) -> Result<Self, Refused> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Refused::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(Refused::Form)?;
        if payload.contains('.') {
            return Err(Refused::Form);
        }
        let header = object(header)?;
        if header.contains_key("crit") {
            return Err(Refused::Critical);
        }
        let is_access_token = match header.get("typ") {
            None => !is_strict,
            Some(Value::String(typ)) => match typ.to_ascii_lowercase().as_str() {
                "at+jwt" | "application/at+jwt" => true,
                "jwt" => !is_strict,
                _ => false,
            },
            Some(_) => false,
        };
        if !is_access_token {
            return Err(Refused::Type);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
        let algorithm = algorithm.ok_or(Refused::Algorithm)?;
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Refused::Form),
        };
        Ok(Self { signed, payload, signature, algorithm, kid })
    }

    /// The issuer that the token claims to have: good for choosing keys, and for nothing else.
    pub(crate) fn claimed_issuer(&self) -> Result<String, Refused> {
        let payload = decode(self.payload)?;
        serde_json::from_slice(&payload).map(|Issued { iss }| iss).map_err(|_| Refused::Issuer)
    }

    /// The claims, once the signature holds.
    pub(crate) fn claims(&self, key: &DecodingKey) -> Result<JsonObject, Refused> {
        let signature = decode(self.signature).map_err(|_| Refused::Signature)?;
        // Not the provider of the process: whatever else it was built with, this one is here.
        let verifier_factory = aws_lc::DEFAULT_PROVIDER.verifier_factory;
        let verifier = verifier_factory(&self.algorithm.in_library(), key);
        let verifier = verifier.map_err(|_| Refused::UnfitKey)?;
        let holds = verifier.verify(self.signed.as_bytes(), &signature);
        holds.map_err(|_| Refused::Signature)?;
        object(self.payload)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Refused> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Form)
}

/// Deeply nested JSON is an error, as the parser counts how deep it is.
fn object(part: &str) -> Result<JsonObject, Refused> {
    serde_json::from_slice(&decode(part)?).map_err(|_| Refused::Form)
}

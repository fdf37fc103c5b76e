//! JSON that is embedded in other JSON unchanged: for `#[serde(with)]` on [`Bytes`].

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

/// Writes JSON.
///
/// # Errors
///
/// If `json` is not JSON, or the serializer fails.
pub fn serialize<S: Serializer>(json: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    let raw: &RawValue = serde_json::from_slice(json).map_err(ser::Error::custom)?;
    raw.serialize(to)
}

/// Reads JSON, without changing a byte of it.
///
/// # Errors
///
/// If the deserializer fails.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    let raw = Box::<RawValue>::deserialize(from).map_err(de::Error::custom)?;
    Ok(Bytes::from(Box::<str>::from(raw).into_string()))
}

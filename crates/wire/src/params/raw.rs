//! Parameters as the client wrote them, taken apart once.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::OnceLock;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::ErrorObject;
use crate::message::present;

/// The `params` of a message: raw JSON, a slice of the message's own buffer, or nothing.
///
/// Where the members are that many parts of a server look at is found once, at the first look.
#[derive(Clone, Debug, Default)]
pub struct Params {
    raw: Bytes,
    members: OnceLock<Members>,
}

/// A member that is read without reading the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Member {
    /// `_meta`.
    Meta,
    /// `name`.
    Name,
    /// `uri`.
    Uri,
    /// `taskId`.
    TaskId,
    /// `arguments`.
    Arguments,
    /// `inputResponses`.
    InputResponses,
    /// `requestState`.
    RequestState,
}

/// Where each [`Member`] begins and ends; nowhere, where it is not.
type Members = [(u32, u32); 7];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    name: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    task_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input_responses: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request_state: Option<&'a RawValue>,
}

pub(super) fn invalid(error: &dyn Display) -> ErrorObject {
    ErrorObject::invalid_params(format!("invalid params: {error}"))
}

impl Params {
    /// Parameters from raw JSON, which must be an object.
    #[must_use]
    pub fn from_json(raw: impl Into<Bytes>) -> Self {
        Self { raw: raw.into(), members: OnceLock::new() }
    }

    /// The raw JSON; `{}` where the message had none.
    #[must_use]
    pub fn as_json(&self) -> &[u8] {
        if self.raw.is_empty() { b"{}" } else { &self.raw }
    }

    /// Reads the parameters as `T`.
    ///
    /// # Errors
    ///
    /// -32602 with the member that is missing or of the wrong type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ErrorObject> {
        serde_json::from_slice(self.as_json()).map_err(|error| invalid(&error))
    }

    /// One member as raw JSON, if it is there. Of those that may be left out, `null` is not.
    ///
    /// # Errors
    ///
    /// -32602 if one of the known members is there twice.
    pub fn member(&self, member: Member) -> Result<Option<&str>, ErrorObject> {
        let members = match self.members.get() {
            Some(members) => members,
            None => {
                let found = self.find()?;
                self.members.get_or_init(|| found)
            }
        };
        let (start, end) = members[member as usize];
        let raw = self.raw.get(start as usize..end as usize).unwrap_or_default();
        Ok(std::str::from_utf8(raw).ok().filter(|raw| !raw.is_empty()))
    }

    /// One member that is a string.
    ///
    /// # Errors
    ///
    /// As [`member`](Self::member), and if it is something else.
    pub fn string(&self, member: Member) -> Result<Option<Cow<'_, str>>, ErrorObject> {
        let Some(raw) = self.member(member)? else { return Ok(None) };
        // One without escapes is borrowed.
        let borrowed = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        if let Some(text) = borrowed.filter(|text| !text.contains('\\')) {
            return Ok(Some(Cow::Borrowed(text)));
        }
        let owned = serde_json::from_str::<String>(raw).map_err(|error| invalid(&error))?;
        Ok(Some(Cow::Owned(owned)))
    }

    /// One member as bytes, without copying.
    ///
    /// # Errors
    ///
    /// As [`member`](Self::member).
    pub fn slice(&self, member: Member) -> Result<Option<Bytes>, ErrorObject> {
        Ok(self.member(member)?.map(|raw| self.raw.slice_ref(raw.as_bytes())))
    }

    fn find(&self) -> Result<Members, ErrorObject> {
        if self.raw.is_empty() {
            return Ok(Members::default());
        }
        let start = self.raw.as_ptr() as usize;
        let range = |member: Option<&RawValue>| {
            member.map_or((0, 0), |raw| {
                let at = raw.get().as_ptr() as usize - start;
                // No message is nearly as long as that.
                let place = |at| u32::try_from(at).unwrap_or_default();
                (place(at), place(at + raw.get().len()))
            })
        };
        let known: Known<'_> =
            serde_json::from_slice(&self.raw).map_err(|error| invalid(&error))?;
        Ok([
            known.meta,
            known.name,
            known.uri,
            known.task_id,
            known.arguments,
            known.input_responses,
            known.request_state,
        ]
        .map(range))
    }
}

impl PartialEq for Params {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for Params {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_found_wherever_they_are() {
        let params = Params::from_json(
            r#"{ "x": [{"name": 1}], "arguments" :{"a":1.50}, "name":"a\u0062\"", "_meta":null }"#,
        );
        assert_eq!(params.member(Member::Arguments), Ok(Some(r#"{"a":1.50}"#)));
        assert_eq!(params.string(Member::Name).unwrap().as_deref(), Some("ab\""));
        assert_eq!(params.member(Member::Meta), Ok(None));
        assert_eq!(params.member(Member::Uri), Ok(None));
        assert_eq!(Params::default().member(Member::Name), Ok(None));
    }

    #[test]
    fn a_member_of_the_wrong_type_or_there_twice_is_refused() {
        for wrong in ["1", "null", "{}", "[\"a\"]"] {
            let params = Params::from_json(format!(r#"{{"name":{wrong}}}"#));
            assert!(params.string(Member::Name).is_err(), "{wrong}");
        }
        let twice = Params::from_json(r#"{"name":"a","name":"b"}"#);
        assert!(twice.member(Member::Arguments).is_err());
    }

    proptest! {
        #[test]
        fn a_string_is_what_the_client_wrote(text in ".*", before in ".*") {
            let params = json!({ "before": before, "name": text, "after": 1 });
            let params = Params::from_json(params.to_string());
            prop_assert_eq!(params.string(Member::Name).unwrap().unwrap(), text);
        }
    }
}

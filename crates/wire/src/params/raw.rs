//! Parameters as the client wrote them. Their members are located once.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::sync::OnceLock;

use bytestring::ByteString;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::ErrorObject;
use crate::bounds::{count_values, shortened};

/// The `params` of a message: raw JSON in the message's own buffer, or nothing.
///
/// The members that many parts of a server need are located once, when the message is read.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// The parameters, or the whole message that contains them.
    source: ByteString,
    in_message: bool,
    /// How many values the source has; 0 for a short source, whose values are not counted.
    values: usize,
    members: OnceLock<Members>,
}

/// A member that can be read without reading the others.
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
    /// `notifications`.
    Notifications,
}

/// The names of the members, in the order of [`Member`].
const NAMES: [&str; 8] = [
    "_meta",
    "name",
    "uri",
    "taskId",
    "arguments",
    "inputResponses",
    "requestState",
    "notifications",
];
const MEMBERS: usize = NAMES.len();

/// The start and the end of each [`Member`] in the source; both are 0 if the member is absent.
#[derive(Clone, Debug, Default)]
struct Members {
    places: [(u32, u32); MEMBERS],
    /// The name of a member that occurs twice.
    twice: Option<&'static str>,
}

/// The members of an object as they are read.
pub(crate) struct Seen<'a> {
    members: [Option<&'a RawValue>; MEMBERS],
    twice: Option<&'static str>,
}

impl<'de> Deserialize<'de> for Seen<'de> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(ParamsVisitor)
    }
}

struct ParamsVisitor;

impl<'de> Visitor<'de> for ParamsVisitor {
    type Value = Seen<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("params to be an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen<'de>, A::Error> {
        let mut seen = Seen { members: [None; MEMBERS], twice: None };
        while let Some(Key(index)) = map.next_key()? {
            let Some(index) = index else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if seen.members[index].replace(map.next_value()?).is_some() {
                seen.twice = Some(NAMES[index]);
            }
        }
        Ok(seen)
    }
}

/// The member that a key names, as an index into [`NAMES`].
struct Key(Option<usize>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(Key(NAMES.iter().position(|known| *known == name)))
            }
        }

        input.deserialize_identifier(Name)
    }
}

/// Fewer values than this are not counted.
const FEW: usize = 64;

/// How many values a JSON text has, counted up to `most` + 1; 0 if it has few.
pub(crate) fn values_of(text: &str, most: usize) -> usize {
    match has_few_values(text.as_bytes()) && most >= FEW {
        true => 0,
        false => count_values(text.as_bytes(), most),
    }
}

/// Whether a JSON text has at most [`FEW`] values. A text with many separators in its strings may be
/// taken for one with more. This costs far less than counting exactly.
fn has_few_values(json: &[u8]) -> bool {
    // Every value and every name but the first follows one of these.
    let is_separator = |byte: &u8| u8::from(matches!(byte, b',' | b':' | b'[' | b'{'));
    let mut separators = 0;
    // The count of a chunk fits into a byte, so that the compiler counts many bytes at once.
    json.chunks(usize::from(u8::MAX)).all(|chunk| {
        separators += usize::from(chunk.iter().map(is_separator).sum::<u8>());
        separators < FEW
    })
}

pub(super) fn invalid(error: &dyn Display) -> ErrorObject {
    ErrorObject::invalid_params(format!("invalid params: {}", shortened(error)))
}

impl Params {
    /// Parameters from raw JSON, which must be an object.
    #[must_use]
    pub fn from_json(raw: impl Into<ByteString>) -> Self {
        let source = raw.into();
        let values = values_of(&source, usize::MAX);
        Self { source, in_message: false, values, members: OnceLock::new() }
    }

    /// The parameters of a message, whose members are located already.
    pub(crate) fn of_message(message: &ByteString, seen: &Seen<'_>, values: usize) -> Self {
        let members = Members::of(seen, message);
        Self { source: message.clone(), in_message: true, values, members: members.into() }
    }

    /// A part of the parameters, such as a [`member`](Self::member), that shares their buffer.
    ///
    /// # Panics
    ///
    /// If `part` is not a part of the parameters.
    #[must_use]
    pub fn share(&self, part: &str) -> ByteString {
        self.source.slice_ref(part)
    }

    /// How many bytes the parameters keep in memory: those of the whole message.
    #[must_use]
    pub fn source_len(&self) -> usize {
        self.source.len()
    }

    /// How many values the parameters have at most, including the names of members; 0 if they are
    /// so short that the values were not counted.
    #[must_use]
    pub fn values(&self) -> usize {
        self.values
    }

    /// The raw JSON; `{}` if the message had none.
    #[must_use]
    pub fn as_json(&self) -> &[u8] {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            params: &'a RawValue,
        }
        if self.source.is_empty() {
            return b"{}";
        }
        if !self.in_message {
            return self.source.as_bytes();
        }
        // Parsed here, because few methods need the whole parameters, and only once.
        match serde_json::from_str::<Message<'_>>(&self.source) {
            Ok(message) => message.params.get().as_bytes(),
            Err(_) => b"{}",
        }
    }

    /// Parses the parameters as `T`.
    ///
    /// # Errors
    ///
    /// -32602 with the member that is missing or of the wrong type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ErrorObject> {
        #[derive(Deserialize)]
        struct Message<T> {
            params: T,
        }
        let parsed = match (&*self.source, self.in_message) {
            ("", _) => serde_json::from_str("{}"),
            (params, false) => serde_json::from_str(params),
            (message, true) => serde_json::from_str(message).map(|Message { params }| params),
        };
        parsed.map_err(|error| invalid(&error))
    }

    /// One member as raw JSON, if it is present. An optional member that is `null` counts as
    /// absent.
    ///
    /// # Errors
    ///
    /// -32602 if one of the known members occurs twice.
    pub fn member(&self, member: Member) -> Result<Option<&str>, ErrorObject> {
        let members = match self.members.get() {
            Some(members) => members,
            None => {
                let found = self.find()?;
                self.members.get_or_init(|| found)
            }
        };
        if let Some(twice) = members.twice {
            return Err(invalid(&format_args!("duplicate field `{twice}`")));
        }
        let (start, end) = members.places[member as usize];
        let raw = self.source.get(start as usize..end as usize).unwrap_or_default();
        Ok(Some(raw).filter(|raw| !raw.is_empty()))
    }

    /// One member that is a string.
    ///
    /// # Errors
    ///
    /// As [`member`](Self::member), and if it is not a string.
    pub fn string(&self, member: Member) -> Result<Option<Cow<'_, str>>, ErrorObject> {
        let Some(raw) = self.member(member)? else { return Ok(None) };
        // A string without escapes is borrowed.
        let borrowed = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        if let Some(text) = borrowed.filter(|text| !text.contains('\\')) {
            return Ok(Some(Cow::Borrowed(text)));
        }
        let owned = serde_json::from_str::<String>(raw).map_err(|error| invalid(&error))?;
        Ok(Some(Cow::Owned(owned)))
    }

    fn find(&self) -> Result<Members, ErrorObject> {
        if self.source.is_empty() {
            return Ok(Members::default());
        }
        let seen = serde_json::from_str(&self.source).map_err(|error| invalid(&error))?;
        Ok(Members::of(&seen, &self.source))
    }
}

impl Members {
    fn of(seen: &Seen<'_>, source: &str) -> Self {
        let start = source.as_ptr() as usize;
        // No message is nearly as long as 4 GiB.
        let place = |at: usize| u32::try_from(at).unwrap_or_default();
        let mut places = [(0, 0); MEMBERS];
        for (index, raw) in seen.members.iter().enumerate() {
            let Some(raw) = raw else { continue };
            // An optional member that is `null` counts as absent.
            let may_be_null = ["name", "uri", "taskId"].contains(&NAMES[index]);
            if raw.get() != "null" || may_be_null {
                let at = raw.get().as_ptr() as usize - start;
                places[index] = (place(at), place(at + raw.get().len()));
            }
        }
        Self { places, twice: seen.twice }
    }
}

impl PartialEq for Params {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for Params {}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::Message;

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
    fn members_are_found_in_a_whole_message() {
        let json = r#"{ "x":1, "name": "a", "_meta": {"b" :2} }"#;
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{json}}}"#);
        let Ok(Message::Request(request)) = Message::decode(&Bytes::from(text)) else { panic!() };
        assert_eq!(request.params.member(Member::Meta), Ok(Some(r#"{"b" :2}"#)));
        assert_eq!(request.params.member(Member::Name), Ok(Some(r#""a""#)));
        assert_eq!(request.params.as_json(), json.as_bytes());
        assert_eq!(request.params, Params::from_json(json));
    }

    #[test]
    fn a_member_of_the_wrong_type_or_a_repeated_member_is_refused() {
        for wrong in ["1", "null", "{}", "[\"a\"]"] {
            let params = Params::from_json(format!(r#"{{"name":{wrong}}}"#));
            assert!(params.string(Member::Name).is_err(), "{wrong}");
        }
        let twice = r#"{"name":"a","name":null}"#;
        assert!(Params::from_json(twice).member(Member::Arguments).is_err());
        let text = format!(r#"{{"jsonrpc":"2.0","method":"m","params":{twice}}}"#);
        let told = Message::decode(&Bytes::from(text));
        let Ok(Message::Notification(told)) = told else { panic!("{told:?}") };
        assert!(told.params.member(Member::Arguments).is_err());
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

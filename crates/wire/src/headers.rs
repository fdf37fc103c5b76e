//! The MCP request headers of Streamable HTTP, and how they must agree with the body.
//!
//! The modern era mirrors parts of a JSON-RPC request into HTTP headers, so that a load balancer or
//! a gateway can route without reading the body. A server that does read the body must then refuse
//! a request whose headers say something else, or the two would act on different values. Everything
//! here is a pure function of header bytes and body values; the transport brings both.
//!
//! Specification: `basic/transports/streamable-http` of 2026-07-28, "Request Metadata", and
//! `server/tools` of 2026-07-28, "x-mcp-header".

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};
use thiserror::Error;

pub use crate::bounds::quoted;
use crate::uri;

/// The protocol version of the request (2026-07-28: required, equal to the one in `_meta`;
/// 2025-06-18 and 2025-11-25: on every request after `initialize`).
pub const MCP_PROTOCOL_VERSION: &str = "mcp-protocol-version";

/// The session of the request (2025-03-26 to 2025-11-25, `basic/transports`, "Session Management").
/// The modern era ignores it.
pub const MCP_SESSION_ID: &str = "mcp-session-id";

/// The JSON-RPC method of the request (2026-07-28, "Standard Request Headers").
pub const MCP_METHOD: &str = "mcp-method";

/// What the request is about: `params.name`, `params.uri` or `params.taskId` (2026-07-28, "Standard
/// Request Headers", and the tasks extension).
pub const MCP_NAME: &str = "mcp-name";

/// What the name of every header made from a tool parameter starts with (2026-07-28, "Custom
/// Headers from Tool Parameters").
pub const MCP_PARAM_PREFIX: &str = "mcp-param-";

/// The last event a client saw of a stream it wants to resume (2025-03-26 to 2025-11-25,
/// `basic/transports`, "Resumability and Redelivery"). The modern era ignores it.
pub const LAST_EVENT_ID: &str = "last-event-id";

/// The schema keyword by which a tool asks for a parameter to be mirrored.
const X_MCP_HEADER: &str = "x-mcp-header";

const BASE64_PREFIX: &str = "=?base64?";
const BASE64_SUFFIX: &str = "?=";

/// 2^53 - 1, the largest integer every JSON implementation holds exactly.
const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

/// A request whose headers disagree with its body, lack a required header or are malformed.
///
/// Its text is the message of JSON-RPC error -32020 (`HeaderMismatch`), to be sent with HTTP status
/// 400. It names the header and, where there are, both values, cut to a readable length.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Server Validation".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("header mismatch: {0}")]
pub struct HeaderMismatch(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
enum Kind {
    #[error("required {header} header is missing")]
    Missing { header: String },
    #[error("{header} header value '{found}' does not match body value '{expected}'")]
    Different { header: String, found: String, expected: String },
    #[error("{header} header value '{found}' is not expected, the body has no value for it")]
    Unexpected { header: String, found: String },
    #[error(
        "{header} header value '{found}' cannot match body value '{expected}', which is not a \
         string, a boolean or an integer from -(2^53-1) to 2^53-1"
    )]
    NotMirrored { header: String, found: String, expected: String },
    #[error("{header} header value '{found}' {fault}")]
    Malformed { header: String, found: String, fault: Fault },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
enum Fault {
    #[error("contains the invalid character 0x{0:02x}")]
    Character(u8),
    #[error("is not valid base64 between '=?base64?' and '?='")]
    Base64,
    #[error("does not decode to UTF-8 text")]
    Utf8,
}

impl HeaderMismatch {
    fn missing(header: &str) -> Self {
        Self(Kind::Missing { header: header.to_owned() })
    }

    fn different(header: &str, found: &str, expected: &str) -> Self {
        Self(Kind::Different {
            header: header.to_owned(),
            found: quoted(found),
            expected: quoted(expected),
        })
    }

    fn malformed(header: &str, found: &[u8], fault: Fault) -> Self {
        let found = quoted(&String::from_utf8_lossy(found));
        Self(Kind::Malformed { header: header.to_owned(), found, fault })
    }
}

/// Reads the value of an `Mcp-Name` or `Mcp-Param-*` header.
///
/// Spaces and tabs around the value are not part of it. A value of the form `=?base64?...?=` is the
/// base64 of UTF-8 text, any other stands for itself.
///
/// # Errors
///
/// The value holds a character other than visible ASCII, space and tab, or it has the base64 form
/// but not canonical, padded standard base64 of UTF-8 text inside. The error speaks of "a header",
/// since this function is not told which one.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Value Encoding".
pub fn decode_value(raw: &[u8]) -> Result<Cow<'_, str>, HeaderMismatch> {
    decode("a", raw)
}

/// Writes a text as the value of an `Mcp-Name` or `Mcp-Param-*` header, so that [`decode_value`]
/// gives it back: unchanged where a header can carry it, otherwise as `=?base64?...?=`.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Value Encoding".
pub fn encode_value(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let plain = bytes.iter().all(|&byte| is_value_byte(byte))
        && trim(bytes).len() == bytes.len()
        && !(text.starts_with(BASE64_PREFIX) && text.ends_with(BASE64_SUFFIX));
    if plain {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{BASE64_PREFIX}{}{BASE64_SUFFIX}", STANDARD.encode(bytes)))
    }
}

/// Checks the `MCP-Protocol-Version` header against the protocol version in the body's `_meta`.
///
/// # Errors
///
/// The header is missing, malformed or not exactly `version`.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Protocol Version Header".
pub fn check_protocol_version(version: &str, header: Option<&[u8]>) -> Result<(), HeaderMismatch> {
    check_literal("MCP-Protocol-Version", version, header)
}

/// Checks the `Mcp-Method` and `Mcp-Name` headers against the body.
///
/// `method` is the body's method. `name` is the body value that `Mcp-Name` mirrors, for the
/// requests that need the header: `params.name` of `tools/call` and `prompts/get`, `params.uri` of
/// `resources/read`, `params.taskId` of `tasks/*`. For all others it is `None`, and an `Mcp-Name`
/// header is ignored; so it may be for `tasks/*` without the header, which not all clients send.
///
/// # Errors
///
/// A required header is missing, malformed or not exactly the body's value; a URI may be spelled in another
/// way that has the same [normal form](uri::normal). Only `Mcp-Name` may use the base64 form.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Standard Request Headers" and
/// "Server Validation".
pub fn check_standard(
    method: &str,
    name: Option<&str>,
    mcp_method: Option<&[u8]>,
    mcp_name: Option<&[u8]>,
) -> Result<(), HeaderMismatch> {
    check_literal("Mcp-Method", method, mcp_method)?;
    let Some(expected) = name else {
        return Ok(());
    };
    let raw = mcp_name.ok_or_else(|| HeaderMismatch::missing("Mcp-Name"))?;
    let found = decode("Mcp-Name", raw)?;
    // Another spelling of the same URI names the same resource.
    let is_same_uri = || method == "resources/read" && uri::normal(&found) == uri::normal(expected);
    if found == expected || is_same_uri() {
        Ok(())
    } else {
        Err(HeaderMismatch::different("Mcp-Name", &found, expected))
    }
}

/// Compares a header that does not permit the base64 form.
fn check_literal(header: &str, expected: &str, raw: Option<&[u8]>) -> Result<(), HeaderMismatch> {
    let raw = raw.ok_or_else(|| HeaderMismatch::missing(header))?;
    let found = literal(header, raw)?;
    if found == expected { Ok(()) } else { Err(HeaderMismatch::different(header, found, expected)) }
}

fn decode<'a>(header: &str, raw: &'a [u8]) -> Result<Cow<'a, str>, HeaderMismatch> {
    let text = literal(header, raw)?;
    let Some(inner) =
        text.strip_prefix(BASE64_PREFIX).and_then(|rest| rest.strip_suffix(BASE64_SUFFIX))
    else {
        return Ok(Cow::Borrowed(text));
    };
    let fault = |fault| HeaderMismatch::malformed(header, raw, fault);
    let bytes = STANDARD.decode(inner).map_err(|_| fault(Fault::Base64))?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| fault(Fault::Utf8))
}

fn literal<'a>(header: &str, raw: &'a [u8]) -> Result<&'a str, HeaderMismatch> {
    if let Some(&byte) = raw.iter().find(|&&byte| !is_value_byte(byte)) {
        return Err(HeaderMismatch::malformed(header, raw, Fault::Character(byte)));
    }
    std::str::from_utf8(trim(raw)).map_err(|_| HeaderMismatch::malformed(header, raw, Fault::Utf8))
}

fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}

/// Takes the optional whitespace of RFC 9110 away; `trim_ascii` would take line ends, too.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The parameters of one tool that are mirrored into `Mcp-Param-*` headers.
///
/// They are read from the `x-mcp-header` annotations of the tool's `inputSchema` once, when the
/// tool is registered, so that a call only compares.
///
/// Specification: `server/tools` of 2026-07-28, "x-mcp-header", and
/// `basic/transports/streamable-http`, "Custom Headers from Tool Parameters".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParamHeaders(Vec<ParamHeader>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct ParamHeader {
    /// The lowercase header name, by which it is looked up and told apart.
    key: String,
    /// The header name as the tool's author wrote it, for messages.
    header: String,
    /// The property names that lead to the value in the arguments.
    path: Vec<String>,
    /// Where the annotation is in the schema, for messages.
    pointer: String,
}

impl ParamHeaders {
    /// Extracts and validates the annotations of a tool's `inputSchema`.
    ///
    /// # Errors
    ///
    /// An annotation breaks a rule: it must be a non-empty RFC 9110 token, unique without regard to
    /// case, on a property whose `type` is `string`, `integer` or `boolean`, and that property must
    /// be reached from the root through `properties` alone. Clients leave a tool out of their list
    /// when it breaks one, so it is better never registered. What stands in `default`, `const`,
    /// `enum` and `examples` is data and holds no annotations.
    pub fn from_schema(schema: &Map<String, Value>) -> Result<Self, ParamHeaderError> {
        let mut headers: Vec<ParamHeader> = Vec::new();
        // A stack of our own: the depth of a schema must not become the depth of our calls.
        let root = Place { schema, pointer: "#".to_owned(), path: Some(Vec::new()) };
        let mut places = vec![root];
        while let Some(place) = places.pop() {
            if let Some(annotation) = place.schema.get(X_MCP_HEADER) {
                let header = place.header(annotation)?;
                if let Some(other) = headers.iter().find(|other| other.key == header.key) {
                    return Err(place.broken(Rule::Unique(other.pointer.clone())));
                }
                headers.push(header);
            }
            places.extend(place.inner().into_iter().rev());
        }
        Ok(Self(headers))
    }

    /// Whether the tool mirrors no parameter.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks the `Mcp-Param-*` headers of a `tools/call` against its `arguments`.
    ///
    /// `header` looks a header up by its full lowercase name (`mcp-param-region`). It gives one
    /// value a name: a request that repeats such a header has to be refused before. Headers that
    /// belong to no annotation are never looked at.
    ///
    /// # Errors
    ///
    /// The arguments have a value that is not null, and its header is missing, malformed or
    /// different; or they have none, and the header is there all the same. Strings are compared
    /// exactly, booleans with `true` and `false`, integers by their value, so that `42.0` is 42. A
    /// value that is none of these, or an integer outside -(2^53-1) to 2^53-1, matches no header.
    ///
    /// Specification: `basic/transports/streamable-http` of 2026-07-28, "Server Behavior for Custom
    /// Headers" and "Server Validation".
    pub fn check<'a>(
        &self,
        arguments: Option<&Value>,
        header: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<(), HeaderMismatch> {
        self.0.iter().try_for_each(|param| param.check(arguments, header(&param.key)))
    }
}

impl ParamHeader {
    fn check(&self, arguments: Option<&Value>, raw: Option<&[u8]>) -> Result<(), HeaderMismatch> {
        let value = arguments
            .and_then(|arguments| {
                self.path.iter().try_fold(arguments, |value, name| value.as_object()?.get(name))
            })
            .filter(|value| !value.is_null());
        let (value, raw) = match (value, raw) {
            (None, None) => return Ok(()),
            (Some(_), None) => return Err(HeaderMismatch::missing(&self.header)),
            (None, Some(raw)) => {
                let found = quoted(&decode(&self.header, raw)?);
                return Err(HeaderMismatch(Kind::Unexpected {
                    header: self.header.clone(),
                    found,
                }));
            }
            (Some(value), Some(raw)) => (value, raw),
        };
        let found = decode(&self.header, raw)?;
        let (equal, expected) = match value {
            Value::String(text) => (Some(found == text.as_str()), Cow::Borrowed(text.as_str())),
            Value::Bool(true) => (Some(found == "true"), Cow::Borrowed("true")),
            Value::Bool(false) => (Some(found == "false"), Cow::Borrowed("false")),
            Value::Number(number) => {
                let equal = safe_integer(number).map(|value| decimal(&found) == Some(value));
                (equal, Cow::Owned(number.to_string()))
            }
            // Not written out: they have no bound.
            Value::Array(_) => (None, Cow::Borrowed("[...]")),
            Value::Object(_) => (None, Cow::Borrowed("{...}")),
            Value::Null => (None, Cow::Borrowed("null")),
        };
        match equal {
            Some(true) => Ok(()),
            Some(false) => Err(HeaderMismatch::different(&self.header, &found, &expected)),
            None => Err(HeaderMismatch(Kind::NotMirrored {
                header: self.header.clone(),
                found: quoted(&found),
                expected: quoted(&expected),
            })),
        }
    }
}

/// The integer a JSON number stands for (42.0 is one), if every JSON implementation holds it.
fn safe_integer(number: &Number) -> Option<i64> {
    let whole = |value: &f64| value.fract() == 0.0 && value.abs() <= MAX_SAFE_INTEGER as f64;
    number
        .as_i64()
        .or_else(|| number.as_f64().filter(whole).map(|value| value as i64))
        .filter(|value| value.unsigned_abs() <= MAX_SAFE_INTEGER.unsigned_abs())
}

/// The integer a decimal text stands for. Read digit by digit and not as a float, which would round
/// a different number to the same one.
fn decimal(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let valid = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte == b'0');
    if valid { whole.parse().ok() } else { None }
}

/// A schema somewhere inside a tool's `inputSchema`.
struct Place<'a> {
    schema: &'a Map<String, Value>,
    pointer: String,
    /// The property names that lead here, as long as only `properties` had to be passed.
    path: Option<Vec<String>>,
}

impl<'a> Place<'a> {
    fn broken(&self, rule: Rule) -> ParamHeaderError {
        ParamHeaderError { pointer: self.pointer.clone(), rule }
    }

    /// The header that an annotation of this schema asks for.
    fn header(&self, annotation: &Value) -> Result<ParamHeader, ParamHeaderError> {
        let path = match &self.path {
            Some(path) if !path.is_empty() => path.clone(),
            _ => return Err(self.broken(Rule::Reachable)),
        };
        let name = annotation.as_str().ok_or_else(|| self.broken(Rule::Text))?;
        if name.is_empty() {
            return Err(self.broken(Rule::NotEmpty));
        }
        if !name.bytes().all(is_token_byte) {
            return Err(self.broken(Rule::Token(quoted(name))));
        }
        // A list of types is no way to say "or null": the official clients drop such a tool.
        match self.schema.get("type").and_then(Value::as_str) {
            Some("string" | "integer" | "boolean") => Ok(ParamHeader {
                key: format!("{MCP_PARAM_PREFIX}{}", name.to_ascii_lowercase()),
                header: format!("Mcp-Param-{name}"),
                path,
                pointer: self.pointer.clone(),
            }),
            _ => Err(self.broken(Rule::Primitive)),
        }
    }

    /// The schemas directly inside this one.
    fn inner(&self) -> Vec<Place<'a>> {
        let mut inner = Vec::new();
        for (keyword, value) in self.schema {
            match (keyword.as_str(), value) {
                // Data and lists of property names, where a key is not a keyword.
                ("const" | "default" | "enum" | "examples" | "dependentRequired", _) => {}
                ("properties", Value::Object(named)) => {
                    inner.extend(named.iter().filter_map(|(name, value)| {
                        let path = self.path.as_ref().map(|path| {
                            path.iter().cloned().chain([name.clone()]).collect::<Vec<_>>()
                        });
                        self.place(value, &[keyword, name], path)
                    }));
                }
                (
                    "$defs" | "definitions" | "dependencies" | "dependentSchemas"
                    | "patternProperties",
                    Value::Object(named),
                ) => inner.extend(
                    named
                        .iter()
                        .filter_map(|(name, value)| self.place(value, &[keyword, name], None)),
                ),
                // Every other keyword, unknown ones too: a `$ref` can point anywhere.
                (_, Value::Array(values)) => {
                    inner.extend(values.iter().enumerate().filter_map(|(index, value)| {
                        self.place(value, &[keyword, &index.to_string()], None)
                    }));
                }
                (_, value) => inner.extend(self.place(value, &[keyword], None)),
            }
        }
        inner
    }

    fn place(&self, value: &'a Value, steps: &[&str], path: Option<Vec<String>>) -> Option<Self> {
        let schema = value.as_object()?;
        let mut pointer = self.pointer.clone();
        for step in steps {
            pointer.push('/');
            pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        }
        Some(Self { schema, pointer, path })
    }
}

/// RFC 9110 `tchar`.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// An `x-mcp-header` annotation that breaks a rule, which makes its tool's definition invalid.
///
/// Its text names the place as a JSON pointer into the `inputSchema`, and the rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("x-mcp-header at {pointer} {rule}")]
pub struct ParamHeaderError {
    pointer: String,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
enum Rule {
    #[error("must be a string")]
    Text,
    #[error("must not be empty")]
    NotEmpty,
    #[error("must be an RFC 9110 token, of letters, digits and !#$%&'*+-.^_`|~ only, not '{0}'")]
    Token(String),
    #[error("must be unique without regard to case, but the same name is at {0}")]
    Unique(String),
    #[error("must be on a property whose type is one of string, integer and boolean")]
    Primitive,
    #[error("must be on a property that is reached from the root through properties alone")]
    Reachable,
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn decoded(raw: &str) -> Result<String, String> {
        decode_value(raw.as_bytes()).map(Cow::into_owned).map_err(|error| error.to_string())
    }

    fn schema(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn params(value: Value) -> Result<ParamHeaders, String> {
        ParamHeaders::from_schema(&schema(value)).map_err(|error| error.to_string())
    }

    fn check(
        params: &ParamHeaders,
        arguments: Value,
        headers: &[(&str, &str)],
    ) -> Result<(), String> {
        let headers: HashMap<_, _> = headers.iter().copied().collect();
        params
            .check(Some(&arguments), |name| headers.get(name).map(|value| value.as_bytes()))
            .map_err(|error| error.to_string())
    }

    /// One parameter of each type, one of them nested.
    fn typed() -> ParamHeaders {
        params(json!({
            "type": "object",
            "properties": {
                "region": { "type": "string", "x-mcp-header": "Region" },
                "count": { "type": "integer", "x-mcp-header": "Count" },
                "options": {
                    "type": "object",
                    "properties": { "dry": { "type": "boolean", "x-mcp-header": "Dry-Run" } }
                },
                "query": { "type": "string" }
            }
        }))
        .unwrap()
    }

    fn broken(value: Value) -> String {
        params(value).unwrap_err()
    }

    #[test]
    fn a_plain_value_is_literal() {
        assert_eq!(decoded("us-west1").unwrap(), "us-west1");
        assert_eq!(decoded("").unwrap(), "");
        assert_eq!(decoded("a b\tc").unwrap(), "a b\tc");
    }

    #[test]
    fn whitespace_around_a_value_is_not_part_of_it() {
        assert_eq!(decoded(" \t us-west1\t ").unwrap(), "us-west1");
        assert_eq!(decoded(" \t ").unwrap(), "");
        assert_eq!(decoded(" =?base64?IHBhZGRlZCA=?= ").unwrap(), " padded ");
    }

    #[test]
    fn the_encoding_examples_of_the_specification_hold() {
        for (text, value) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            assert_eq!(encode_value(text), value);
            assert_eq!(decoded(value).unwrap(), text);
        }
    }

    #[test]
    fn without_the_exact_prefix_and_suffix_a_value_is_literal() {
        for value in [
            "SGVsbG8=",
            "SGVsbG8=?=",
            "=?base64?SGVsbG8=",
            "=?BASE64?SGVsbG8=?=",
            "=?Base64?SGVsbG8=?=",
            "=?base64?=",
            "=?base64?",
            "?=",
        ] {
            assert_eq!(decoded(value).unwrap(), value);
        }
    }

    #[test]
    fn base64_is_strict() {
        assert_eq!(decoded("=?base64?SGVsbG8=?=").unwrap(), "Hello");
        assert_eq!(decoded("=?base64??=").unwrap(), "");
        for value in [
            "=?base64?SGVsbG8?=",
            "=?base64?SGVsbG8==?=",
            "=?base64?SGVs!!!bG8=?=",
            "=?base64?SGVsbG9=?=",
            "=?base64?SGVs bG8=?=",
            "=?base64? SGVsbG8=?=",
            "=?base64?_-_-?=",
        ] {
            assert_eq!(
                decoded(value).unwrap_err(),
                format!(
                    "header mismatch: a header value '{value}' is not valid base64 between \
                     '=?base64?' and '?='"
                )
            );
        }
        assert_eq!(
            decoded("=?base64?/w==?=").unwrap_err(),
            "header mismatch: a header value '=?base64?/w==?=' does not decode to UTF-8 text"
        );
    }

    #[test]
    fn invalid_characters_are_refused_and_shown_escaped() {
        assert_eq!(
            decoded("a\u{7}b").unwrap_err(),
            "header mismatch: a header value 'a\\u{7}b' contains the invalid character 0x07"
        );
        assert_eq!(
            decoded("\nx").unwrap_err(),
            "header mismatch: a header value '\\nx' contains the invalid character 0x0a"
        );
        assert_eq!(
            decoded("é").unwrap_err(),
            "header mismatch: a header value 'é' contains the invalid character 0xc3"
        );
        assert!(decode_value(b"\x7f").is_err());
        assert!(decode_value(b"\xff\xfe").is_err());
    }

    #[test]
    fn the_method_header_is_required_and_exact() {
        let check = |header: Option<&str>| {
            check_standard("tools/list", None, header.map(str::as_bytes), None)
                .map_err(|error| error.to_string())
        };
        assert_eq!(check(Some("tools/list")), Ok(()));
        assert_eq!(check(Some("  tools/list\t")), Ok(()));
        assert_eq!(
            check(None).unwrap_err(),
            "header mismatch: required Mcp-Method header is missing"
        );
        assert_eq!(
            check(Some("Tools/List")).unwrap_err(),
            "header mismatch: Mcp-Method header value 'Tools/List' does not match body value \
             'tools/list'"
        );
        assert!(check(Some("")).is_err());
        assert!(check(Some("tools/list\u{1}")).is_err());
    }

    #[test]
    fn the_method_header_has_no_base64_form() {
        let value = format!("=?base64?{}?=", STANDARD.encode("tools/list"));
        assert!(check_standard("tools/list", None, Some(value.as_bytes()), None).is_err());
    }

    #[test]
    fn the_name_header_is_required_and_decoded_where_the_body_has_a_name() {
        let check = |header: Option<&str>| {
            check_standard(
                "tools/call",
                Some("bar"),
                Some(b"tools/call"),
                header.map(str::as_bytes),
            )
            .map_err(|error| error.to_string())
        };
        assert_eq!(check(Some("bar")), Ok(()));
        assert_eq!(check(Some(" bar ")), Ok(()));
        assert_eq!(check(Some("=?base64?YmFy?=")), Ok(()));
        assert_eq!(
            check(None).unwrap_err(),
            "header mismatch: required Mcp-Name header is missing"
        );
        assert_eq!(
            check(Some("foo")).unwrap_err(),
            "header mismatch: Mcp-Name header value 'foo' does not match body value 'bar'"
        );
        assert_eq!(
            check(Some("=?base64?YmF?=")).unwrap_err(),
            "header mismatch: Mcp-Name header value '=?base64?YmF?=' is not valid base64 between \
             '=?base64?' and '?='"
        );
        assert!(check(Some("Bar")).is_err());
    }

    #[test]
    fn the_name_header_is_ignored_where_the_body_needs_none() {
        assert_eq!(
            check_standard("tools/list", None, Some(b"tools/list"), Some(b"any\x00thing")),
            Ok(())
        );
    }

    #[test]
    fn the_protocol_version_header_is_required_and_exact() {
        let check = |header: Option<&str>| {
            check_protocol_version("2026-07-28", header.map(str::as_bytes))
                .map_err(|error| error.to_string())
        };
        assert_eq!(check(Some("2026-07-28")), Ok(()));
        assert_eq!(
            check(None).unwrap_err(),
            "header mismatch: required MCP-Protocol-Version header is missing"
        );
        assert_eq!(
            check(Some("v999.0.0")).unwrap_err(),
            "header mismatch: MCP-Protocol-Version header value 'v999.0.0' does not match body \
             value '2026-07-28'"
        );
    }

    #[test]
    fn a_message_quotes_only_the_start_of_a_long_value() {
        let long = "é".repeat(100_000);
        let error =
            check_standard("tools/call", Some(&long), Some(b"tools/call"), Some(b"x")).unwrap_err();
        let message = error.to_string();
        assert!(message.ends_with("é...'"), "{message}");
        assert!(message.chars().count() < 200);
    }

    #[test]
    fn a_schema_without_annotations_mirrors_nothing() {
        let none = params(json!({ "type": "object" })).unwrap();
        assert!(none.is_empty());
        assert_eq!(none, ParamHeaders::default());
        assert_eq!(none.check(None, |_| Some(b"x".as_slice())), Ok(()));
        assert!(!typed().is_empty());
    }

    #[test]
    fn an_annotation_must_be_a_token() {
        let annotated = |name: Value| {
            let property = json!({ "type": "string", "x-mcp-header": name });
            json!({ "properties": { "a/b": property } })
        };
        assert!(params(annotated(json!("Az09!#$%&'*+-.^_`|~"))).is_ok());
        assert_eq!(
            broken(annotated(json!(""))),
            "x-mcp-header at #/properties/a~1b must not be empty"
        );
        assert_eq!(
            broken(annotated(json!(null))),
            "x-mcp-header at #/properties/a~1b must be a string"
        );
        assert_eq!(
            broken(annotated(json!("a\r\nb"))),
            "x-mcp-header at #/properties/a~1b must be an RFC 9110 token, of letters, digits and \
             !#$%&'*+-.^_`|~ only, not 'a\\r\\nb'"
        );
        for name in ["a b", " a", "a:b", "a/b", "a\"", "(a)", "a,b", "é", "\u{0}", "\u{7f}"] {
            assert!(broken(annotated(json!(name))).contains("must be an RFC 9110 token"));
        }
    }

    #[test]
    fn annotations_are_unique_without_regard_to_case() {
        assert_eq!(
            broken(json!({ "properties": {
                "a": { "type": "string", "x-mcp-header": "Region" },
                "b": { "properties": { "c": { "type": "string", "x-mcp-header": "REGION" } } }
            } })),
            "x-mcp-header at #/properties/b/properties/c must be unique without regard to case, \
             but the same name is at #/properties/a"
        );
    }

    #[test]
    fn only_strings_integers_and_booleans_are_mirrored() {
        for kind in [
            json!("number"),
            json!("object"),
            json!("array"),
            json!("null"),
            json!(["string"]),
            json!(["string", "null"]),
            json!(null),
        ] {
            let mut property = json!({ "x-mcp-header": "A" });
            if !kind.is_null() {
                property["type"] = kind;
            }
            assert_eq!(
                broken(json!({ "properties": { "a": property } })),
                "x-mcp-header at #/properties/a must be on a property whose type is one of \
                 string, integer and boolean"
            );
        }
    }

    #[test]
    fn an_annotation_is_reached_through_properties_alone() {
        let property = json!({ "type": "string", "x-mcp-header": "A" });
        let nested = json!({ "properties": { "deep": property } });
        for (keyword, value, pointer) in [
            ("x-mcp-header", json!("A"), ""),
            ("items", nested.clone(), "/items/properties/deep"),
            ("items", json!([property]), "/items/0"),
            ("prefixItems", json!([true, property]), "/prefixItems/1"),
            ("contains", property.clone(), "/contains"),
            ("additionalProperties", property.clone(), "/additionalProperties"),
            ("unevaluatedProperties", property.clone(), "/unevaluatedProperties"),
            ("propertyNames", property.clone(), "/propertyNames"),
            ("patternProperties", json!({ "^a": property }), "/patternProperties/^a"),
            ("dependentSchemas", json!({ "a": nested }), "/dependentSchemas/a/properties/deep"),
            ("dependencies", json!({ "a": property }), "/dependencies/a"),
            ("oneOf", json!([nested]), "/oneOf/0/properties/deep"),
            ("anyOf", json!([property]), "/anyOf/0"),
            ("allOf", json!([nested]), "/allOf/0/properties/deep"),
            ("not", property.clone(), "/not"),
            ("if", nested.clone(), "/if/properties/deep"),
            ("then", nested.clone(), "/then/properties/deep"),
            ("else", nested.clone(), "/else/properties/deep"),
            ("$defs", json!({ "a/~": property }), "/$defs/a~1~0"),
            ("definitions", json!({ "a": nested }), "/definitions/a/properties/deep"),
            ("x-unknown", json!({ "oneOf": [property] }), "/x-unknown/oneOf/0"),
        ] {
            let mut root = Map::new();
            root.insert(keyword.to_owned(), value);
            assert_eq!(
                ParamHeaders::from_schema(&root).unwrap_err().to_string(),
                format!(
                    "x-mcp-header at #{pointer} must be on a property that is reached from the \
                     root through properties alone"
                )
            );
        }
    }

    #[test]
    fn names_and_data_are_no_annotations() {
        let schema = json!({
            "properties": {
                "x-mcp-header": { "type": "string" },
                "items": { "type": "string", "x-mcp-header": "Items" },
                "data": {
                    "default": { "x-mcp-header": "A" },
                    "const": { "x-mcp-header": "A" },
                    "enum": [{ "x-mcp-header": "A" }],
                    "examples": [{ "x-mcp-header": "A" }]
                }
            },
            "required": ["x-mcp-header"],
            "dependentRequired": { "x-mcp-header": ["data"] },
            "$defs": { "x-mcp-header": { "type": "string" } }
        });
        let params = params(schema).unwrap();
        assert_eq!(check(&params, json!({ "items": "a" }), &[("mcp-param-items", "a")]), Ok(()));
    }

    #[test]
    fn mirrored_values_match() {
        let params = typed();
        let arguments = json!({
            "region": "us-west1", "count": 42, "options": { "dry": true }, "query": "SELECT 1"
        });
        let headers = [
            ("mcp-param-region", "us-west1"),
            ("mcp-param-count", "42"),
            ("mcp-param-dry-run", "true"),
        ];
        assert_eq!(check(&params, arguments, &headers), Ok(()));
        assert_eq!(check(&params, json!({}), &[("mcp-param-other", "x")]), Ok(()));
        assert_eq!(params.check(None, |_| None), Ok(()));
    }

    #[test]
    fn the_rows_of_the_conformance_suite_hold() {
        let params = typed();
        let hello = json!({ "region": "Hello" });
        let with = |value| check(&params, hello.clone(), &[("mcp-param-region", value)]);
        assert_eq!(with("=?base64?SGVsbG8=?="), Ok(()));
        assert!(with("=?base64?SGVsbG8?=").is_err());
        assert!(with("=?base64?SGVs!!!bG8=?=").is_err());
        assert_eq!(
            with("SGVsbG8=").unwrap_err(),
            "header mismatch: Mcp-Param-Region header value 'SGVsbG8=' does not match body value \
             'Hello'"
        );
        assert!(with("=?base64?SGVsbG8=").is_err());
        let literal = json!({ "region": "=?base64?SGVsbG8=" });
        assert_eq!(check(&params, literal, &[("mcp-param-region", "=?base64?SGVsbG8=")]), Ok(()));
        assert_eq!(
            check(&params, hello.clone(), &[]).unwrap_err(),
            "header mismatch: required Mcp-Param-Region header is missing"
        );
    }

    #[test]
    fn a_header_without_its_value_is_refused() {
        let params = typed();
        for arguments in [
            json!({}),
            json!({ "options": null }),
            json!({ "options": { "dry": null } }),
            json!({ "options": ["dry"] }),
            json!([]),
            json!(null),
        ] {
            assert_eq!(check(&params, arguments.clone(), &[]), Ok(()));
            assert_eq!(
                check(&params, arguments, &[("mcp-param-dry-run", "true")]).unwrap_err(),
                "header mismatch: Mcp-Param-Dry-Run header value 'true' is not expected, the body \
                 has no value for it"
            );
        }
        assert!(params.check(None, |_| Some(b"x".as_slice())).is_err());
    }

    #[test]
    fn booleans_are_compared_by_their_lowercase_words() {
        let params = typed();
        let with = |value: bool, header| {
            check(&params, json!({ "options": { "dry": value } }), &[("mcp-param-dry-run", header)])
        };
        assert_eq!(with(true, "true"), Ok(()));
        assert_eq!(with(false, "false"), Ok(()));
        for (value, header) in [(true, "false"), (false, "true"), (true, "True"), (true, "1")] {
            assert!(with(value, header).is_err());
        }
    }

    #[test]
    fn integers_are_compared_by_value() {
        let params = typed();
        let with = |value: Value, header| {
            check(&params, json!({ "count": value }), &[("mcp-param-count", header)])
        };
        for (value, header) in [
            (json!(42), "42"),
            (json!(42), "42.0"),
            (json!(42), "42.000"),
            (json!(42.0), "42"),
            (json!(-7), "-7"),
            (json!(0), "-0"),
            (json!(-0.0), "0"),
            (json!(9_007_199_254_740_991_i64), "9007199254740991"),
            (json!(-9_007_199_254_740_991_i64), "-9007199254740991.0"),
        ] {
            assert_eq!(with(value, header), Ok(()));
        }
        for header in [
            "43",
            "42.5",
            "42.",
            ".0",
            "4.2e1",
            "+42",
            "0x2a",
            "",
            "-",
            "-.0",
            "4 2",
            "NaN",
            "inf",
            "42.0000000000000000000001",
            "42.0.0",
            "4200000000000000000000000",
        ] {
            assert!(with(json!(42), header).is_err(), "{header}");
        }
    }

    #[test]
    fn a_value_no_header_can_carry_matches_none() {
        let params = typed();
        for (value, shown) in [
            (json!(9_007_199_254_740_992_u64), "9007199254740992"),
            (json!(-9_007_199_254_740_992_i64), "-9007199254740992"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(4.5), "4.5"),
            (json!(["a"]), "[...]"),
            (json!({ "a": 1 }), "{...}"),
        ] {
            assert_eq!(
                check(&params, json!({ "count": value }), &[("mcp-param-count", shown)])
                    .unwrap_err(),
                format!(
                    "header mismatch: Mcp-Param-Count header value '{shown}' cannot match body \
                     value '{shown}', which is not a string, a boolean or an integer from \
                     -(2^53-1) to 2^53-1"
                )
            );
        }
    }

    #[test]
    fn a_deep_schema_is_no_deep_recursion() {
        let wrap = |key: &str, value: Value| Map::from_iter([(key.to_owned(), value)]);
        let mut schema = json!({ "type": "string", "x-mcp-header": "Deep" });
        let mut arguments = json!("x");
        for _ in 0..500 {
            schema = Value::Object(wrap("properties", Value::Object(wrap("a", schema))));
            arguments = Value::Object(wrap("a", arguments));
        }
        let params = ParamHeaders::from_schema(schema.as_object().unwrap()).unwrap();
        assert_eq!(check(&params, arguments, &[("mcp-param-deep", "x")]), Ok(()));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let key = prop::sample::select(vec![
            "properties",
            "x-mcp-header",
            "type",
            "items",
            "oneOf",
            "$defs",
            "a",
            "b",
            "default",
        ]);
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            prop::sample::select(vec!["string", "integer", "boolean", "A", "a", "", "a b"])
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..6).prop_map(|entries| {
                    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_text_survives_a_header(text in any::<String>()) {
            let value = encode_value(&text);
            prop_assert!(value.bytes().all(is_value_byte));
            prop_assert_eq!(decode_value(value.as_bytes()).unwrap(), text.as_str());
        }

        #[test]
        fn texts_like_the_base64_form_survive_a_header(
            text in "[ \t]?(=\\?base64\\?)?[a-zA-Z=?]{0,8}(\\?=)?[ \t]?"
        ) {
            let value = encode_value(&text);
            prop_assert_eq!(decode_value(value.as_bytes()).unwrap(), text.as_str());
        }

        #[test]
        fn no_bytes_make_decoding_panic(raw in any::<Vec<u8>>()) {
            if let Ok(text) = decode_value(&raw) {
                let value = encode_value(&text);
                prop_assert_eq!(decode_value(value.as_bytes()).unwrap(), text.as_ref());
            }
        }

        #[test]
        fn a_name_matches_its_own_header_and_no_other(
            name in any::<String>(),
            other in any::<String>(),
        ) {
            let check = |header: &str| {
                let header = encode_value(header);
                let header = Some(header.as_bytes());
                check_standard("tools/call", Some(&name), Some(b"tools/call"), header)
            };
            prop_assert!(check(&name).is_ok());
            prop_assert_eq!(check(&other).is_ok(), name == other);
        }

        #[test]
        fn a_safe_integer_matches_its_own_header_and_no_other(
            value in prop_oneof![any::<i64>(), -MAX_SAFE_INTEGER - 2..MAX_SAFE_INTEGER + 3],
            other in any::<i64>(),
        ) {
            let params = typed();
            let with = |header: i64| {
                let header = header.to_string();
                check(&params, json!({ "count": value }), &[("mcp-param-count", &header)])
            };
            let safe = (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).contains(&value);
            prop_assert_eq!(with(value).is_ok(), safe);
            prop_assert_eq!(with(other).is_ok(), safe && value == other);
        }

        #[test]
        fn no_schema_and_no_call_make_it_panic(
            root in any_json(),
            arguments in any_json(),
            raw in any::<Option<Vec<u8>>>(),
        ) {
            let wrapped = json!({ "properties": { "a": root, "b": root } });
            if let Ok(params) = ParamHeaders::from_schema(&schema(wrapped)) {
                let _ = params.check(Some(&arguments), |_| raw.as_deref());
            }
            if let Some(Ok(params)) = root.as_object().map(ParamHeaders::from_schema) {
                let _ = params.check(Some(&arguments), |_| raw.as_deref());
            }
        }
    }
}

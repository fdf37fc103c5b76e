//! The headers that mirror a tool's parameters.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};
use thiserror::Error;

use super::mismatch::{HeaderMismatch, Kind};
use super::names::MCP_PARAM_PREFIX;
use super::value::decode;
use crate::bounds::quoted;

/// The schema keyword by which a tool asks for a parameter to be mirrored.
const X_MCP_HEADER: &str = "x-mcp-header";

/// 2^53 - 1, the largest integer that every JSON implementation represents exactly.
pub(super) const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

/// The parameters of one tool that are mirrored into `Mcp-Param-*` headers.
///
/// They are read from the `x-mcp-header` annotations of the tool's `inputSchema` once, when the
/// tool is registered, so that a call only compares values.
///
/// Specification: `server/tools` of 2026-07-28, "x-mcp-header", and
/// `basic/transports/streamable-http`, "Custom Headers from Tool Parameters".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParamHeaders(Vec<ParamHeader>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct ParamHeader {
    /// The lowercase header name, used for lookups and to find duplicates.
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
    /// when it breaks a rule, so such a tool should not be registered. The values of `default`,
    /// `const`, `enum` and `examples` are data and contain no annotations.
    pub fn from_schema(schema: &Map<String, Value>) -> Result<Self, ParamHeaderError> {
        let mut headers: Vec<ParamHeader> = Vec::new();
        // An explicit stack instead of recursion: the depth of a schema must not become the depth
        // of the call stack.
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
    /// `header` returns the value of a header by its full lowercase name (`mcp-param-region`). It
    /// returns one value per name, so a request that repeats such a header must be refused before.
    /// Headers without an annotation are never looked up.
    ///
    /// # Errors
    ///
    /// The arguments have a value that is not null, and its header is missing, malformed or
    /// different; or the arguments have no value, and the header exists. Strings are compared
    /// exactly, booleans with `true` and `false`, integers by their value, so that `42.0` is 42. A
    /// value of another type, or an integer outside -(2^53-1) to 2^53-1, matches no header.
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
            // Not written out: arrays and objects have no bound.
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

/// The integer that a JSON number represents (42.0 is one), if every JSON implementation represents
/// it exactly.
fn safe_integer(number: &Number) -> Option<i64> {
    let whole = |value: &f64| value.fract() == 0.0 && value.abs() <= MAX_SAFE_INTEGER as f64;
    number
        .as_i64()
        .or_else(|| number.as_f64().filter(whole).map(|value| value as i64))
        .filter(|value| value.unsigned_abs() <= MAX_SAFE_INTEGER.unsigned_abs())
}

/// The integer that a decimal text represents. Parsed digit by digit and not as a float, which
/// would round a different number to the same one.
fn decimal(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let valid = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte == b'0');
    if valid { whole.parse().ok() } else { None }
}

struct Place<'a> {
    schema: &'a Map<String, Value>,
    pointer: String,
    /// The property names that lead here, if the way goes through `properties` alone.
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
        // A list of types cannot mean "or null": the official clients drop such a tool.
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
                // Data and lists of property names: their keys are not keywords.
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
                // Every other keyword, also an unknown one: a `$ref` can point anywhere.
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
/// Its text names the rule, and the place as a JSON pointer into the `inputSchema`.
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

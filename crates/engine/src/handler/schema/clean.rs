//! Rewrites schemas for clients: the same schema, in keywords that all clients can read.
//!
//! Clients validate what a server lists. If they cannot read one tool, they lose the whole list.
//! Arguments and results are checked against the author's own schema; the rewritten schema is only
//! sent.

use std::collections::HashMap;

use serde_json::Value;
use stentor_wire::model::JsonObject;

use super::{MAX_DEPTH, SchemaError};

/// Removes what some clients cannot read: `true` and `false` in the place of a schema object, and
/// formats that validators do not know. The same values fit the schema afterwards.
pub(crate) fn clean(schema: &mut JsonObject) {
    schema.retain(|keyword, value| keyword != "format" || is_known(value));
    for (keyword, value) in schema.iter_mut() {
        match (keyword.as_str(), value) {
            (
                "not" | "if" | "then" | "else" | "contains" | "propertyNames" | "contentSchema"
                | "items",
                value @ (Value::Object(_) | Value::Bool(_)),
            ) => clean_value(value),
            // A boolean is usual here, and no client refuses it.
            (
                "additionalProperties"
                | "additionalItems"
                | "unevaluatedProperties"
                | "unevaluatedItems",
                Value::Object(inner),
            ) => clean(inner),
            ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(schemas)) => {
                schemas.iter_mut().for_each(clean_value);
            }
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas"
                | "dependencies",
                Value::Object(named),
            ) => named.values_mut().for_each(clean_value),
            // Data, or keywords of the author's own.
            _ => {}
        }
    }
}

fn clean_value(schema: &mut Value) {
    match schema {
        Value::Object(schema) => clean(schema),
        Value::Bool(true) => *schema = Value::Object(JsonObject::new()),
        Value::Bool(false) => *schema = serde_json::json!({"not": {}}),
        // In older drafts, `dependencies` may contain lists of names.
        _ => {}
    }
}

/// Whether common validators know a format: those of JSON Schema and OpenAPI that `ajv-formats`
/// has. A strict validator refuses a schema with any other format, such as `uint8` or
/// `partial-time` from schemars.
#[rustfmt::skip]
fn is_known(format: &Value) -> bool {
    matches!(
        format.as_str(),
        Some(
            "date" | "time" | "date-time" | "iso-time" | "iso-date-time" | "duration"
            | "uri" | "uri-reference" | "uri-template" | "url" | "email" | "hostname" | "ipv4" | "ipv6"
            | "regex" | "uuid" | "json-pointer" | "json-pointer-uri-fragment" | "relative-json-pointer"
            | "byte" | "int32" | "int64" | "float" | "double" | "password" | "binary"
        )
    )
}

/// A tool's `inputSchema`. Arguments are an object. Every client requires the root to say so
/// literally, and to have `properties`, even if there are none.
pub(crate) fn input(schema: &JsonObject) -> Result<JsonObject, SchemaError> {
    if !Objects::of(schema).some {
        return Err(SchemaError::NotAnObject);
    }
    let mut descriptor = schema.clone();
    clean(&mut descriptor);
    descriptor.insert("type".to_owned(), "object".into());
    descriptor.entry("properties").or_insert_with(|| JsonObject::new().into());
    Ok(descriptor)
}

pub(crate) fn output(schema: &JsonObject) -> JsonObject {
    let mut descriptor = schema.clone();
    clean(&mut descriptor);
    descriptor
}

/// The `outputSchema` for the legacy era, which allows only schemas of an object whose root says so
/// literally; `None` for any other schema.
pub(crate) fn legacy_output(schema: &JsonObject) -> Option<JsonObject> {
    if !Objects::of(schema).only {
        return None;
    }
    let mut descriptor = schema.clone();
    descriptor.insert("type".to_owned(), "object".into());
    Some(descriptor)
}

/// Whether objects fit a schema, as far as its structure shows.
#[derive(Clone, Copy)]
struct Objects {
    /// Some objects may fit.
    some: bool,
    /// Only objects fit.
    only: bool,
}

impl Objects {
    const ANYTHING: Self = Self { some: true, only: false };

    fn of(schema: &JsonObject) -> Self {
        let root = Value::Object(schema.clone());
        SchemaWalk { root: &root, seen: HashMap::new() }.at(&root, 0)
    }

    fn and(self, other: Self) -> Self {
        Self { some: self.some && other.some, only: self.only || other.only }
    }

    fn or(self, other: Self) -> Self {
        Self { some: self.some || other.some, only: self.only && other.only }
    }
}

/// A walk through a schema and its references. A reference may lead back to itself.
struct SchemaWalk<'a> {
    root: &'a Value,
    seen: HashMap<&'a str, Objects>,
}

impl<'a> SchemaWalk<'a> {
    fn at(&mut self, schema: &'a Value, depth: usize) -> Objects {
        let schema = match schema {
            Value::Bool(false) => return Objects { some: false, only: true },
            Value::Object(schema) if depth < MAX_DEPTH => schema,
            _ => return Objects::ANYTHING,
        };
        let mut found = Objects::ANYTHING;
        for (keyword, value) in schema {
            let says = match (keyword.as_str(), value) {
                ("type", Value::Array(types)) => among(types, |name| name == "object"),
                ("type", name) => among(std::slice::from_ref(name), |name| name == "object"),
                ("const", value) => among(std::slice::from_ref(value), Value::is_object),
                ("enum", Value::Array(values)) => among(values, Value::is_object),
                ("$ref", Value::String(place)) => self.referred(place, depth + 1),
                ("allOf", Value::Array(all)) => {
                    let each = all.iter().map(|schema| self.at(schema, depth + 1));
                    each.fold(Objects::ANYTHING, Objects::and)
                }
                ("anyOf" | "oneOf", Value::Array(any)) => {
                    let each = any.iter().map(|schema| self.at(schema, depth + 1));
                    each.reduce(Objects::or).unwrap_or(Objects::ANYTHING)
                }
                _ => Objects::ANYTHING,
            };
            found = found.and(says);
        }
        found
    }

    fn referred(&mut self, place: &'a str, depth: usize) -> Objects {
        if let Some(known) = self.seen.get(place) {
            return *known;
        }
        // For references to this place from inside it.
        self.seen.insert(place, Objects::ANYTHING);
        let target = place.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        let found = target.map_or(Objects::ANYTHING, |schema| self.at(schema, depth));
        self.seen.insert(place, found);
        found
    }
}

fn among(values: &[Value], is_object: impl Fn(&Value) -> bool) -> Objects {
    Objects { some: values.iter().any(&is_object), only: values.iter().all(is_object) }
}

#[cfg(test)]
mod tests;

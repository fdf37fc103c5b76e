//! The schema of a form: a small subset of JSON Schema (client/elicitation).

use serde_json::Value;
use stentor_wire::model::JsonObject;

use super::{SchemaError, clean, measure};

/// The schema of a form as it is sent to clients.
///
/// # Errors
///
/// If the schema has a field that forms do not allow, because clients refuse the question then; or
/// if it is too large or too deep, or no object fits it.
pub(crate) fn descriptor(schema: &JsonObject) -> Result<JsonObject, SchemaError> {
    measure(&Value::Object(schema.clone()), 0, &mut 0)?;
    let mut form = clean::input(schema)?;
    let fields = form.get_mut("properties").and_then(Value::as_object_mut);
    for (name, field) in fields.into_iter().flatten() {
        match field.as_object_mut().filter(|field| is_field(field)) {
            Some(field) => field.retain(|keyword, value| keyword != "format" || is_known(value)),
            None => return Err(SchemaError::Field(name.clone())),
        }
    }
    Ok(form)
}

/// The first field that versions before 2025-11-25 do not have: a list of choices.
pub(crate) fn list_in(form: &JsonObject) -> Option<&str> {
    let mut fields = form.get("properties").and_then(Value::as_object).into_iter().flatten();
    fields.find(|(_, field)| field["type"] == "array").map(|(name, _)| name.as_str())
}

/// Whether a field is a text, a number, a boolean, or a list of choices. A single choice is a text.
fn is_field(field: &JsonObject) -> bool {
    match field.get("type").and_then(Value::as_str) {
        Some("string" | "number" | "integer" | "boolean") => true,
        Some("array") => field.get("items").is_some_and(|items| {
            let named = |choice: &Value| choice["const"].is_string() && choice["title"].is_string();
            let with_titles = items["anyOf"].as_array().is_some_and(|all| all.iter().all(named));
            let plain =
                items["enum"].as_array().is_some_and(|all| all.iter().all(Value::is_string));
            with_titles || (plain && items["type"] == "string")
        }),
        _ => false,
    }
}

/// Whether the protocol has this format for texts.
fn is_known(format: &Value) -> bool {
    matches!(format.as_str(), Some("email" | "uri" | "date" | "date-time"))
}

/// Splits groups of choices into single choices: schemars puts choices without a description into
/// one `enum`.
pub(super) fn part(choices: &mut Vec<Value>) {
    let split = std::mem::take(choices).into_iter().flat_map(|choice| match choice.get("enum") {
        Some(Value::Array(values)) => {
            values.iter().map(|value| serde_json::json!({"const": value})).collect()
        }
        _ => vec![choice],
    });
    *choices = split.collect();
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde_json::json;

    use super::*;
    use crate::handler::schema::form_schema;

    fn field(schema: Value) -> Result<Value, SchemaError> {
        let form = json!({"type": "object", "properties": {"a": schema}});
        let descriptor = descriptor(form.as_object().expect("an object"))?;
        Ok(descriptor["properties"]["a"].clone())
    }

    #[test]
    fn a_form_is_refused_with_a_field_that_no_client_can_show() {
        for schema in [
            json!({"type": "string", "minLength": 1, "format": "email"}),
            json!({"type": "integer", "minimum": 0}),
            json!({"type": "boolean", "default": true}),
            json!({"type": "string", "enum": ["a"], "enumNames": ["A"]}),
            json!({"type": "string", "oneOf": [{"const": "a", "title": "A"}]}),
            json!({"type": "array", "items": {"type": "string", "enum": ["a"]}}),
            json!({"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}]}}),
        ] {
            assert_eq!(field(schema.clone()), Ok(schema));
        }
        for schema in [
            json!(true),
            json!({}),
            json!({"type": "object"}),
            json!({"type": ["string", "null"]}),
            json!({"type": "array"}),
            json!({"type": "array", "items": {"type": "string"}}),
            json!({"type": "array", "items": {"anyOf": [{"const": "a"}]}}),
            json!({"oneOf": [{"const": "a", "title": "A"}]}),
            json!({"$ref": "#/$defs/a"}),
        ] {
            let refused = Err(SchemaError::Field("a".to_owned()));
            assert_eq!(field(schema.clone()), refused, "{schema}");
        }
        for format in ["uuid", "uint8", "time", "phone"] {
            let schema = json!({"type": "string", "format": format});
            assert_eq!(field(schema), Ok(json!({"type": "string"})));
        }
        let nothing = descriptor(json!({"type": "object"}).as_object().expect("an object"));
        assert_eq!(nothing.expect("a form")["properties"], json!({}));
    }

    #[test]
    fn choices_are_split_if_only_some_have_descriptions() {
        #[derive(JsonSchema)]
        #[allow(dead_code, reason = "only its schema is looked at")]
        enum Level {
            /// Not much
            Low,
            Medium,
            High,
        }
        #[derive(JsonSchema)]
        #[allow(dead_code, reason = "only its schema is looked at")]
        struct Form {
            level: Level,
        }
        let descriptor = descriptor(&form_schema::<Form>()).expect("a form");
        let choices = descriptor["properties"]["level"]["oneOf"].as_array().expect("choices");
        for (name, title) in [("Low", "Not much"), ("Medium", "Medium"), ("High", "High")] {
            assert!(choices.contains(&json!({"const": name, "title": title})), "{choices:?}");
        }
        assert_eq!(choices.len(), 3);
    }
}

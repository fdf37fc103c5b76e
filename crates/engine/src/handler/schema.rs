//! JSON Schema: generated from types, checked when an item is registered, and applied to arguments
//! before the author's code runs.

mod check;
pub(crate) mod clean;
pub(crate) mod form;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use stentor_wire::model::JsonObject;

pub use check::ArgumentProblem;
pub(crate) use check::InputSchema;

/// Schemas deeper than this are refused.
const MAX_DEPTH: usize = 64;
/// Schemas with more members and items than this are refused.
const MAX_NODES: usize = 16_384;

/// Why a schema is refused (2026-07-28, basic/index, "JSON Schema Usage").
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The schema is invalid in its dialect, or has a `$ref` to another document.
    #[error("{0}")]
    Invalid(String),
    /// The schema uses a dialect that is not supported.
    #[error("the dialect '{0}' is not supported; 2020-12, 2019-09 and drafts 4, 6 and 7 are")]
    Dialect(String),
    /// The schema is too deep.
    #[error("the schema is more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// The schema is too large.
    #[error("the schema has more than {MAX_NODES} members and items")]
    TooLarge,
    /// A tool takes an object, but no object fits the schema.
    #[error("the schema must have \"type\": \"object\"")]
    NotAnObject,
    /// A URI template is invalid, or no URI can match it.
    #[error(transparent)]
    Template(#[from] super::TemplateError),
    /// The function of a template requires a variable that the template does not have.
    #[error("its function requires the variable '{0}', which the URI template does not have")]
    Variable(String),
    /// A form has a field that clients cannot show.
    #[error(
        "a form cannot have the field '{0}': its fields are texts, numbers, booleans and choices"
    )]
    Field(String),
    /// An `x-mcp-header` is in the wrong place or has a wrong value.
    #[error(transparent)]
    Header(#[from] stentor_wire::headers::ParamHeaderError),
}

/// The dialect that a schema names; 2020-12 if it names none.
fn dialect(schema: &Value) -> Result<jsonschema::Draft, SchemaError> {
    use jsonschema::Draft;
    let Some(named) = schema.get("$schema") else { return Ok(Draft::Draft202012) };
    let named = named.as_str().unwrap_or_default();
    Ok(
        match named
            .trim_end_matches('#')
            .trim_start_matches("https://")
            .trim_start_matches("http://")
        {
            "json-schema.org/draft/2020-12/schema" => Draft::Draft202012,
            "json-schema.org/draft/2019-09/schema" => Draft::Draft201909,
            "json-schema.org/draft-07/schema" => Draft::Draft7,
            "json-schema.org/draft-06/schema" => Draft::Draft6,
            "json-schema.org/draft-04/schema" => Draft::Draft4,
            _ => return Err(SchemaError::Dialect(named.to_owned())),
        },
    )
}

fn measure(value: &Value, depth: usize, nodes: &mut usize) -> Result<(), SchemaError> {
    if depth > MAX_DEPTH {
        return Err(SchemaError::TooDeep);
    }
    let mut below = |child: &Value| {
        *nodes += 1;
        if *nodes > MAX_NODES {
            Err(SchemaError::TooLarge)
        } else {
            measure(child, depth + 1, nodes)
        }
    };
    match value {
        Value::Object(map) => map.values().try_for_each(&mut below),
        Value::Array(items) => items.iter().try_for_each(&mut below),
        _ => Ok(()),
    }
}

/// The schema of a type: 2020-12, without references to other documents.
pub(crate) fn of_type<T: JsonSchema>() -> JsonObject {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let object = schema.ensure_object();
    object.remove("title");
    object.clone()
}

/// The schema of a form: flat, because the protocol allows no references in forms.
pub(crate) fn form_schema<T: JsonSchema>() -> JsonObject {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    let object = schema.ensure_object();
    object.remove("title");
    if let Some(Value::Object(fields)) = object.get_mut("properties") {
        fields.values_mut().for_each(simplify_field);
    }
    object.clone()
}

/// Rewrites a field for a form (client/elicitation): an optional field has its plain type, choices
/// have titles, and number formats are left out.
fn simplify_field(field: &mut Value) {
    let Value::Object(field) = field else { return };
    if let Some(Value::Array(types)) = field.get("type")
        && let [only] =
            &types.iter().filter(|name| *name != "null").cloned().collect::<Vec<_>>()[..]
    {
        field.insert("type".to_owned(), only.clone());
    }
    if let Some(Value::Array(variants)) = field.get("anyOf") {
        let present: Vec<_> =
            variants.iter().filter(|variant| variant.get("type") != Some(&"null".into())).collect();
        if let [Value::Object(only)] = &present[..] {
            let only = (*only).clone();
            field.remove("anyOf");
            field.extend(only);
        }
    }
    if field.get("type").is_some_and(|name| name == "integer" || name == "number") {
        field.remove("format");
    }
    if let Some(Value::Array(choices)) = field.get_mut("oneOf") {
        form::part(choices);
        for choice in choices.iter_mut().filter_map(Value::as_object_mut) {
            choice.remove("type");
            let title = choice.remove("title").or_else(|| choice.remove("description"));
            choice.remove("description");
            let title = title.or_else(|| choice.get("const").cloned());
            choice.extend(title.map(|title| ("title".to_owned(), title)));
        }
        field.insert("type".to_owned(), "string".into());
    }
    if let Some(items) = field.get_mut("items") {
        simplify_field(items);
        // Several choices with titles are written with `anyOf`.
        if let Some(choices) = items.as_object_mut().and_then(|items| items.remove("oneOf")) {
            *items = serde_json::json!({ "anyOf": choices });
        }
    }
    if field.get("default") == Some(&Value::Null) {
        field.remove("default");
    }
}

pub(crate) fn no_arguments() -> JsonObject {
    JsonObject::from_iter([
        ("type".to_owned(), Value::from("object")),
        ("properties".to_owned(), JsonObject::new().into()),
        ("additionalProperties".to_owned(), Value::from(false)),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compile(schema: Value) -> Result<InputSchema, SchemaError> {
        let Value::Object(schema) = schema else { panic!("no object") };
        InputSchema::compile(&schema)
    }

    #[test]
    fn a_form_schema_has_only_what_the_protocol_allows() {
        #[derive(JsonSchema)]
        #[allow(dead_code, reason = "only its schema is looked at")]
        struct Form {
            name: String,
            nick: Option<String>,
            age: u8,
            color: Color,
            maybe: Option<Color>,
            several: Vec<Color>,
        }
        #[derive(JsonSchema)]
        #[allow(dead_code, reason = "only its schema is looked at")]
        enum Color {
            /// Like blood
            Red,
            /// Like the sky
            Blue,
        }
        let form = Value::Object(form_schema::<Form>());
        let fields = &form["properties"];
        assert_eq!(fields["nick"], json!({"type": "string"}));
        assert_eq!(fields["age"]["type"], "integer");
        assert_eq!(fields["age"].get("format"), None);
        let choices = json!([
            {"const": "Red", "title": "Like blood"}, {"const": "Blue", "title": "Like the sky"},
        ]);
        assert_eq!(fields["color"], json!({"type": "string", "oneOf": choices}));
        assert_eq!(fields["maybe"], json!({"type": "string", "oneOf": choices}));
        assert_eq!(fields["several"], json!({"type": "array", "items": {"anyOf": choices}}));
    }

    #[test]
    fn a_reference_to_another_document_is_refused_and_not_fetched() {
        for reference in ["https://example.com/s.json", "file:///etc/passwd", "other.json"] {
            let schema = json!({"type": "object", "properties": {"a": {"$ref": reference}}});
            assert!(matches!(compile(schema), Err(SchemaError::Invalid(_))), "{reference}");
        }
        assert!(
            compile(json!({"$defs": {"a": {}}, "properties": {"a": {"$ref": "#/$defs/a"}}}))
                .is_ok()
        );
    }

    #[test]
    fn other_dialects_work_by_name_and_unknown_ones_are_refused() {
        let draft7 =
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"});
        assert!(compile(draft7).is_ok());
        assert!(compile(json!({"$schema": "https://example.com/my-dialect"})).is_err());
        assert!(compile(json!({"type": "nonsense"})).is_err());
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let deep = (0..100).fold(json!({}), |inner, _| json!({"not": inner}));
        assert!(matches!(compile(deep), Err(SchemaError::TooDeep)));
        let wide = json!({"enum": (0..20_000).collect::<Vec<_>>()});
        assert!(matches!(compile(wide), Err(SchemaError::TooLarge)));
    }
}

//! Checks values against a schema: quickly if they fit. If they do not, returns the first few
//! problems, at a bounded cost.

use std::fmt;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;
use stentor_wire::bounds::shortened;
use stentor_wire::model::JsonObject;

use super::{SchemaError, dialect, measure};

/// A model needs a few problems to correct its call, not all of them.
const MAX_PROBLEMS: usize = 8;

/// The validator collects all problems before it returns the first. It may do so for a value that
/// contains at most so many values; a larger one is cut down before.
const MAX_COLLECTED: usize = 1_000;

/// In a large value, so many items of each array are checked.
const ITEMS_OF_LARGE: usize = 8;

/// Strings of more bytes are not repeated in a problem.
const MAX_REPEATED: usize = 80;

/// One problem with the arguments of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArgumentProblem {
    /// The place, as a JSON pointer into the arguments; empty for the arguments themselves. A long
    /// pointer is cut.
    pub path: String,
    /// What is wrong. Long values are not repeated.
    pub message: String,
    /// The violated rule, as a JSON pointer into the schema.
    pub rule: String,
}

impl fmt::Display for ArgumentProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        write!(f, "at {path}: {} (rule {})", self.message, self.rule)
    }
}

impl From<ValidationError<'_>> for ArgumentProblem {
    fn from(error: ValidationError<'_>) -> Self {
        let is_long = match error.instance().as_ref() {
            Value::String(text) => text.len() > MAX_REPEATED,
            Value::Array(items) => !items.is_empty(),
            Value::Object(members) => !members.is_empty(),
            _ => false,
        };
        let names_members = matches!(
            error.kind(),
            ValidationErrorKind::AdditionalProperties { .. }
                | ValidationErrorKind::UnevaluatedProperties { .. }
                | ValidationErrorKind::Required { .. }
        );
        let message = match is_long && !names_members {
            true => shortened(error.masked_with("the value")),
            false => shortened(&error),
        };
        Self {
            path: shortened(error.instance_path()),
            message,
            rule: shortened(error.schema_path()),
        }
    }
}

pub(crate) struct InputSchema {
    validator: Validator,
    /// Whether the validator can find the first problem alone. In a schema with choices, it
    /// collects all problems with each choice.
    names_first: bool,
}

impl fmt::Debug for InputSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InputSchema")
    }
}

impl InputSchema {
    /// Compiles a schema. A `$ref` to another document is an error: nothing is fetched.
    pub(crate) fn compile(schema: &JsonObject) -> Result<Self, SchemaError> {
        let schema = Value::Object(schema.clone());
        let mut nodes = 0;
        measure(&schema, 0, &mut nodes)?;
        let validator =
            jsonschema::options().offline().with_draft(dialect(&schema)?).build(&schema).map_err(
                |error| SchemaError::Invalid(format!("{error} (at {})", error.instance_path())),
            )?;
        Ok(Self { validator, names_first: !has_choices(&schema) })
    }

    /// The first few problems with `value`; empty if it fits.
    pub(crate) fn problems(&self, value: &Value) -> Vec<ArgumentProblem> {
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        if count(value, MAX_COLLECTED) <= MAX_COLLECTED {
            return self.first_of(value);
        }
        if self.names_first {
            return self.validator.validate(value).err().map(Into::into).into_iter().collect();
        }
        let part = first_items(value);
        let mut problems = match count(&part, MAX_COLLECTED) <= MAX_COLLECTED {
            true => self.first_of(&part),
            false => Vec::new(),
        };
        if problems.is_empty() {
            problems.push(ArgumentProblem {
                path: String::new(),
                message: "the value does not fit; it is too large to say where".to_owned(),
                rule: "/".to_owned(),
            });
        }
        problems
    }

    fn first_of(&self, value: &Value) -> Vec<ArgumentProblem> {
        self.validator.iter_errors(value).take(MAX_PROBLEMS).map(Into::into).collect()
    }
}

fn has_choices(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| matches!(&**name, "anyOf" | "oneOf") || has_choices(value)),
        Value::Array(items) => items.iter().any(has_choices),
        _ => false,
    }
}

/// How many values `value` contains, itself included. Stops at one more than `most`.
fn count(value: &Value, most: usize) -> usize {
    let mut count = 1;
    let mut add = |value: &Value| {
        count += self::count(value, most.saturating_sub(count));
        count > most
    };
    match value {
        _ if most == 0 => {}
        Value::Array(items) => drop(items.iter().any(&mut add)),
        Value::Object(members) => drop(members.values().any(&mut add)),
        _ => {}
    }
    count
}

fn first_items(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().take(ITEMS_OF_LARGE).map(first_items).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), first_items(value)))
            .collect::<JsonObject>()
            .into(),
        value => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compile(schema: Value) -> InputSchema {
        let Value::Object(schema) = schema else { panic!("no object") };
        InputSchema::compile(&schema).unwrap()
    }

    #[test]
    fn a_problem_names_the_path_and_the_rule() {
        let schema = compile(json!({
            "type": "object",
            "properties": {"items": {"type": "array", "items": {"type": "integer"}}},
            "required": ["items"],
        }));
        assert_eq!(schema.problems(&json!({"items": [1]})), []);
        let problems = schema.problems(&json!({"items": [1, "a"]}));
        assert_eq!(problems[0].path, "/items/1");
        assert_eq!(problems[0].rule, "/properties/items/items/type");
        assert!(schema.problems(&json!({}))[0].message.contains("items"));
    }

    #[test]
    fn a_large_value_has_one_problem_that_names_its_path() {
        let mut items = vec![json!("a"); 50_000];
        items[49_000] = json!(1);
        let schema = compile(json!({"properties": {"items": {"items": {"type": "string"}}}}));
        let problems = schema.problems(&json!({ "items": items }));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].path, "/items/49000");
    }

    #[test]
    fn a_large_value_is_checked_against_choices_at_a_bounded_cost() {
        let schema = compile(json!({"properties": {"items": {"anyOf": [
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "boolean"}]}},
            {"type": "null"},
        ]}}}));
        let wrong = vec![json!(0); 50_000];
        let problems = schema.problems(&json!({ "items": wrong }));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].path, "/items");
        let mut late = vec![json!("a"); 50_000];
        late[49_000] = json!(0);
        let problems = schema.problems(&json!({ "items": late }));
        assert!(problems[0].message.contains("too large to say where"), "{problems:?}");
        let many: JsonObject = (0..50_000).map(|n| (n.to_string(), json!(0))).collect();
        assert_eq!(schema.problems(&json!({ "items": many })).len(), 1);
    }

    #[test]
    fn no_problem_repeats_a_long_value() {
        let long = "x".repeat(1 << 20);
        let schema = compile(json!({
            "type": "object",
            "properties": {
                "a": {"type": "integer"}, "b": {"enum": ["y"]}, "c": {"const": 1},
                "d": {"pattern": "y"}, "e": {"format": "uri"}, "f": {"type": "string"},
                "g": {"items": {"type": "integer"}}, "h": {"propertyNames": {"maxLength": 3}},
                "i": {"not": {}}, "j": {"maxLength": 3}, "k": {"anyOf": [{"type": "null"}]},
                "l": {"uniqueItems": true}, "m": {"contains": {"type": "null"}},
                "n": {"additionalProperties": {"type": "null"}},
            },
            "additionalProperties": false,
        }));
        let around = |name: &str| match name {
            "f" | "g" | "m" => json!([long]),
            "l" => json!([long, long]),
            "h" | "n" => json!({ (long.as_str()): 1 }),
            _ => json!(long),
        };
        for name in ["a", "b", "c", "d", "f", "g", "h", "i", "j", "k", "l", "m", "n", &long] {
            let problems = schema.problems(&json!({ (name): around(name) }));
            let length: usize = problems.iter().map(|problem| problem.to_string().len()).sum();
            assert!((1..2_000).contains(&length), "{}: {length}", &name[..1]);
        }
    }
}

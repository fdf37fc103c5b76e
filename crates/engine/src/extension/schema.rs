//! JSON Schemas of what an extension takes and gives.

use schemars::JsonSchema;
use serde_json::Value;
use stentor_wire::model::JsonObject;

use crate::handler::SchemaError;
use crate::handler::schema::{InputSchema, of_type};

/// The most problems that an error names.
const NAMED: usize = 3;

/// A JSON Schema, compiled.
#[derive(Debug)]
pub struct Schema {
    object: JsonObject,
    compiled: InputSchema,
}

impl Schema {
    /// The schema of a type. A type that is no object, such as `()`, counts as an object with any
    /// members.
    ///
    /// # Errors
    ///
    /// If the schema is invalid.
    pub fn of<T: JsonSchema>() -> Result<Self, SchemaError> {
        let mut object = of_type::<T>();
        if object.get("type") != Some(&Value::from("object")) && !object.contains_key("$ref") {
            object.clear();
            object.insert("type".to_owned(), "object".into());
        }
        Self::new(object)
    }

    /// Compiles a schema.
    ///
    /// # Errors
    ///
    /// If it is invalid, too large, or has a `$ref` to another document.
    pub fn new(object: JsonObject) -> Result<Self, SchemaError> {
        Ok(Self { compiled: InputSchema::compile(&object)?, object })
    }

    /// The schema as JSON.
    #[must_use]
    pub fn object(&self) -> &JsonObject {
        &self.object
    }

    /// Checks a value.
    ///
    /// # Errors
    ///
    /// The first problems, as a text of bounded length.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let problems = self.compiled.problems(value);
        if problems.is_empty() {
            return Ok(());
        }
        let named: Vec<_> = problems.iter().take(NAMED).map(ToString::to_string).collect();
        Err(named.join("; "))
    }
}

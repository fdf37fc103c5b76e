//! What a change of a type means for those who subscribe to it. Pure.

use serde_json::{Map, Value};

/// Members that say nothing about which values fit.
const NOTES: [&str; 5] = ["title", "description", "examples", "default", "$comment"];

/// What a change of a schema means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchemaChange {
    /// Nothing that matters.
    None,
    /// Optional properties were added.
    Additive,
    Breaking,
}

/// Compares two schemas.
pub(crate) fn changed(old: &Map<String, Value>, new: &Map<String, Value>) -> SchemaChange {
    let mut added = false;
    match grows(old, new, &mut added) {
        false => SchemaChange::Breaking,
        true if added => SchemaChange::Additive,
        true => SchemaChange::None,
    }
}

/// Whether all of the old schema is in the new one, which has nothing more but optional properties.
fn grows(old: &Map<String, Value>, new: &Map<String, Value>, added: &mut bool) -> bool {
    let matters = |(name, _): &(&String, &Value)| !NOTES.contains(&&***name);
    let known = |map: &Map<String, Value>, name: &str| map.contains_key(name);
    if new.iter().filter(matters).any(|(name, _)| !known(old, name) && name != "properties") {
        return false;
    }
    let none = Value::Object(Map::new());
    let properties = old.get("properties").unwrap_or(&none);
    let others = old.iter().filter(matters).filter(|(name, _)| **name != "properties");
    let all = others.map(|(name, before)| (&**name, before)).chain([("properties", properties)]);
    let mut all = all.map(|(name, before)| (name, before, new.get(name)));
    all.all(|(name, before, after)| match (name, before, after) {
        ("properties", Value::Object(before), None) => before.is_empty(),
        (_, _, None) => false,
        ("properties", Value::Object(before), Some(Value::Object(after))) => {
            let required = new.get("required").and_then(Value::as_array);
            let is_required =
                |name: &str| required.is_some_and(|all| all.iter().any(|it| it == name));
            let fresh = after.keys().filter(|name| !before.contains_key(*name));
            let fresh: Vec<_> = fresh.collect();
            *added |= !fresh.is_empty();
            !fresh.iter().any(|name| is_required(name))
                && before.iter().all(|(name, before)| match (before, after.get(name)) {
                    (Value::Object(before), Some(Value::Object(after))) => {
                        grows(before, after, added)
                    }
                    (before, Some(after)) => before == after,
                    (_, None) => false,
                })
        }
        (_, Value::Object(before), Some(Value::Object(after))) => grows(before, after, added),
        (_, before, Some(after)) => before == after,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(old: Value, new: Value) -> SchemaChange {
        let (Value::Object(old), Value::Object(new)) = (old, new) else { panic!("no objects") };
        changed(&old, &new)
    }

    #[test]
    fn what_a_change_means() {
        let text = || json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let noted = json!({
            "type": "object", "title": "T",
            "properties": {"a": {"type": "string", "description": "d"}},
        });
        assert_eq!(of(text(), noted), SchemaChange::None);
        let more = json!({
            "type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "number"}},
        });
        assert_eq!(of(text(), more.clone()), SchemaChange::Additive);
        assert_eq!(of(json!({"type": "object"}), text()), SchemaChange::Additive);
        let mut required = more.clone();
        required["required"] = json!(["b"]);
        assert_eq!(of(text(), required), SchemaChange::Breaking);
        assert_eq!(of(more, text()), SchemaChange::Breaking);
        let number = json!({"type": "object", "properties": {"a": {"type": "number"}}});
        assert_eq!(of(text(), number), SchemaChange::Breaking);
        let closed = json!({
            "type": "object", "properties": {"a": {"type": "string"}},
            "additionalProperties": false,
        });
        assert_eq!(of(text(), closed), SchemaChange::Breaking);
    }
}

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::handler::schema::InputSchema;

fn object(value: Value) -> JsonObject {
    let Value::Object(object) = value else { panic!("no object: {value}") };
    object
}

fn cleaned(schema: Value) -> Value {
    let mut schema = object(schema);
    clean(&mut schema);
    schema.into()
}

#[test]
fn a_boolean_is_written_as_an_object_wherever_a_schema_stands() {
    let (all, none) = (json!({}), json!({"not": {}}));
    for keyword in
        ["not", "if", "then", "else", "contains", "propertyNames", "contentSchema", "items"]
    {
        assert_eq!(cleaned(json!({keyword: true})), json!({keyword: all}), "{keyword}");
        assert_eq!(cleaned(json!({keyword: false})), json!({keyword: none}), "{keyword}");
        assert_eq!(cleaned(json!({keyword: {keyword: true}})), json!({keyword: {keyword: all}}));
    }
    for keyword in ["allOf", "anyOf", "oneOf", "prefixItems", "items"] {
        let found = cleaned(json!({keyword: [true, {keyword: [false]}]}));
        assert_eq!(found, json!({keyword: [all, {keyword: [none]}]}), "{keyword}");
    }
    for keyword in [
        "properties",
        "patternProperties",
        "$defs",
        "definitions",
        "dependentSchemas",
        "dependencies",
    ] {
        let found = cleaned(json!({keyword: {"a": true, "b": {keyword: {"c": false}}}}));
        assert_eq!(found, json!({keyword: {"a": all, "b": {keyword: {"c": none}}}}), "{keyword}");
    }
    for keyword in
        ["additionalProperties", "additionalItems", "unevaluatedProperties", "unevaluatedItems"]
    {
        for closed in [true, false] {
            assert_eq!(cleaned(json!({keyword: closed})), json!({keyword: closed}));
        }
        let found = cleaned(json!({keyword: {"not": true}}));
        assert_eq!(found, json!({keyword: {"not": all}}), "{keyword}");
    }
}

#[test]
fn a_format_that_validators_do_not_know_is_left_out_at_every_depth() {
    for unknown in [
        "uint",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "uint128",
        "int",
        "int8",
        "int16",
        "int128",
        "ip",
        "partial-time",
        "partial-date-time",
        "zoned-date-time",
        "phone",
    ] {
        let schema = json!({
            "format": unknown,
            "properties": {"a": {"items": {"format": unknown, "minimum": 0}}},
            "$defs": {"b": {"anyOf": [{"format": unknown}, {"format": "date-time"}]}},
            "additionalProperties": {"format": unknown},
        });
        let expected = json!({
            "properties": {"a": {"items": {"minimum": 0}}},
            "$defs": {"b": {"anyOf": [{}, {"format": "date-time"}]}},
            "additionalProperties": {},
        });
        assert_eq!(cleaned(schema), expected);
    }
}

#[test]
fn data_and_property_names_are_not_rewritten_as_schemas() {
    let schema = json!({
        "type": "object",
        // Properties with the names of keywords.
        "properties": {"format": {"type": "string"}, "items": {"const": {"format": "uint8"}}},
        "required": ["format"],
        "default": {"not": true, "format": "uint8"},
        "examples": [{"items": false}],
        "enum": [{"properties": {"x": true}}, {"format": "uint8"}],
        "x-own": {"format": "uint8", "items": true},
        "uniqueItems": true,
        "dependentRequired": {"format": ["items"]},
        "dependencies": {"a": ["b"]},
    });
    let written = serde_json::to_string(&cleaned(schema.clone())).unwrap();
    assert_eq!(written, serde_json::to_string(&schema).unwrap());
}

#[test]
fn an_input_schema_is_an_object_with_properties_or_is_refused() {
    for (schema, descriptor) in [
        (json!({}), json!({"type": "object", "properties": {}})),
        (json!({"type": "object"}), json!({"type": "object", "properties": {}})),
        (json!({"type": ["null", "object"]}), json!({"type": "object", "properties": {}})),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}, "type": "object",
                "properties": {}}),
        ),
        (
            json!({"oneOf": [{"const": "a"}, {"type": "object"}], "properties": {"x": true}}),
            json!({"oneOf": [{"const": "a"}, {"type": "object"}], "properties": {"x": {}},
                "type": "object"}),
        ),
        // A schema that refers to itself.
        (
            json!({"anyOf": [{"$ref": "#"}, {"type": "object"}]}),
            json!({"anyOf": [{"$ref": "#"}, {"type": "object"}], "type": "object",
                "properties": {}}),
        ),
    ] {
        assert_eq!(input(&object(schema.clone())).map(Value::from), Ok(descriptor), "{schema}");
    }
    for schema in [
        json!({"type": "string"}),
        json!({"type": ["array", "null"]}),
        json!({"const": 1}),
        json!({"enum": ["a", "b"]}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array"}}}),
        json!({"oneOf": [{"const": "a"}, {"type": "null"}]}),
        json!({"type": "object", "allOf": [{"type": "integer"}]}),
        json!({"allOf": [true, false]}),
    ] {
        assert_eq!(input(&object(schema.clone())), Err(SchemaError::NotAnObject), "{schema}");
    }
}

#[test]
fn legacy_clients_receive_an_output_schema_only_for_results_that_are_objects() {
    let descriptor = |schema: Value| legacy_output(&object(schema)).map(Value::from);
    for schema in [
        json!({"type": "object", "properties": {"a": {}}}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}),
        json!({"oneOf": [{"type": "object"}, {"$ref": "#/$defs/a"}],
            "$defs": {"a": {"allOf": [{}, {"type": "object"}]}}}),
        json!({"enum": [{"a": 1}, {}]}),
    ] {
        let mut expected = object(schema.clone());
        expected.insert("type".to_owned(), "object".into());
        assert_eq!(descriptor(schema), Some(expected.into()));
    }
    for schema in [
        json!({}),
        json!({"type": "array"}),
        json!({"type": ["object", "null"]}),
        json!({"anyOf": [{"type": "object"}, {"type": "null"}]}),
        json!({"oneOf": [{"type": "object"}, {"const": "a"}]}),
        json!({"$ref": "#/$defs/nowhere"}),
        json!({"$ref": "#"}),
        json!({"enum": [{}, 1]}),
    ] {
        assert_eq!(descriptor(schema.clone()), None, "{schema}");
    }
}

#[test]
fn a_schema_with_many_references_to_itself_is_checked_quickly() {
    let many = vec![json!({"$ref": "#"}); 10_000];
    assert_eq!(legacy_output(&object(json!({"anyOf": many}))), None);
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..3).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-c]", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn schemas() -> impl Strategy<Value = Value> {
    let types = ["object", "array", "string", "integer", "null", "boolean"];
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        proptest::sample::select(types.to_vec()).prop_map(|name| json!({"type": name})),
        values().prop_map(|value| json!({"const": value})),
        Just(json!({"format": "uint8"})),
    ];
    leaf.prop_recursive(3, 24, 3, |inner| {
        let one = ["not", "if", "then", "else", "contains", "items", "additionalProperties"];
        let list = ["allOf", "anyOf", "oneOf", "prefixItems"];
        let part = prop_oneof![
            (proptest::sample::select(one.to_vec()), inner.clone())
                .prop_map(|(keyword, schema)| json!({keyword: schema})),
            (
                proptest::sample::select(list.to_vec()),
                proptest::collection::vec(inner.clone(), 1..3)
            )
                .prop_map(|(keyword, schemas)| json!({keyword: schemas})),
            proptest::collection::btree_map("[a-c]", inner, 0..3)
                .prop_map(|named| json!({"properties": named})),
        ];
        proptest::collection::vec(part, 1..4)
            .prop_map(|parts| Value::Object(parts.into_iter().flat_map(object).collect()))
    })
}

proptest! {
    #[test]
    fn the_same_values_fit_a_schema_as_it_is_told(
        schema in schemas().prop_filter("an object", Value::is_object),
        values in proptest::collection::vec(values(), 8),
    ) {
        let author = InputSchema::compile(&object(schema.clone())).unwrap();
        let descriptor = cleaned(schema.clone());
        prop_assert_eq!(&cleaned(descriptor.clone()), &descriptor);
        let descriptor = InputSchema::compile(&object(descriptor)).unwrap();
        let (fits, legacy) = (Objects::of(&object(schema.clone())), legacy_output(&object(schema)));
        let legacy = legacy.map(|schema| InputSchema::compile(&schema).unwrap());
        for value in values {
            let fit = author.problems(&value).is_empty();
            prop_assert_eq!(descriptor.problems(&value).is_empty(), fit, "{}", value);
            // `Objects` is right for this value.
            prop_assert!(!fit || !value.is_object() || fits.some, "{}", value);
            prop_assert!(!fit || value.is_object() || !fits.only, "{}", value);
            if let Some(legacy) = &legacy {
                prop_assert_eq!(legacy.problems(&value).is_empty(), fit, "{}", value);
            }
        }
    }
}

//! Annotations of a schema, and headers that agree with a call's arguments.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::headers::ParamHeaders;
use crate::headers::param_headers::MAX_SAFE_INTEGER;

fn schema(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn params(value: Value) -> Result<ParamHeaders, String> {
    ParamHeaders::from_schema(&schema(value)).map_err(|error| error.to_string())
}

fn check(params: &ParamHeaders, arguments: Value, headers: &[(&str, &str)]) -> Result<(), String> {
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
    assert_eq!(broken(annotated(json!(""))), "x-mcp-header at #/properties/a~1b must not be empty");
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
            check(&params, json!({ "count": value }), &[("mcp-param-count", shown)]).unwrap_err(),
            format!(
                "header mismatch: Mcp-Param-Count header value '{shown}' cannot match body \
                 value '{shown}', which is not a string, a boolean or an integer from \
                 -(2^53-1) to 2^53-1"
            )
        );
    }
}

#[test]
fn a_deep_schema_causes_no_deep_recursion() {
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
    fn no_schema_and_no_call_panic(
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

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn server() -> ServerIdentity {
    ServerIdentity::new(Implementation::new("s", "1"))
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)))
}

fn answered(era: Era, result: &ResultBody) -> Value {
    parsed(&response(&Id::Number(1), era, &server(), result))["result"].take()
}

#[test]
fn a_legacy_result_has_no_modern_members() {
    let result = ResultBody::new(&json!({"content": []})).unwrap().with_cache(CacheHint::default());
    assert_eq!(answered(Era::Legacy, &result), json!({"content": []}));
    assert_eq!(answered(Era::Legacy, &ResultBody::empty()), json!({}));
}

#[test]
fn a_modern_result_names_its_type_its_server_and_its_lifetime() {
    let result = ResultBody::new(&json!({"tools": []})).unwrap().with_cache(CacheHint::default());
    assert_eq!(
        answered(Era::Modern, &result),
        json!({
            "resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": [],
            "_meta": {meta_key::SERVER_INFO: {"name": "s", "version": "1"}},
        })
    );
}

#[test]
fn a_results_own_meta_passes_through_in_both_eras() {
    let own = JsonObject::from_iter([("com.example/x".to_owned(), json!([1]))]);
    let result = ResultBody::empty().with_meta(Some(own));
    assert_eq!(answered(Era::Legacy, &result), json!({"_meta": {"com.example/x": [1]}}));
    let modern = answered(Era::Modern, &result);
    assert_eq!(modern["_meta"]["com.example/x"], json!([1]));
    assert_eq!(modern["_meta"][meta_key::SERVER_INFO]["name"], "s");
}

#[test]
fn a_result_that_is_no_object_is_refused() {
    assert_eq!(ResultBody::new(&json!([1])).unwrap_err().code, crate::code::INTERNAL_ERROR);
    assert!(ResultBody::from_json("7").is_none());
}

#[test]
fn questions_are_sent_in_a_result_or_as_requests() {
    let question = Question { method: crate::request::ELICIT, params: json!({"message": "?"}) };
    let asked = input_required(&Id::Number(1), &server(), [("name", &question)], Some("state"));
    let result = parsed(&asked)["result"].take();
    assert_eq!(result["resultType"], "input_required");
    assert_eq!(result["requestState"], "state");
    let inside = json!({"method": "elicitation/create", "params": {"message": "?"}});
    assert_eq!(result["inputRequests"], json!({"name": inside}));
    let mut legacy = inside;
    legacy["jsonrpc"] = "2.0".into();
    legacy["id"] = 5.into();
    assert_eq!(parsed(&request(&Id::Number(5), &question)), legacy);
}

#[test]
fn an_error_without_a_readable_id_has_none() {
    let object = ErrorObject::method_not_found("x/y");
    assert_eq!(
        parsed(&error(None, &object)),
        json!({"jsonrpc":"2.0","error":{"code":-32601,"message":"method not found: x/y"}})
    );
}

#[test]
fn the_end_of_a_listen_names_its_subscription() {
    let ended = parsed(&listen_ended(&Id::Text("a".into()), &server()));
    assert_eq!(ended["id"], "a");
    assert_eq!(ended["result"]["resultType"], "complete");
    assert_eq!(ended["result"]["_meta"][meta_key::SUBSCRIPTION_ID], "a");
}

#[test]
fn an_acknowledgment_names_only_what_was_granted() {
    let granted: NoticeFilter = serde_json::from_str(r#"{"toolsListChanged":true}"#).unwrap();
    let id = SubscriptionId::of(&Id::Number(2));
    assert_eq!(
        parsed(&acknowledged(&id, &granted))["params"],
        json!({"_meta": {meta_key::SUBSCRIPTION_ID: 2}, "notifications": {"toolsListChanged": true}})
    );
}

proptest! {
    #[test]
    fn progress_is_json_with_what_was_reported(
        token in ".*", value in -1e300..1e300f64, total in proptest::option::of(0.0..1e300f64), message in ".*",
    ) {
        let mut out = BytesMut::new();
        let token = Id::Text(token.into());
        progress(&mut out, &token, value, total, &message);
        let params = parsed(&out)["params"].take();
        prop_assert_eq!(&params["progressToken"], &serde_json::to_value(&token).unwrap());
        prop_assert_eq!(params["progress"].as_f64(), Some(value));
        prop_assert_eq!(params.get("total").and_then(Value::as_f64), total);
        prop_assert_eq!(params.get("message").and_then(Value::as_str).unwrap_or(""), message);
    }

    #[test]
    fn a_log_message_is_one_line_of_json(data in ".*", logger in proptest::option::of(".*")) {
        let out = log(LogLevel::Info, logger.as_deref(), &data);
        prop_assert!(!out.contains(&b'\n'));
        let params = parsed(&out)["params"].take();
        prop_assert_eq!(params["data"].as_str(), Some(&*data));
        prop_assert_eq!(params.get("logger").and_then(Value::as_str), logger.as_deref());
    }
}

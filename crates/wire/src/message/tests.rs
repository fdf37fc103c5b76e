use proptest::prelude::*;

use super::*;

fn decode(text: &str) -> Result<Message, DecodeError> {
    Message::decode(&Bytes::copy_from_slice(text.as_bytes()))
}

fn refused(text: &str) -> (i32, Option<Id>) {
    let error = decode(text).expect_err(text);
    (error.code, error.id)
}

#[test]
fn a_request_keeps_the_type_of_its_id_and_its_raw_params() {
    let text =
        r#"{"jsonrpc":"2.0","id":"7","method":"tools/call","params":{"name":"x", "n":1.50}}"#;
    let Ok(Message::Request(request)) = decode(text) else { panic!("no request") };
    assert_eq!(request.id, Id::Text("7".into()));
    assert_eq!(request.method, Method::ToolsCall);
    assert_eq!(request.params.as_json(), br#"{"name":"x", "n":1.50}"#);
    assert_eq!(request.id.to_json(), "\"7\"");
}

#[test]
fn a_request_with_invalid_meta_or_members_is_refused_with_its_id() {
    for params in
        [r#"{"_meta":[]}"#, r#"{"_meta":{"progressToken":{}}}"#, r#"{"name":"a","name":"b"}"#]
    {
        let text = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{params}}}"#);
        assert_eq!(refused(&text), (code::INVALID_PARAMS, Some(Id::Number(7))), "{params}");
    }
}

#[test]
fn a_message_without_an_id_is_a_notification() {
    let message = decode(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    let Ok(Message::Notification(notification)) = message else { panic!("no notification") };
    assert_eq!(notification.method, Method::Initialized);
    assert_eq!(notification.params.as_json(), b"{}");
}

#[test]
fn a_client_may_answer_a_request_of_the_server() {
    let message = decode(r#"{"jsonrpc":"2.0","id":3,"result":{"roots":[]}}"#);
    let Ok(Message::Response(response)) = message else { panic!("no response") };
    assert_eq!(response.outcome, ResponseOutcome::Result(Bytes::from_static(br#"{"roots":[]}"#)));
}

#[test]
fn text_that_is_not_json_is_a_parse_error() {
    for text in ["", "{", "{\"jsonrpc\":", "nonsense", "{\"a\":1}}", "\u{0}"] {
        assert_eq!(refused(text).0, code::PARSE_ERROR, "{text:?}");
    }
    let invalid = Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}");
    assert_eq!(Message::decode(&invalid).unwrap_err().code, code::PARSE_ERROR);
}

#[test]
fn json_that_is_not_a_message_is_an_invalid_request() {
    for text in [
        "[]",
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
        "1",
        "null",
        "{}",
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":5}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"pong"}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
    ] {
        assert_eq!(refused(text).0, code::INVALID_REQUEST, "{text}");
    }
}

#[test]
fn an_error_names_the_request_where_its_id_could_be_read() {
    assert_eq!(refused(r#"{"jsonrpc":"2.0","id":9,"method":5}"#).1, Some(Id::Number(9)));
    assert_eq!(
        refused(r#"{"jsonrpc":"2","id":"a","method":"ping"}"#).1,
        Some(Id::Text("a".into()))
    );
    for params in ["[1]", "1e999", r#""\ud800""#, r#"{"\ud800":1}"#, r#"{},"params":{}"#] {
        let text = format!(r#"{{"jsonrpc":"2.0","params":{params},"id":7,"method":"m"}}"#);
        assert_eq!(refused(&text), (code::INVALID_REQUEST, Some(Id::Number(7))), "{text}");
    }
}

#[test]
fn optional_members_may_be_null() {
    let bare = decode(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).unwrap();
    for members in [r#""params":null"#, r#""params":null,"result":null,"error":null"#] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping",{members}}}"#);
        assert_eq!(decode(&text).unwrap(), bare, "{text}");
    }
    let text = r#"{"jsonrpc":"2.0","id":null,"method":"notifications/x","params":null}"#;
    assert!(matches!(decode(text), Ok(Message::Notification(_))));
    for (members, outcome) in [
        (r#""result":{},"error":null"#, ResponseOutcome::Result(Bytes::from_static(b"{}"))),
        (r#""result":null,"error":{}"#, ResponseOutcome::Error(Bytes::from_static(b"{}"))),
        (r#""result":null,"error":null"#, ResponseOutcome::Result(Bytes::from_static(b"null"))),
    ] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":null,"params":null,{members}}}"#);
        let Ok(Message::Response(response)) = decode(&text) else { panic!("{text}") };
        assert_eq!(response.outcome, outcome, "{text}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"x"}}"#;
    assert_eq!(decode(&format!("\u{feff}{text}")), decode(text));
    assert_eq!(refused("\u{feff}").0, code::PARSE_ERROR);
    assert_eq!(refused(&format!("\u{feff}\u{feff}{text}")).0, code::PARSE_ERROR);
}

#[test]
fn an_id_is_any_integer_and_is_answered_as_the_same_number() {
    for (id, echoed) in
        [("1.0", "1"), ("1e3", "1000"), ("18446744073709551616", "18446744073709551616")]
    {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        let Ok(Message::Request(request)) = decode(&text) else { panic!("{text}") };
        assert_eq!(request.id.to_json(), echoed);
        assert_eq!(
            decode(std::str::from_utf8(&request.encode()).unwrap()).unwrap(),
            Message::Request(request)
        );
    }
}

#[test]
fn an_encoded_message_decodes_to_itself() {
    for text in [
        r#"{"jsonrpc":"2.0","id":"a\"b","method":"tools/call","params":{"name":"x","n":1.50}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"own/\u00e9","params":{}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"a":null}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"a":[1, 2]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}"#,
    ] {
        let message = Message::decode(&Bytes::from(text)).unwrap();
        assert_eq!(Message::decode(&message.encode()).unwrap(), message, "{text}");
    }
}

proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(&Bytes::from(bytes));
    }

    #[test]
    fn every_request_decodes_to_what_was_written(
        id in prop_oneof![any::<i64>().prop_map(Id::Number), ".*".prop_map(|t| Id::Text(t.into()))],
        method in "[a-z/]{1,20}",
        key in ".*",
        value in any::<f64>(),
    ) {
        let params = serde_json::json!({ key: value });
        let text = serde_json::json!({
            "jsonrpc": "2.0", "id": id, "method": method, "params": params,
        }).to_string();
        let Ok(Message::Request(request)) = decode(&text) else { panic!("no request: {text}") };
        prop_assert_eq!(request.id, id);
        prop_assert_eq!(request.method.as_str(), method);
        prop_assert_eq!(request.params.parse::<serde_json::Value>().unwrap(), params);
    }
}

#[test]
fn long_parts_of_a_message_are_refused() {
    let long = "x".repeat(2_000);
    for (id, method, params) in [
        (format!("\"{long}\""), "ping".to_owned(), "{}".to_owned()),
        (format!("1{}", "0".repeat(300)), "ping".to_owned(), "{}".to_owned()),
        ("1".to_owned(), long.clone(), "{}".to_owned()),
        ("1".to_owned(), "ping".to_owned(), format!(r#"{{"_meta":{{"progressToken":"{long}"}}}}"#)),
        (
            "1".to_owned(),
            "ping".to_owned(),
            format!(r#"{{"_meta":{{"a":"{}"}}}}"#, long.repeat(40)),
        ),
    ] {
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        let error = decode(&text).unwrap_err();
        assert!(error.message.len() < 600, "{}", error.message);
        assert!(error.message.contains("bytes"), "{}", error.message);
    }
}

#[test]
fn a_message_has_a_bounded_number_of_values() {
    let zeros = |count: usize| vec!["0"; count].join(",");
    let request = |method: &str, count| {
        let params = format!(r#"{{"name":"t","arguments":{{"a":[{}]}}}}"#, zeros(count));
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
    };
    assert!(decode(&request("tools/call", 90_000)).is_ok());
    let error = decode(&request("tools/call", 110_000)).unwrap_err();
    assert_eq!((error.code, error.id), (code::INVALID_REQUEST, Some(Id::Number(1))));
    assert!(error.message.contains("100000 values"), "{}", error.message);
    assert!(decode(&request("prompts/get", 9_000)).is_ok());
    assert!(decode(&request("prompts/get", 11_000)).is_err());
    let few = Message::decode_within(&Bytes::from(request("tools/call", 30_000)), 20_000);
    assert!(few.unwrap_err().message.contains("20000 values"));
}

#[test]
fn a_response_with_too_many_values_becomes_an_error() {
    let text =
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"a":[{}]}}}}"#, vec!["0"; 11_000].join(","));
    let Ok(Message::Response(response)) = decode(&text) else { panic!() };
    let ResponseOutcome::Error(error) = response.outcome else { panic!("{response:?}") };
    assert!(String::from_utf8_lossy(&error).contains("10000 values"));
}

#[test]
fn no_error_repeats_a_long_value() {
    let long = "x".repeat(100_000);
    for text in [
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":"{long}"}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","{long}":1,"params":[]}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"_meta":"{long}"}}}}"#),
        long.to_string(),
    ] {
        assert!(decode(&text).unwrap_err().message.len() < 600);
    }
}

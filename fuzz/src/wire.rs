//! The protocol as values.

use bytes::Bytes;
use stentor::serde_json::{Map, Value, from_str};
use stentor::transport_api::wire::headers::{
    ParamHeaders, check_protocol_version, check_standard, decode_value, encode_value,
};
use stentor::transport_api::wire::params::{
    CallTool, Cancelled, Complete, GetPrompt, Initialize, List, Listen, OneTask, ResourceUri,
    Retry, SetLevel, UpdateTask,
};
use stentor::transport_api::wire::{
    ErrorObject, Id, Message, Params, RequestMeta, SubscriptionId, bounds, numbers, uri,
};

use super::text;

/// No error repeats more of a client's input than this.
const MAX_ERROR: usize = 1024;

fn check_error(error: &str) {
    assert!(error.len() <= MAX_ERROR, "an error of {} bytes: {error}", error.len());
}

/// A message of a client.
pub fn message(input: &[u8]) {
    match Message::decode(&Bytes::copy_from_slice(input)) {
        Ok(message) => {
            let encoded = message.encode();
            assert_eq!(Message::decode(&encoded).as_ref(), Ok(&message), "{encoded:?}");
            if let Message::Request(request) = &message {
                read_all(&request.params);
            }
        }
        Err(error) => check_error(&error.message),
    }
}

/// The parameters of a request, whichever method it has.
pub fn params(input: &[u8]) {
    let json = text(input);
    // As in a message, where they are JSON.
    if let Ok(mut value) = from_str::<Value>(&json) {
        read_all(&Params::from_json(json.into_owned()));
        numbers::settle(&mut value);
        let settled = value.clone();
        numbers::settle(&mut value);
        assert_eq!(settled, value);
    }
}

fn read_all(params: &Params) {
    fn check<T>(read: Result<T, ErrorObject>) {
        if let Err(error) = read {
            check_error(&error.message);
        }
    }
    check(params.parse::<Initialize>());
    check(params.parse::<List>());
    check(params.parse::<ResourceUri>());
    check(params.parse::<GetPrompt>());
    check(params.parse::<Complete>());
    check(params.parse::<SetLevel>());
    check(params.parse::<OneTask>());
    check(params.parse::<UpdateTask>());
    check(params.parse::<Cancelled>());
    check(CallTool::read(params));
    check(Retry::read(params));
    check(Listen::read(params));
    check(RequestMeta::read(params));
}

/// The routing headers: the value of a header in the first line, a text in the second.
pub fn headers(input: &[u8]) {
    let (raw, rest) = split(input);
    if let Ok(value) = decode_value(raw) {
        assert_eq!(decode_value(encode_value(&value).as_bytes()).as_deref(), Ok(&*value));
    }
    let text = text(rest);
    let encoded = encode_value(&text);
    assert_eq!(decode_value(encoded.as_bytes()).as_deref(), Ok(&*text));
    let written = Some(encoded.as_bytes());
    assert_eq!(check_standard("tools/call", Some(&text), Some(b"tools/call"), written), Ok(()));
    for name in ["tools/call", "resources/read"] {
        if let Err(error) = check_standard(name, Some(&text), Some(name.as_bytes()), Some(raw)) {
            check_error(&error.to_string());
        }
    }
    if let Err(error) = check_protocol_version(&text, Some(raw)) {
        check_error(&error.to_string());
    }
}

/// The headers of parameters: the schema of a tool in the first line, the value of each header in
/// the second, the arguments in the third.
pub fn param_headers(input: &[u8]) {
    let (schema, rest) = split(input);
    let (raw, arguments) = split(rest);
    let Ok(schema) = from_str::<Map<String, Value>>(&text(schema)) else { return };
    let Ok(headers) = ParamHeaders::from_schema(&schema) else { return };
    let arguments = from_str::<Value>(&text(arguments)).ok();
    assert!(!headers.is_empty() || headers.check(arguments.as_ref(), |_| Some(raw)).is_ok());
    assert_eq!(headers.check(None, |_| None), Ok(()));
    if let Err(error) = headers.check(arguments.as_ref(), |_| Some(raw)) {
        check_error(&error.to_string());
    }
}

/// The normal form of a URI.
pub fn uri(input: &[u8]) {
    let text = text(input);
    let normal = uri::normal(&text);
    assert_eq!(uri::normal(&normal), normal);
    assert!(normal.len() <= 3 * text.len() + 1, "{text:?} becomes {normal:?}");
    if let Some(decoded) = uri::decode(&text) {
        assert!(decoded.len() <= text.len());
    }
}

/// The ids of requests, and texts of which errors show a part.
pub fn ids(input: &[u8]) {
    let text = text(input);
    if let Some(id) = Id::from_json(&text) {
        assert_eq!(Id::from_json(&id.to_json()).as_ref(), Some(&id), "{text}");
        assert_eq!(SubscriptionId::of(&id), SubscriptionId::of(&id));
    }
    check_error(&bounds::quoted(&text));
    check_error(&bounds::shortened(&text));
    assert!(bounds::count_values(input, 10) <= 11);
}

/// What is before the first line end, and what is after it.
fn split(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[]),
    }
}

//! Which headers are accepted, and what each refusal says.

use http::header::HOST;

use super::*;

pub(in crate::http) fn map(headers: &[(HeaderName, &str)]) -> HeaderMap {
    headers
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
        .collect::<Vec<_>>()
        .into_iter()
        .fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
}

fn post(accept: &str) -> Result<Wants, Refusal> {
    negotiate_post(&map(&[(ACCEPT, accept)]))
}

/// All texts of up to five pieces.
pub(in crate::http) fn texts(pieces: &[&str]) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..5 {
        last = last
            .iter()
            .flat_map(|text| pieces.iter().map(move |piece| format!("{text}{piece}")))
            .collect();
        all.extend(last.iter().cloned());
    }
    all
}

#[test]
fn every_refusal_has_its_status_and_says_what_is_right() {
    let wanted = "localhost";
    for (refusal, status, message) in [
        (Refusal::HostMissing { wanted }, 403, "must name localhost"),
        (Refusal::HostRefused { found: "a".into(), wanted }, 403, "must name localhost"),
        (Refusal::OriginRefused { found: "a".into(), wanted }, 403, "absent or localhost"),
        (Refusal::WrongPath { path: "/mcp".into() }, 404, "the endpoint is '/mcp'"),
        (Refusal::NoIdentity, 401, "authenticate"),
        (Refusal::BlankPrincipal, 401, "authenticate"),
        (Refusal::InvalidCredential, 401, "get another one"),
        (Refusal::CannotAuthenticate { retry_after: 7 }, 503, "try again later"),
        (Refusal::NotAcceptable, 406, "application/json and text/event-stream"),
        (Refusal::StreamNotAcceptable, 406, "text/event-stream"),
        (Refusal::UnsupportedMediaType, 415, "application/json"),
        (Refusal::HeaderRepeated { name: HOST }, 400, "once"),
        (Refusal::HeadersTooLarge { limit: 7 }, 431, "7 bytes"),
        (Refusal::BodyTooLarge { limit: 7 }, 413, "7 bytes"),
        (Refusal::MethodNotAllowed, 405, "POST"),
        (Refusal::TooManySessions, 503, "try again later"),
        (Refusal::TooManyRequests, 429, "try again"),
        (Refusal::SessionRequired, 400, "the Mcp-Session-Id header is required"),
        (Refusal::UnknownSession, 404, "initialize"),
        (Refusal::ShuttingDown, 503, "try again later"),
        (Refusal::Charset { found: "x".into() }, 415, "charset 'x'"),
        (Refusal::ContentEncoding { found: "gzip".into() }, 415, "content encoding 'gzip'"),
    ] {
        assert_eq!(refusal.status().as_u16(), status);
        let text = refusal.to_string();
        assert!(text.contains(message), "{text}");
        assert!(text.starts_with(char::is_lowercase) && !text.ends_with('.'), "{text}");
    }
}

#[test]
fn the_first_listed_form_is_preferred() {
    for (accept, wants) in [
        ("application/json, text/event-stream", Wants::Json),
        ("text/event-stream, application/json", Wants::EventStream),
        ("text/event-stream,application/json", Wants::EventStream),
        ("TEXT/Event-Stream , Application/JSON", Wants::EventStream),
        ("text/html, application/json;v=1, text/event-stream;charset=utf-8", Wants::Json),
        ("application/*, text/*", Wants::Json),
        ("text/*, application/*", Wants::EventStream),
        ("*/*", Wants::Json),
        ("*/*, text/event-stream", Wants::Json),
        ("text/event-stream, */*", Wants::EventStream),
        ("*/*, application/json", Wants::EventStream),
        (",, text/event-stream ,, application/json ,", Wants::EventStream),
        ("text/x;t=\"a, \\\" application/json\", text/event-stream, */*", Wants::EventStream),
    ] {
        assert_eq!(post(accept), Ok(wants), "{accept}");
    }
}

#[test]
fn the_higher_weight_is_preferred() {
    for (accept, wants) in [
        ("application/json;q=0.5, text/event-stream", Wants::EventStream),
        ("text/event-stream;q=0.9, application/json", Wants::Json),
        ("text/event-stream; Q = 0.9, application/json;q=0.899", Wants::EventStream),
        ("text/event-stream;q=1.000, application/json;q=1", Wants::EventStream),
        ("application/json;q=0.1, text/event-stream;q=0.25", Wants::EventStream),
        ("*/*;q=0.1, application/json;q=0.2", Wants::Json),
        ("*/*, application/json;q=0.2", Wants::EventStream),
        ("application/json;charset=\";q=0\";q=0.5, text/event-stream;q=0.4", Wants::Json),
    ] {
        assert_eq!(post(accept), Ok(wants), "{accept}");
    }
}

#[test]
fn a_post_must_accept_both_forms() {
    for accept in [
        "",
        "application/json",
        "text/event-stream",
        "text/*",
        "application/*",
        "text/html, image/*",
        "application/json;q=0, text/event-stream",
        "application/json, text/event-stream;q=0.000",
        "application/json;q=0, */*",
        "*/*, text/*;q=0",
        "*/*;q=0",
        "*/json, text/event-stream",
        "application/json;q=2, text/event-stream",
        "application/json;q=1.001, text/event-stream",
        "application/json;q=.5, text/event-stream",
        "application/json;q=0.1234, text/event-stream",
        "application/json;q=, text/event-stream",
        "application/json text/event-stream",
        "application/json;x=\", text/event-stream",
        "application/jsonx, text/event-streams",
    ] {
        assert_eq!(post(accept), Err(Refusal::NotAcceptable), "{accept}");
    }
    assert_eq!(negotiate_post(&HeaderMap::new()), Err(Refusal::NotAcceptable));
}

#[test]
fn several_accept_headers_are_one_list() {
    let both = map(&[(ACCEPT, "text/event-stream"), (ACCEPT, "application/json")]);
    assert_eq!(negotiate_post(&both), Ok(Wants::EventStream));
    let unreadable = map(&[(ACCEPT, "é"), (ACCEPT, "*/*")]);
    assert_eq!(negotiate_post(&unreadable), Ok(Wants::Json));
}

#[test]
fn a_get_must_accept_a_stream() {
    for accept in ["text/event-stream", "text/*", "*/*", "a/b, text/event-stream;q=0.1"] {
        assert_eq!(accepts_event_stream(&map(&[(ACCEPT, accept)])), Ok(()));
    }
    for accept in ["", "application/json", "text/event-stream;q=0, */*"] {
        assert_eq!(
            accepts_event_stream(&map(&[(ACCEPT, accept)])),
            Err(Refusal::StreamNotAcceptable)
        );
    }
    assert_eq!(accepts_event_stream(&HeaderMap::new()), Err(Refusal::StreamNotAcceptable));
}

#[test]
fn no_accept_header_panics() {
    for text in texts(&["*/*", ",", ";q=", "0.", "1", "\"", "\\", "é", "text/*"]) {
        let headers = map(&[(ACCEPT, &text)]);
        let _ = negotiate_post(&headers);
        let _ = check_content_type(&map(&[(CONTENT_TYPE, &text)]));
    }
}

#[test]
fn the_body_must_be_declared_json() {
    for value in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json\t;charset=\"utf-8\"",
        " application/json ",
    ] {
        assert_eq!(check_content_type(&map(&[(CONTENT_TYPE, value)])), Ok(()), "{value}");
    }
    for value in [
        "",
        "text/plain",
        "application/jsonl",
        "application/json-rpc",
        "application/vnd.api+json",
        "application/json, text/plain",
        "text/plain; application/json",
        "é",
    ] {
        assert_eq!(
            check_content_type(&map(&[(CONTENT_TYPE, value)])),
            Err(Refusal::UnsupportedMediaType),
            "{value}"
        );
    }
    assert_eq!(check_content_type(&HeaderMap::new()), Err(Refusal::UnsupportedMediaType));
    let json = "application/json";
    assert!(check_content_type(&map(&[(CONTENT_TYPE, json), (CONTENT_TYPE, json)])).is_err());
}

#[test]
fn the_size_of_all_headers_is_limited() {
    let headers = map(&[(HOST, "abc"), (ACCEPT, "a/b"), (ACCEPT, "é")]);
    let size = "host".len() + 3 + "accept".len() + 3 + "accept".len() + 2;
    assert_eq!(check_header_size(&headers, size), Ok(()));
    let limit = size - 1;
    assert_eq!(check_header_size(&headers, limit), Err(Refusal::HeadersTooLarge { limit }));
    assert_eq!(check_header_size(&HeaderMap::new(), 0), Ok(()));
}

#[test]
fn no_header_of_the_protocol_may_be_repeated() {
    let name = HeaderName::from_static("mcp-param-region");
    let other = HeaderName::from_static("mcp-name");
    let once = map(&[(name.clone(), "a"), (other.clone(), "a"), (ACCEPT, "a"), (ACCEPT, "b")]);
    assert_eq!(check_repeated(&once), Ok(()));
    let twice = map(&[(name.clone(), "a"), (other, "a"), (name.clone(), "a")]);
    assert_eq!(check_repeated(&twice), Err(Refusal::HeaderRepeated { name }));
}

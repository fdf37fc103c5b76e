//! The response to a call that lacks a scope. The engine answers such a call with an error of its
//! own code; over HTTP this error has a status and a challenge, so that clients get another token
//! and send the call again ("step up").

use std::collections::HashMap;

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};
use serde_json::value::RawValue;
use stentor_wire::{ErrorObject, Id, code, encode};

use super::bearer;
use super::gate::Gate;
use crate::http::{Response, reply};

/// The code of the error.
pub(in crate::http) const LACKS_SCOPE: i32 = 403;

/// The `error` in its data.
const INSUFFICIENT: &str = "insufficient_scope";

/// The response to a call whose only message is `body`, an error with the code [`LACKS_SCOPE`].
/// `None` if it is the error of an author, who uses the same code for something else.
///
/// Somebody who has a credential is told to get a broader one. A stranger is told to get one at all:
/// clients without any do not react to 403.
pub(in crate::http) fn refused(
    gate: Option<&Gate>,
    is_somebody: bool,
    body: &Bytes,
) -> Option<Response> {
    let members: HashMap<String, &RawValue> = serde_json::from_slice(body).ok()?;
    let error: ErrorObject = serde_json::from_str(members.get("error")?.get()).ok()?;
    let data = error.data.as_ref()?;
    if data.get("error")?.as_str() != Some(INSUFFICIENT) {
        return None;
    }
    let scopes = data.get("scope").and_then(|scope| scope.as_str()).unwrap_or_default();
    let scopes = scopes.split(' ');
    let metadata = gate.and_then(Gate::metadata_url);
    if is_somebody || gate.is_none() {
        let challenge = bearer::insufficient(metadata, scopes);
        return Some(challenged(StatusCode::FORBIDDEN, body.clone(), challenge));
    }
    let challenge = bearer::missing(metadata, scopes);
    let error = ErrorObject { code: code::INVALID_REQUEST, ..error };
    let id: Option<Id> = members.get("id").and_then(|id| serde_json::from_str(id.get()).ok());
    let body = encode::error(id.as_ref(), &error);
    Some(challenged(StatusCode::UNAUTHORIZED, body, challenge))
}

fn challenged(status: StatusCode, body: Bytes, challenge: HeaderValue) -> Response {
    let mut response = reply::json(status, body);
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::bearer::tests::read;
    use super::super::tests::Fixed;
    use super::*;
    use crate::http::body::Content;

    const ERROR: &str = r#"{"jsonrpc":"2.0","id":"a\u0041","error":{"code":403,"message":"more is needed","data":{"error":"insufficient_scope","scope":"a:b c"}}}"#;

    fn body(response: &Response) -> Value {
        match response.body() {
            Content::Full(bytes) => serde_json::from_slice(bytes).unwrap(),
            Content::Events(_) => panic!("a stream"),
        }
    }

    fn challenge(response: &Response) -> Vec<(String, String)> {
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["content-type"], "application/json");
        read(&response.headers()[WWW_AUTHENTICATE])
    }

    #[test]
    fn somebody_is_told_which_scopes_are_needed() {
        let gate = Gate::new(Arc::new(Fixed::oauth()));
        let url = gate.metadata_url().unwrap().to_owned();
        for (gate, url) in [(Some(&gate), Some(&*url)), (None, None)] {
            let response = refused(gate, gate.is_some(), &ERROR.into()).unwrap();
            assert_eq!(response.status(), 403);
            assert_eq!(body(&response), serde_json::from_str::<Value>(ERROR).unwrap());
            let read = challenge(&response);
            let expected = [
                ("error", Some(INSUFFICIENT)),
                ("scope", Some("a:b c")),
                ("resource_metadata", url),
            ];
            for (name, value) in expected {
                let found = read.iter().find(|(it, _)| it == name).map(|(_, value)| &**value);
                assert_eq!(found, value, "{name}");
            }
        }
    }

    #[test]
    fn a_stranger_is_told_to_get_a_token() {
        let gate = Gate::new(Arc::new(Fixed::oauth()));
        let response = refused(Some(&gate), false, &ERROR.into()).unwrap();
        assert_eq!(response.status(), 401);
        let mut expected: Value = serde_json::from_str(ERROR).unwrap();
        expected["error"]["code"] = json!(-32600);
        assert_eq!(body(&response), expected);
        let read = challenge(&response);
        assert_eq!(read[0], ("scope".to_owned(), "a:b c".to_owned()));
        assert_eq!((read.len(), &*read[1].0), (2, "resource_metadata"), "and no error");
    }

    #[test]
    fn the_same_code_may_mean_something_else() {
        for other in [
            "",
            "{}",
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":403,"message":"no"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":403,"message":"no","data":"insufficient_scope"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":403,"message":"no","data":{"error":"mine"}}}"#,
        ] {
            assert!(
                refused(None, true, &Bytes::from_static(other.as_bytes())).is_none(),
                "{other}"
            );
        }
        // Without scopes, or with strange ones, there is still a challenge.
        for scope in [json!(null), json!(""), json!("\"a\" \u{1f600} \r\n"), json!(["a"])] {
            let error = json!({"code": 403, "message": "no", "data": {"error": INSUFFICIENT, "scope": scope}});
            let text = json!({"jsonrpc": "2.0", "id": 1, "error": error}).to_string();
            let response = refused(None, true, &text.into()).unwrap();
            assert!(challenge(&response).iter().all(|(name, _)| name != "scope"), "{scope}");
        }
    }
}

//! Handlers and middleware behave the same, however the endpoint is served.

mod support;

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;
use stentor_engine::{Engine, Next, Operation};
use stentor_transport::http::HttpConfig;
use support::{Ask, SERVED_BY, ServedBy, Server};

const ANYWHERE: &str = "127.0.0.1:0";

#[tokio::test]
async fn middleware_sees_calls_and_lists_of_both_eras() {
    for road in SERVED_BY {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let builder =
            Engine::builder("test", "1").layer(move |operation: Operation, next: Next| {
                log.lock().push(operation.subject().to_owned());
                next.run(operation)
            });
        let server = Server::serving(road, ANYWHERE, None, builder, HttpConfig::default()).await;
        let session = server.session().await;
        let (call, list) = (json!({"name": "echo"}), json!({}));
        let of_session = |method: &str, params: &serde_json::Value| {
            let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
            Ask::legacy(&session, &message)
        };
        for ask in [
            Ask::modern("tools/call", call.clone()),
            Ask::modern("tools/list", list.clone()),
            of_session("tools/call", &call),
            of_session("tools/list", &list),
        ] {
            let answer = server.ask(&ask).await;
            assert_eq!(answer.status, 200, "{road:?}: {answer:?}");
            assert!(answer.body.contains("echo"), "{road:?}: {answer:?}");
        }
        let expected = ["echo", "tools/list", "echo", "tools/list"];
        assert_eq!(*seen.lock(), expected, "{road:?}");
    }
}

#[tokio::test]
async fn a_handler_is_told_who_calls_and_strangers_are_refused() {
    for road in SERVED_BY {
        let server = Server::start(road, |_, _| ()).await;
        let answer = server.ask(&Ask::modern("tools/call", json!({"name": "whoami"}))).await;
        assert!(answer.body.contains("users who are known"), "{road:?}: {answer:?}");
    }
    for road in [ServedBy::Layered, ServedBy::Router] {
        let server = Server::start_at(road, ANYWHERE, Some("ann"), |_, _| ()).await;
        let answer = server.ask(&Ask::modern("tools/call", json!({"name": "whoami"}))).await;
        assert!(answer.body.contains(r#""text":"ann""#), "{road:?}: {answer:?}");
    }
}

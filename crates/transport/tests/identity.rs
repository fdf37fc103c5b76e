//! Which requests are accepted, when middleware in front of the endpoint sets the principal.

mod support;

use serde_json::json;
use support::{Ask, SERVED_BY, ServedBy, Server};

fn asks() -> Vec<(&'static str, Ask)> {
    let echo = json!({"name": "echo"});
    vec![
        ("initialize", Ask::initialize()),
        (
            "a legacy message",
            Ask::legacy("any", &json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})),
        ),
        ("a notification", Ask::post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)),
        ("GET", Ask::get("any")),
        ("GET with an event id", Ask::get("any").with("last-event-id", "0-1")),
        ("DELETE", Ask::new("DELETE").with("mcp-session-id", "any")),
        ("a call", Ask::modern("tools/call", echo)),
        ("a listen", Ask::modern("subscriptions/listen", json!({"notifications": {}}))),
        ("discover", Ask::modern("server/discover", json!({}))),
        ("no JSON", Ask::post("{")),
        ("what is not accepted", Ask::new("POST")),
        ("another method", Ask::new("PUT")),
    ]
}

#[tokio::test]
async fn a_blank_principal_is_refused() {
    for blank in ["", " ", "\t\n", "\u{a0}\u{2003}", "\0"] {
        let server =
            Server::start_at(ServedBy::Router, "127.0.0.1:0", Some(blank), |_, _| ()).await;
        for (what, ask) in asks() {
            let answer = server.ask(&ask).await;
            assert_eq!(answer.status, 401, "{blank:?} {what}: {answer:?}");
            assert_eq!(answer.one("www-authenticate"), Some("Bearer"), "{what}");
            assert!(answer.body.contains("-32600") && answer.body.contains("blank"), "{answer:?}");
        }
    }
    for somebody in ["ann", " ann ", "0", "語"] {
        let server =
            Server::start_at(ServedBy::Router, "127.0.0.1:0", Some(somebody), |_, _| ()).await;
        server.session().await;
    }
}

#[tokio::test]
async fn a_required_identity_keeps_anonymous_requests_out() {
    for road in SERVED_BY {
        let server = Server::start(road, |_, http| http.require_identity = true).await;
        for (what, ask) in asks() {
            let answer = server.ask(&ask).await;
            assert_eq!(answer.status, 401, "{road:?} {what}: {answer:?}");
            assert_eq!(answer.one("www-authenticate"), Some("Bearer"), "{what}");
            assert_eq!(answer.one("cache-control"), Some("no-store"), "{what}");
            assert!(answer.body.contains("-32600"), "{answer:?}");
        }
        let wrong_host = server.ask(&Ask::initialize().with("host", "evil.example")).await;
        assert_eq!(wrong_host.status, 403, "that comes before who it is");
        assert!(wrong_host.one("www-authenticate").is_none());
        assert!(server.engine.http_sessions().is_empty());
    }
    let server = Server::start_at(ServedBy::Router, "127.0.0.1:0", Some("ann"), |_, http| {
        http.require_identity = true
    });
    server.await.session().await;
    // Without `require_identity` anonymous clients are accepted.
    Server::start(ServedBy::Serve, |_, _| ()).await.session().await;
}

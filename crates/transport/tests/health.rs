//! What the server says of its health, on each road.

mod support;

use serde_json::json;
use stentor_engine::identity::Identity;
use stentor_transport::http::StaticTokens;
use support::{Answer, Ask, SERVED_BY, Server};

async fn at(server: &Server, method: &'static str, path: &str) -> Answer {
    server.ask(&Ask::new(method).at(path).with("host", "10.1.2.3:8080")).await
}

#[tokio::test]
async fn a_server_that_works_is_live_and_ready_for_everybody() {
    for road in SERVED_BY {
        let server = Server::start(road, |_, http| {
            http.health = true;
            *http = std::mem::take(http).auth(
                StaticTokens::new([("a-token-that-nobody-would-guess-0", Identity::named("ada"))])
                    .unwrap(),
            );
        });
        let server = server.await;
        for path in ["/livez", "/readyz"] {
            let answer = at(&server, "GET", path).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{road:?} {path}");
            assert_eq!(answer.one("cache-control"), Some("no-store"));
            assert_eq!(at(&server, "HEAD", path).await.status, 200, "{road:?} {path}");
            let refused = at(&server, "POST", path).await;
            assert_eq!((refused.status, refused.one("allow")), (405, Some("GET, HEAD")));
        }
    }
}

#[tokio::test]
async fn a_server_that_drains_is_live_but_not_ready() {
    for road in SERVED_BY {
        // A call keeps the engine from ending at once.
        let server = Server::start(road, |_, http| http.health = true).await;
        let session = server.session().await;
        let call =
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "talk"}});
        let talking = server.ask(&Ask::legacy(&session, &call)).await;
        let engine = server.engine.clone();
        let ending = tokio::spawn(async move { engine.shutdown().await });
        server.engine.draining().await;
        let answer = at(&server, "GET", "/readyz").await;
        assert_eq!((answer.status, answer.body.as_str()), (503, "draining\n"), "{road:?}");
        assert_eq!(at(&server, "GET", "/livez").await.status, 200, "{road:?}");
        drop(talking);
        ending.abort();
    }
}

#[tokio::test]
async fn nothing_is_said_unless_it_is_asked_for() {
    for road in SERVED_BY {
        let server = Server::start(road, |_, _| ()).await;
        for path in ["/livez", "/readyz"] {
            let status = at(&server, "GET", path).await.status;
            assert!(matches!(status, 403 | 404), "{road:?} {path} {status}");
        }
    }
}

#[tokio::test]
async fn a_node_that_joins_or_leaves_is_live_but_not_ready() {
    for road in SERVED_BY {
        let server = Server::start(road, |_, http| http.health = true).await;
        server.engine.set_not_ready("leaving");
        // Somebody else's reason is not ended.
        server.engine.clear_not_ready("joining");
        let answer = at(&server, "GET", "/readyz").await;
        assert_eq!((answer.status, answer.body.as_str()), (503, "leaving\n"), "{road:?}");
        assert_eq!(at(&server, "GET", "/livez").await.status, 200, "{road:?}");
        server.engine.clear_not_ready("leaving");
        assert_eq!(at(&server, "GET", "/readyz").await.status, 200, "{road:?}");
    }
}

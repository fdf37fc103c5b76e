//! Which requests are accepted, when middleware in front of the endpoint sets the principal.

mod support;

use std::time::{Duration, SystemTime};

use serde_json::json;
use stentor_engine::identity::Identity;
use stentor_engine::{Engine, tool};
use stentor_transport::http::{HttpConfig, Principal, StaticTokens, router};
use support::{Ask, SERVED_BY, ServedBy, Server};
use tokio::net::TcpListener;

/// The ways in which middleware can be around the endpoint.
const WITH_LAYERS: [ServedBy; 2] = [ServedBy::Layered, ServedBy::Router];

#[tokio::test]
async fn a_blank_principal_is_refused() {
    for road in WITH_LAYERS {
        for blank in ["", " ", "\t\n", "\u{a0}\u{2003}", "\0"] {
            let server = Server::start_at(road, "127.0.0.1:0", Some(blank), |_, _| ()).await;
            for (what, ask) in Ask::every_kind() {
                let answer = server.ask(&ask).await;
                assert_eq!(answer.status, 401, "{road:?} {blank:?} {what}: {answer:?}");
                assert_eq!(answer.one("www-authenticate"), Some("Bearer"), "{what}");
                assert!(answer.body.contains("-32600"), "{answer:?}");
                assert!(answer.body.contains("blank"), "{answer:?}");
            }
        }
        for somebody in ["ann", " ann ", "0", "語"] {
            let server = Server::start_at(road, "127.0.0.1:0", Some(somebody), |_, _| ()).await;
            server.session().await;
        }
    }
}

#[tokio::test]
async fn a_required_identity_keeps_anonymous_requests_out() {
    for road in SERVED_BY {
        let server = Server::start(road, |_, http| http.require_identity = true).await;
        for (what, ask) in Ask::every_kind() {
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
    for road in WITH_LAYERS {
        let server = Server::start_at(road, "127.0.0.1:0", Some("ann"), |_, http| {
            http.require_identity = true
        });
        server.await.session().await;
    }
    // Without `require_identity` anonymous clients are accepted.
    Server::start(ServedBy::Serve, |_, _| ()).await.session().await;
}

#[tokio::test]
async fn middleware_may_set_a_whole_identity() {
    let server_of = |identity: Identity, http: HttpConfig| async move {
        let engine = Engine::builder("test", "1")
            .tool(tool("whoami", |who: Principal| async move { who.to_string() }))
            .start()
            .await
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = router(engine.clone(), http)
            .layer(axum::Extension(Principal("bob".into())))
            .layer(axum::Extension(identity));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Server { engine, address }
    };
    let call = Ask::modern("tools/call", json!({"name": "whoami"}));
    let required = || HttpConfig::new().require_identity(true);
    let ann = server_of(Identity::issued("https://as.example", "ann"), required()).await;
    let answer = ann.ask(&call).await;
    assert!(answer.body.contains("https://as.example#ann"), "it counts more: {answer:?}");
    let blank = server_of(Identity::issued("https://as.example", " "), required()).await;
    assert_eq!(blank.ask(&call).await.status, 401);
    let old = Identity::named("ann").expires(SystemTime::UNIX_EPOCH, Duration::ZERO);
    let answer = server_of(old, required()).await.ask(&call).await;
    assert_eq!(answer.status, 401);
    assert!(answer.one("www-authenticate").unwrap().starts_with("Bearer error=\"invalid_token\""));
    // With an authenticator, nothing else counts.
    let tokens = [("ann-secret-token-0001", Identity::named("ann"))];
    let http = HttpConfig::new().auth(StaticTokens::new(tokens).unwrap());
    let server = server_of(Identity::named("eve"), http).await;
    assert_eq!(server.ask(&call).await.status, 401);
    let answer = server.ask(&call.with("authorization", "Bearer ann-secret-token-0001")).await;
    assert!(answer.body.contains(r#""text":"ann""#), "{answer:?}");
}

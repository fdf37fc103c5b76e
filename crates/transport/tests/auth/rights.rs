//! Scopes that every request needs, items that are not for everybody, and rights that change.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use http::request::Parts;
use serde_json::json;
use stentor_engine::identity::Identity;
use stentor_engine::{Engine, tool};
use stentor_transport::http::{
    Authenticator, Challenge, HttpConfig, ServeError, Verdict, bearer, router, serve_with,
};

use crate::support::{Ask, SERVED_BY};
use crate::{Obedient, authorized, body, challenge, oauth, parameter, server, token};

#[tokio::test]
async fn a_scope_that_every_request_needs_is_asked_for_with_403() {
    for road in SERVED_BY {
        let mut auth = Obedient::oauth();
        auth.0.required = vec!["mcp:read".to_owned(), "mcp:use".to_owned()];
        let server = server(road, HttpConfig::new().auth(auth)).await;
        for (kind, ask) in Ask::every_kind() {
            let answer = server.ask(&authorized(ask, &token("good"))).await;
            assert_eq!(answer.status, 403, "{road:?} {kind}: {answer:?}");
            let told = challenge(&answer);
            assert_eq!(parameter(&told, "error"), Some("insufficient_scope"), "{kind}");
            assert_eq!(parameter(&told, "scope"), Some("mcp:read mcp:use"), "{kind}");
            let error = &body(&answer)["error"];
            assert_eq!(
                (&error["code"], &error["data"]["scope"]),
                (&json!(403), &json!("mcp:read mcp:use"))
            );
        }
        let ask = Ask::modern("tools/call", json!({"name": "whoami"}));
        assert_eq!(server.ask(&authorized(ask, &token("bad"))).await.status, 401);
    }
}

#[tokio::test]
async fn an_endpoint_that_checks_nobody_does_not_start_with_items_that_are_not_for_everybody() {
    let secret = || tool("secret", || async { "s" }).only_for(["admin"]);
    let engine = Engine::builder("test", "1").tool(secret()).start().await.unwrap();
    let refused = serve_with(engine.clone(), "127.0.0.1:0", HttpConfig::new()).await;
    assert!(matches!(refused, Err(ServeError::NoAuthenticator)), "{refused:?}");
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| router(engine, HttpConfig::new())));
    assert!(panicked.is_err());

    let scoped = tool("scoped", || async { "s" }).require_scope("write");
    let engine = Engine::builder("test", "1").tool(scoped).start().await.unwrap();
    let refused = serve_with(engine, "127.0.0.1:0", HttpConfig::new()).await;
    assert!(matches!(refused, Err(ServeError::NoAuthenticator)), "{refused:?}");

    // Each of these knows who sends, or lets nobody in.
    for config in [oauth(), HttpConfig::new().require_identity(true)] {
        let engine = Engine::builder("test", "1").tool(secret()).start().await.unwrap();
        drop(router(engine, config));
    }
}

/// Remembers which principals it was told to forget.
#[derive(Debug, Default)]
struct Forgetful(Challenge, Arc<Mutex<Vec<Option<String>>>>);

impl Authenticator for Forgetful {
    fn check(&self, head: &Parts, _peer: Option<SocketAddr>) -> Verdict {
        Verdict::Now(bearer(&head.headers).map(Identity::named))
    }

    fn challenge(&self) -> &Challenge {
        &self.0
    }

    fn forget(&self, principal: Option<&str>) {
        self.1.lock().unwrap().push(principal.map(str::to_owned));
    }
}

#[tokio::test]
async fn an_authenticator_hears_whose_rights_changed_and_who_is_revoked_is_out() {
    for road in SERVED_BY {
        let auth = Forgetful::default();
        let forgotten = auth.1.clone();
        let server = server(road, HttpConfig::new().auth(auth)).await;
        let ask = |who: &str| authorized(Ask::modern("tools/list", json!({})), &token(who));
        assert_eq!(server.ask(&ask("ann")).await.status, 200);
        server.engine.refresh_visibility("ann").await;
        server.engine.refresh_visibility_all().await;
        server.engine.revoke("ann").await;
        assert_eq!(*forgotten.lock().unwrap(), [Some("ann".into()), None, Some("ann".into())]);
        let answer = server.ask(&ask("ann")).await;
        assert_eq!(answer.status, 401, "{road:?}");
        assert_eq!(parameter(&challenge(&answer), "error"), Some("invalid_token"));
        assert_eq!(server.ask(&ask("bob")).await.status, 200);
    }
}

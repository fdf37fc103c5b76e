//! Who is let in, and what everybody else is told, with both ways to serve.

mod support;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use http::request::Parts;
use serde_json::{Value, json};
use stentor_engine::identity::Identity;
use stentor_engine::{CallError, Context, Engine, EngineBuilder, ToolError, tool};
use stentor_transport::http::{
    Authenticator, Challenge, HttpConfig, Networks, OriginPolicy, ProxyHeaders, Rejection,
    ResourceMetadata, ServeError, StaticTokens, Verdict, bearer, router, serve_with,
};
use stentor_wire::ErrorObject;
use support::{Answer, Ask, SERVED_BY, ServedBy, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PAGE: &str = "https://app.example";
const METADATA: &str = "https://h.example/.well-known/oauth-protected-resource/api/mcp";

/// An authenticator that does what its token says.
#[derive(Debug)]
struct Obedient(Challenge);

impl Obedient {
    fn oauth() -> Self {
        let servers = ["https://one.example", "https://two.example"];
        let mut challenge = Challenge::default();
        challenge.metadata = Some(ResourceMetadata::new("https://h.example/api/mcp", servers));
        challenge.scopes = vec!["mcp:read".to_owned(), "mcp:list".to_owned()];
        Self(challenge)
    }
}

impl Authenticator for Obedient {
    fn check(&self, head: &Parts, peer: Option<SocketAddr>) -> Verdict {
        assert!(peer.is_some_and(|peer| peer.ip().is_loopback()), "{peer:?}");
        let ann = || Identity::named("ann").scopes(["mcp:read"]);
        Verdict::Now(match bearer(&head.headers) {
            Err(rejection) => Err(rejection),
            Ok("good") => Ok(ann()),
            Ok("blank") => Ok(Identity::named(" ")),
            Ok("old") => Ok(ann().expires(SystemTime::UNIX_EPOCH, Duration::from_secs(60))),
            Ok("down") => Err(Rejection::Unavailable { retry_after: Duration::from_millis(6_500) }),
            Ok("down-briefly") => Err(Rejection::Unavailable { retry_after: Duration::ZERO }),
            Ok("panics") => panic!("as asked for"),
            Ok("asks") => return Verdict::Later(async move { Ok(ann()) }.boxed()),
            Ok("asks-and-refuses") => {
                return Verdict::Later(async { Err(Rejection::Invalid) }.boxed());
            }
            Ok("asks-and-panics") => {
                return Verdict::Later(async { panic!("as asked for") }.boxed());
            }
            Ok(_) => Err(Rejection::Invalid),
        })
    }

    fn challenge(&self) -> &Challenge {
        &self.0
    }
}

fn builder() -> EngineBuilder {
    fn lacking() -> CallError {
        let mut error = ErrorObject::new(403, "another scope is needed");
        error.data = Some(json!({"error": "insufficient_scope", "scope": "mcp:write mcp:read"}));
        CallError::protocol(error)
    }
    Engine::builder("test", "1")
        .tool(tool("wipe", || async { Err::<&str, _>(lacking()) }))
        .tool(tool("late", |ctx: Context| async move {
            ctx.info("so far so good");
            Err::<&str, ToolError>(lacking())
        }))
        .tool(tool("own", || async {
            Err::<&str, _>(CallError::protocol(ErrorObject::new(403, "mine")))
        }))
}

async fn server(road: ServedBy, http: HttpConfig) -> Server {
    let http = http.origins(OriginPolicy::loopback().with_origin(PAGE));
    Server::serving(road, "127.0.0.1:0", None, builder(), http).await
}

fn oauth() -> HttpConfig {
    HttpConfig::new().auth(Obedient::oauth())
}

fn token(token: &str) -> Vec<String> {
    vec![format!("Bearer {token}")]
}

fn authorized(mut ask: Ask, authorization: &[String]) -> Ask {
    for value in authorization {
        ask = ask.with("authorization", value);
    }
    ask
}

/// The parameters of the challenge, which have to be quoted.
fn challenge(answer: &Answer) -> Vec<(String, String)> {
    let value =
        answer.one("www-authenticate").unwrap_or_else(|| panic!("no challenge: {answer:?}"));
    let parameters = value.strip_prefix("Bearer").expect("of a bearer token").trim_start();
    let parameters = parameters.split("\", ").filter(|parameter| !parameter.is_empty());
    let parameter = |parameter: &str| {
        let (name, value) = parameter.split_once("=\"").expect("a quoted value");
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    };
    parameters.map(parameter).collect()
}

fn parameter<'a>(challenge: &'a [(String, String)], name: &str) -> Option<&'a str> {
    challenge.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
}

fn body(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// What is answered without an identity: the header, the status, the error, and `Retry-After`.
type Row = (Vec<String>, u16, Option<&'static str>, Option<&'static str>);

fn rows() -> Vec<Row> {
    let [missing, invalid] = [(401, None, None), (401, Some("invalid_token"), None)];
    let row = |header: Vec<String>, (status, error, after)| (header, status, error, after);
    let twice = |one: &str, other: &str| [token(one), token(other)].concat();
    vec![
        row(vec![], missing),
        row(vec!["Basic YTpi".to_owned()], missing),
        row(vec!["good".to_owned()], missing),
        row(vec!["Bearerx good".to_owned()], missing),
        row(token("bad"), invalid),
        row(token(""), invalid),
        row(token("good good"), invalid),
        row(token("blank"), invalid),
        row(token("old"), invalid),
        row(token("asks-and-refuses"), invalid),
        row(twice("good", "good"), (400, Some("invalid_request"), None)),
        row(twice("good", "bad"), (400, Some("invalid_request"), None)),
        row(twice("bad", "good"), (400, Some("invalid_request"), None)),
        row(token("down"), (503, None, Some("7"))),
        row(token("down-briefly"), (503, None, Some("1"))),
        row(token("panics"), (503, None, Some("1"))),
        row(token("asks-and-panics"), (503, None, Some("1"))),
    ]
}

fn check_refusal(answer: &Answer, (_, status, error, after): &Row, what: &str) {
    assert_eq!(answer.status, *status, "{what}: {answer:?}");
    assert_eq!(answer.one("cache-control"), Some("no-store"), "{what}");
    assert_eq!(answer.one("content-type"), Some("application/json"), "{what}");
    assert_eq!(answer.one("retry-after"), *after, "{what}");
    assert!(answer.one("mcp-session-id").is_none(), "{what}");
    // Pages can read it.
    assert_eq!(answer.one("access-control-allow-origin"), Some(PAGE), "{what}");
    assert!(answer.one("access-control-expose-headers").unwrap().contains("WWW-Authenticate"));
    assert_eq!(answer.one("vary"), Some("Origin"), "{what}");
    if *status == 503 {
        assert!(answer.one("www-authenticate").is_none(), "{what}");
        return;
    }
    let challenge = challenge(answer);
    assert_eq!(parameter(&challenge, "error"), *error, "{what}");
    assert_eq!(parameter(&challenge, "error_description").is_some(), error.is_some(), "{what}");
    assert_eq!(parameter(&challenge, "resource_metadata"), Some(METADATA), "{what}");
    if *status == 401 {
        assert_eq!(parameter(&challenge, "scope"), Some("mcp:read mcp:list"), "{what}");
    }
}

#[tokio::test]
async fn every_request_without_a_good_credential_is_refused_in_the_same_way() {
    for road in SERVED_BY {
        let server = server(road, oauth()).await;
        for row in rows() {
            let mut bodies = Vec::new();
            for (kind, ask) in Ask::every_kind() {
                let what = format!("{road:?} {:?} {kind}", row.0);
                let answer = server.ask(&authorized(ask.with("origin", PAGE), &row.0)).await;
                check_refusal(&answer, &row, &what);
                let body = body(&answer);
                let code = if row.1 == 503 { 503 } else { -32600 };
                assert_eq!((&body["error"]["code"], &body["id"]), (&json!(code), &json!(null)));
                bodies.push(body);
            }
            bodies.dedup();
            assert_eq!(bodies.len(), 1, "{road:?} {:?}", row.0);
            let head = server.ask(&authorized(Ask::new("HEAD").with("origin", PAGE), &row.0)).await;
            check_refusal(&head, &row, "HEAD");
            assert_eq!(head.body, "");
        }
        assert!(server.engine.http_sessions().is_empty());
    }
}

#[tokio::test]
async fn a_good_credential_is_checked_after_the_origin_and_before_everything_else() {
    for road in SERVED_BY {
        let server = server(road, oauth()).await;
        let call = || Ask::modern("tools/call", json!({"name": "whoami"}));
        for good in ["good", "asks"] {
            for scheme in ["Bearer", "bearer", "BEARER"] {
                let value = format!("{scheme} {good}");
                let answer = server.ask(&call().with("authorization", &value)).await;
                assert!(answer.body.contains(r#""text":"ann""#), "{road:?} {good}");
            }
        }
        let with = |ask: Ask| authorized(ask, &token("good"));
        let initialized = server.ask(&with(Ask::initialize())).await;
        assert_eq!(initialized.status, 200, "{initialized:?}");
        let session = initialized.one("mcp-session-id").unwrap();
        let listened = server.ask(&with(Ask::get(session))).await;
        assert!(listened.is_stream());
        for (ask, status) in [
            (Ask::new("PUT"), 405),
            (Ask::new("OPTIONS"), 405),
            (Ask::post("{}").without("accept"), 406),
            (Ask::post("{}").without("content-type"), 415),
            (Ask::post("{"), 400),
            (call().with("mcp-method", "x"), 400),
            (Ask::get("unknown"), 404),
        ] {
            assert_eq!(server.ask(&with(ask.clone())).await.status, status, "{road:?} {ask:?}");
        }
        let preflight = Ask::preflight(PAGE, "POST", "authorization, mcp-param-zone");
        for authorization in [vec![], token("bad")] {
            let answer = server.ask(&authorized(preflight.clone(), &authorization)).await;
            assert_eq!(answer.status, 204, "{road:?} {answer:?}");
            let vary = "Origin, Access-Control-Request-Headers";
            assert_eq!(answer.one("vary"), Some(vary));
        }
        for (authorization, ask, status) in [
            (vec![], call().with("origin", "https://evil.example"), 403),
            (token("good"), call().with("host", "evil.example"), 403),
            (token("panics"), call().with("host", "evil.example"), 403),
            (vec![], call().with("x-padding", &"x".repeat(17_000)), 431),
            (token(&"a".repeat(17_000)), call(), 431),
            (token("bad"), Ask::preflight("https://evil.example", "POST", "authorization"), 403),
        ] {
            let answer = server.ask(&authorized(ask, &authorization)).await;
            assert_eq!(answer.status, status, "{road:?} {answer:?}");
            assert!(answer.one("www-authenticate").is_none(), "{road:?} {answer:?}");
        }
        // What is elsewhere in a request is no credential.
        for ask in [
            call().at("/mcp?access_token=good"),
            call().with("cookie", "access_token=good; token=good"),
            call().with("x-forwarded-user", "ann").with("x-forwarded-access-token", "good"),
        ] {
            let answer = server.ask(&ask.with("origin", PAGE)).await;
            check_refusal(&answer, &(vec![], 401, None, None), "elsewhere");
        }
    }
}

#[tokio::test]
async fn a_stranger_is_refused_before_the_body_is_read() {
    for road in SERVED_BY {
        let server = server(road, oauth()).await;
        for more in [
            "content-length: 5242880\r\n\r\n{\"jsonrpc\"",
            "transfer-encoding: chunked\r\n\r\n3\r\n{\"j\r\n",
            "content-length: 5242880\r\nexpect: 100-continue\r\n\r\n",
        ] {
            let mut client = TcpStream::connect(server.address).await.unwrap();
            let head = format!(
                "POST /mcp HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
                 accept: application/json, text/event-stream\r\n{more}",
                server.address,
            );
            client.write_all(head.as_bytes()).await.unwrap();
            let mut read = vec![0; 12];
            client.read_exact(&mut read).await.unwrap();
            assert_eq!(read, b"HTTP/1.1 401", "{road:?} {more}");
        }
    }
}

#[tokio::test]
async fn where_strangers_may_come_in_a_bad_credential_is_still_refused() {
    for road in SERVED_BY {
        let server = server(road, oauth().allow_anonymous(true)).await;
        for row in rows() {
            let ask = Ask::modern("tools/list", json!({})).with("origin", PAGE);
            let answer = server.ask(&authorized(ask, &row.0)).await;
            match row {
                (_, 401, None, _) => assert_eq!(answer.status, 200, "{road:?} {:?}", row.0),
                _ => check_refusal(&answer, &row, &format!("{road:?} {:?}", row.0)),
            }
        }
        server.session().await;
        let who = Ask::modern("tools/call", json!({"name": "whoami"}));
        assert!(server.ask(&who).await.body.contains("users who are known"));
        let known = server.ask(&authorized(who, &token("good"))).await;
        assert!(known.body.contains(r#""text":"ann""#));
    }
    let closed =
        server(ServedBy::Serve, oauth().allow_anonymous(true).require_identity(true)).await;
    assert_eq!(closed.ask(&Ask::initialize()).await.status, 401);
}

#[tokio::test]
async fn a_call_that_lacks_a_scope_is_told_which_in_both_eras() {
    for road in SERVED_BY {
        let server = server(road, oauth().allow_anonymous(true)).await;
        for (authorization, status, code, error) in
            [(token("good"), 403, 403, Some("insufficient_scope")), (vec![], 401, -32600, None)]
        {
            let with = |ask: Ask| authorized(ask, &authorization).with("origin", PAGE);
            let initialized = server.ask(&with(Ask::initialize())).await;
            let session = initialized.one("mcp-session-id").unwrap();
            let call = |name: &str| {
                let params = json!({"name": name});
                let message =
                    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
                [Ask::legacy(session, &message), Ask::modern("tools/call", params)]
            };
            let events = "text/event-stream, application/json";
            let as_events = call("wipe").map(|ask| ask.without("accept").with("accept", events));
            for ask in call("wipe").into_iter().chain(as_events) {
                let answer = server.ask(&with(ask)).await;
                let what = format!("{road:?} {authorization:?} {answer:?}");
                assert_eq!(answer.status, status, "{what}");
                let data = json!({"error": "insufficient_scope", "scope": "mcp:write mcp:read"});
                let expected = json!({
                    "jsonrpc": "2.0", "id": 1,
                    "error": {"code": code, "message": "another scope is needed", "data": data},
                });
                assert_eq!(body(&answer), expected, "{what}");
                let challenge = challenge(&answer);
                assert_eq!(parameter(&challenge, "error"), error, "{what}");
                assert_eq!(parameter(&challenge, "scope"), Some("mcp:write mcp:read"), "{what}");
                assert_eq!(parameter(&challenge, "resource_metadata"), Some(METADATA), "{what}");
                assert_eq!(answer.one("cache-control"), Some("no-store"), "{what}");
                assert_eq!(answer.one("access-control-allow-origin"), Some(PAGE), "{what}");
            }
            // What follows something else is part of the stream, and other errors mean other things.
            for ask in call("late") {
                let answer = server.ask(&with(ask)).await;
                assert_eq!((answer.status, answer.is_stream()), (200, true), "{road:?} {answer:?}");
            }
            for ask in call("own") {
                let answer = server.ask(&with(ask)).await;
                assert_eq!((answer.status, &body(&answer)["error"]["code"]), (200, &json!(403)));
                assert!(answer.one("www-authenticate").is_none());
            }
        }
        // Without an authenticator nobody knows where tokens come from.
        let server = self::server(road, HttpConfig::new()).await;
        let answer = server.ask(&Ask::modern("tools/call", json!({"name": "wipe"}))).await;
        assert_eq!(answer.status, 403);
        let challenge = challenge(&answer);
        assert_eq!(parameter(&challenge, "error"), Some("insufficient_scope"));
        assert_eq!(parameter(&challenge, "resource_metadata"), None);
    }
}

const ROOT: &str = "/.well-known/oauth-protected-resource";
const SUFFIXED: &str = "/.well-known/oauth-protected-resource/api/mcp";

#[tokio::test]
async fn anybody_may_read_the_metadata_and_nothing_else() {
    for road in SERVED_BY {
        let shared: Arc<dyn Authenticator> = Arc::new(Obedient::oauth());
        let server = server(road, HttpConfig::new().auth(shared)).await;
        let mut documents = Vec::new();
        for path in [ROOT, SUFFIXED, "/.well-known/oauth-protected-resource/api/mcp?a=b"] {
            let what = format!("{road:?} {path}");
            for more in [
                vec![],
                vec![("origin", "https://anywhere.example")],
                vec![("origin", "null")],
                vec![("authorization", "Bearer panics")],
                vec![("x-forwarded-host", "evil.example"), ("x-forwarded-proto", "http")],
                vec![("accept", "text/html")],
            ] {
                for method in ["GET", "HEAD"] {
                    let ask = more.iter().fold(Ask::new(method).at(path), |ask, (name, value)| {
                        ask.with(name, value)
                    });
                    let answer = server.ask(&ask).await;
                    assert_eq!(answer.status, 200, "{what} {more:?}: {answer:?}");
                    assert_eq!(answer.one("content-type"), Some("application/json"));
                    assert_eq!(answer.one("cache-control"), Some("max-age=3600"));
                    assert_eq!(answer.one("access-control-allow-origin"), Some("*"));
                    match method {
                        "HEAD" => assert_eq!(answer.body, ""),
                        _ => documents.push(answer.body.clone()),
                    }
                }
            }
            for method in ["POST", "PUT", "DELETE", "PATCH"] {
                let answer = server.ask(&Ask::new(method).at(path)).await;
                assert_eq!(answer.status, 405, "{what}");
                assert_eq!(answer.one("allow"), Some("GET, HEAD, OPTIONS"));
            }
            let asked = "mcp-protocol-version, x-mine";
            let preflight = Ask::preflight("https://anywhere.example", "GET", asked);
            for ask in [preflight, Ask::new("OPTIONS")] {
                let answer = server.ask(&ask.at(path)).await;
                assert_eq!(answer.status, 204, "{what}: {answer:?}");
                assert_eq!(answer.one("access-control-allow-origin"), Some("*"));
                let allowed = answer.one("access-control-allow-headers").unwrap();
                assert!(allowed.contains("mcp-protocol-version"), "{allowed}");
            }
            let elsewhere =
                server.ask(&Ask::new("GET").at(path).with("host", "evil.example")).await;
            assert_eq!(elsewhere.status, 403, "{what}");
            assert!(elsewhere.cors().is_empty());
            let padding = "x".repeat(17_000);
            let long = server.ask(&Ask::new("GET").at(path).with("x-padding", &padding)).await;
            assert_eq!(long.status, 431, "{what}");
        }
        documents.dedup();
        let [document] = &documents[..] else { panic!("they differ: {documents:?}") };
        let expected = json!({
            "resource": "https://h.example/api/mcp",
            "authorization_servers": ["https://one.example", "https://two.example"],
            "scopes_supported": ["mcp:read", "mcp:list"],
            "bearer_methods_supported": ["header"],
        });
        assert_eq!(serde_json::from_str::<Value>(document).unwrap(), expected);
        let sibling = server.ask(&Ask::new("GET").at(&format!("{ROOT}/elsewhere"))).await;
        assert_eq!(sibling.status, 404);
    }
}

#[tokio::test]
async fn every_resource_has_routes_beside_those_of_the_endpoint() {
    let engine = builder().start().await.unwrap();
    for path in ["/mcp", "/", "/{tenant}/mcp", "/{*rest}", ROOT, SUFFIXED] {
        for resource in ["https://h", "https://h/", "https://h/mcp/", "https://h/{a}/b*", "nothing"]
        {
            let mut auth = Obedient::oauth();
            auth.0.metadata = Some(ResourceMetadata::new(resource, ["https://as.example"]));
            // Panics if two routes are the same, or if one is invalid.
            let _ = router(engine.clone(), HttpConfig::new().path(path).auth(auth));
        }
    }
}

#[tokio::test]
async fn static_tokens_are_known_without_any_metadata() {
    let tokens = || {
        let tokens = [("ann-secret-token-0001", "ann"), ("bob-secret-token-0002", "bob")];
        StaticTokens::new(tokens.map(|(secret, name)| (secret, Identity::named(name)))).unwrap()
    };
    for road in SERVED_BY {
        let server = server(road, HttpConfig::new().auth(tokens())).await;
        let ask = Ask::modern("tools/call", json!({"name": "whoami"}));
        for (secret, name) in [("ann-secret-token-0001", "ann"), ("bob-secret-token-0002", "bob")] {
            let answer = server.ask(&authorized(ask.clone(), &token(secret))).await;
            assert!(answer.body.contains(&format!(r#""text":"{name}""#)), "{road:?} {answer:?}");
        }
        assert_eq!(server.ask(&ask).await.one("www-authenticate"), Some("Bearer"));
        let bad = server.ask(&authorized(ask, &token("ann-secret-token-0002"))).await;
        assert_eq!(parameter(&challenge(&bad), "error"), Some("invalid_token"));
        for path in [ROOT, "/.well-known/oauth-protected-resource/mcp"] {
            assert_eq!(server.ask(&Ask::new("GET").at(path)).await.status, 404, "{road:?}");
        }
        // The session of one is unknown to the other.
        let anns =
            server.ask(&authorized(Ask::initialize(), &token("ann-secret-token-0001"))).await;
        let session = anns.one("mcp-session-id").unwrap();
        for (secret, status) in [("ann-secret-token-0001", 200), ("bob-secret-token-0002", 404)] {
            let answer = server.ask(&authorized(Ask::get(session), &token(secret))).await;
            assert_eq!(answer.status, status, "{road:?} {secret}");
        }
    }
}

#[tokio::test]
async fn headers_of_a_proxy_are_believed_from_its_address_only() {
    for (network, status) in [("127.0.0.0/8", 200), ("10.0.0.0/8", 401)] {
        for road in SERVED_BY {
            let auth = ProxyHeaders::new(Networks::new([network]).unwrap(), "x-remote-user");
            let server = server(road, HttpConfig::new().auth(auth)).await;
            let ask = Ask::modern("tools/call", json!({"name": "whoami"}));
            let answer = server.ask(&ask.clone().with("x-remote-user", "ann")).await;
            assert_eq!(answer.status, status, "{road:?} {network}: {answer:?}");
            assert_eq!(answer.body.contains(r#""text":"ann""#), status == 200, "{answer:?}");
            assert_eq!(server.ask(&ask).await.one("www-authenticate"), Some("Bearer"));
        }
    }
}

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

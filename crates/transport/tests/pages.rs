//! What web pages may do, with both ways to serve: which pages may call, and that a browser lets
//! them read every response.

mod support;

use serde_json::json;
use stentor_engine::{Config, Engine};
use stentor_transport::http::{HttpConfig, OriginPolicy, router};
use support::{Answer, Ask, SERVED_BY, ServedBy, Server};

const PAGE: &str = "https://app.example";

/// Other origins, as similar as possible.
const OTHER_ORIGINS: [&str; 9] = [
    "https://evil.example",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example.evil.example",
    "https://x.app.example",
    "https://app.example/",
    "null",
    "",
    "file://",
];

const READABLE: &str = "WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version, Retry-After";

fn listed(_: &mut Config, http: &mut HttpConfig) {
    http.origins = OriginPolicy::loopback().with_origin(PAGE);
    http.max_body = 2_000;
}

fn can_be_read(answer: &Answer, origin: &str, what: &str) {
    assert_eq!(answer.one("access-control-allow-origin"), Some(origin), "{what}: {answer:?}");
    assert_eq!(answer.one("access-control-expose-headers"), Some(READABLE), "{what}");
    assert_eq!(answer.one("vary"), Some("Origin"), "{what}");
    assert_eq!(answer.cors().len(), 2, "{what}: {answer:?}");
}

/// Every kind of response, as `(what, status, whether it is a stream, the request)`.
async fn every_kind(server: &Server) -> Vec<(&'static str, u16, bool, Ask)> {
    let session = server.session().await;
    let listening = server.session().await;
    let ended = server.session().await;
    assert_eq!(server.ask(&Ask::new("DELETE").with("mcp-session-id", &ended)).await.status, 204);
    let legacy = |method: &str, params| {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        Ask::legacy(&session, &message)
    };
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let response = json!({"jsonrpc": "2.0", "id": 1, "result": {}});
    let echo = || Ask::modern("tools/call", json!({"name": "echo"}));
    let call = |name: &str| json!({"name": name});
    vec![
        ("a new session", 200, false, Ask::initialize()),
        ("a legacy answer", 200, false, legacy("tools/list", json!({}))),
        ("a legacy error", 200, false, legacy("no/such", json!({}))),
        ("a legacy stream", 200, true, legacy("tools/call", call("talk"))),
        ("a legacy notification", 202, false, Ask::legacy(&session, &notification)),
        ("a legacy response", 202, false, Ask::legacy(&session, &response)),
        ("notices", 200, true, Ask::get(&listening)),
        ("a stream that was", 200, true, Ask::get(&session).with("last-event-id", "none-of-yours")),
        ("no session", 400, false, Ask::legacy(&session, &response).without("mcp-session-id")),
        ("an ended session", 404, false, Ask::legacy(&ended, &notification)),
        ("an unknown session", 404, false, Ask::get("nobody")),
        ("an unknown version", 400, false, Ask::get(&session).with("mcp-protocol-version", "1")),
        ("a GET of anything", 406, false, Ask::new("GET").with("mcp-session-id", &session)),
        ("a modern answer", 200, false, echo()),
        ("a modern list", 200, false, Ask::modern("tools/list", json!({}))),
        ("a modern error", 404, false, Ask::modern("no/such", json!({}))),
        ("a modern stream", 200, true, Ask::modern("tools/call", call("talk"))),
        (
            "a listen",
            200,
            true,
            Ask::modern(
                "subscriptions/listen",
                json!({"notifications": {"toolsListChanged": true}}),
            ),
        ),
        ("a header that differs", 400, false, echo().without("mcp-method").with("mcp-method", "x")),
        ("a header that is repeated", 400, false, echo().with("mcp-method", "tools/call")),
        (
            "an event stream of one",
            200,
            true,
            echo().without("accept").with("accept", "text/event-stream, application/json"),
        ),
        ("no JSON", 400, false, Ask::post("{")),
        ("what is not accepted", 406, false, Ask::post("{}").without("accept")),
        ("another type", 415, false, Ask::post("{}").without("content-type")),
        ("a long body", 413, false, Ask::post("x".repeat(2_001))),
        ("long headers", 431, false, echo().with("x-padding", &"x".repeat(17_000))),
        ("another method", 405, false, Ask::new("PUT")),
        ("no question of a browser", 405, false, Ask::new("OPTIONS")),
        ("a slash too many", 404, false, echo().at("/mcp/")),
        ("the end of a session", 204, false, Ask::new("DELETE").with("mcp-session-id", &session)),
    ]
}

#[tokio::test]
async fn a_page_that_may_call_can_read_every_response() {
    for road in SERVED_BY {
        let server = Server::start(road, listed).await;
        for origin in [PAGE, "http://localhost:5173"] {
            for (what, status, is_stream, ask) in every_kind(&server).await {
                let what = format!("{road:?} {origin} {what}");
                let answer = server.ask(&ask.with("origin", origin)).await;
                assert_eq!(
                    (answer.status, answer.is_stream()),
                    (status, is_stream),
                    "{what}: {answer:?}"
                );
                can_be_read(&answer, origin, &what);
            }
        }
    }
}

#[tokio::test]
async fn requests_without_an_allowed_origin_get_no_cors_headers() {
    for road in SERVED_BY {
        let server = Server::start(road, listed).await;
        for (what, status, is_stream, ask) in every_kind(&server).await {
            let answer = server.ask(&ask).await;
            assert_eq!(
                (answer.status, answer.is_stream()),
                (status, is_stream),
                "{what}: {answer:?}"
            );
            assert!(answer.cors().is_empty() && answer.one("vary").is_none(), "{what}: {answer:?}");
        }
        for (what, status, _, ask) in every_kind(&server).await {
            for stranger in OTHER_ORIGINS {
                let answer = server.ask(&ask.clone().with("origin", stranger)).await;
                // A wrong path or too large headers may be refused before the origin is checked.
                let expected =
                    if matches!(status, 404 | 431) { vec![403, status] } else { vec![403] };
                assert!(expected.contains(&answer.status), "{what} {stranger}: {answer:?}");
                assert!(answer.cors().is_empty(), "{what} {stranger}: {answer:?}");
            }
            let two = ask.clone().with("origin", PAGE).with("origin", PAGE);
            assert!(server.ask(&two).await.cors().is_empty(), "{what}");
            // The allowed page, but another host, as by DNS rebinding.
            let rebound = ask.with("origin", PAGE).with("host", "evil.example");
            assert!(server.ask(&rebound).await.cors().is_empty(), "{what}");
        }
    }
}

#[tokio::test]
async fn a_page_can_read_that_the_server_is_full_and_that_it_must_authenticate() {
    for road in SERVED_BY {
        let full = |config: &mut Config, http: &mut HttpConfig| {
            listed(config, http);
            (config.sessions.max_sessions, config.sessions.max_unused_sessions) = (1, 1);
        };
        let server = Server::start(road, full).await;
        let session = server.session().await;
        let _stream = server.ask(&Ask::get(&session)).await;
        let answer = server.ask(&Ask::initialize().with("origin", PAGE)).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        can_be_read(&answer, PAGE, "no room");

        let closed = |config: &mut Config, http: &mut HttpConfig| {
            listed(config, http);
            http.require_identity = true;
        };
        let server = Server::start(road, closed).await;
        let answer = server.ask(&Ask::initialize().with("origin", PAGE)).await;
        assert_eq!((answer.status, answer.one("www-authenticate")), (401, Some("Bearer")));
        can_be_read(&answer, PAGE, "no identity");
        let asked = server.ask(&Ask::preflight(PAGE, "POST", "authorization")).await;
        assert_eq!(asked.status, 204, "a browser asks without credentials: {asked:?}");
    }
}

fn names(list: Option<&str>) -> Vec<&str> {
    list.unwrap_or_default().split(", ").collect()
}

#[tokio::test]
async fn a_preflight_response_lists_what_a_page_may_send() {
    let legacy =
        "authorization,content-type,accept,mcp-protocol-version,mcp-session-id,last-event-id";
    let modern = "authorization, content-type, accept, mcp-protocol-version, mcp-method, mcp-name, Mcp-Param-Zone";
    for (road, path) in [
        (ServedBy::Serve, "/mcp"),
        (ServedBy::Layered, "/mcp"),
        (ServedBy::Router, "/mcp"),
        (ServedBy::Serve, "/mcp/"),
        (ServedBy::Layered, "/mcp/"),
        (ServedBy::Router, "/mcp/"),
    ] {
        let server = Server::start(road, listed).await;
        for (method, headers) in
            [("POST", legacy), ("GET", legacy), ("DELETE", legacy), ("POST", modern), ("POST", "")]
        {
            for origin in [PAGE, "http://localhost:5173"] {
                let ask = Ask::preflight(origin, method, headers).at(path);
                let answer = server.ask(&ask).await;
                assert_eq!((answer.status, &*answer.body), (204, ""), "{road:?} {answer:?}");
                assert_eq!(answer.one("access-control-allow-origin"), Some(origin));
                assert_eq!(
                    names(answer.one("access-control-allow-methods")),
                    ["POST", "GET", "DELETE"]
                );
                assert_eq!(answer.one("access-control-max-age"), Some("7200"));
                assert_eq!(answer.one("vary"), Some("Origin, Access-Control-Request-Headers"));
                let may = names(answer.one("access-control-allow-headers"));
                for header in headers.split(',').map(|name| name.trim().to_ascii_lowercase()) {
                    assert!(header.is_empty() || may.contains(&&*header), "{header}: {may:?}");
                }
                assert_eq!(answer.cors().len(), 4, "and no more: {answer:?}");
            }
        }
        let evil = server
            .ask(&Ask::preflight(PAGE, "POST", "x-evil, cookie, mcp-param-a, *").at(path))
            .await;
        let may = names(evil.one("access-control-allow-headers"));
        assert_eq!((may.len(), may.last()), (9, Some(&"mcp-param-a")), "{may:?}");

        let private = |origin| {
            Ask::preflight(origin, "POST", "")
                .with("access-control-request-private-network", "true")
                .at(path)
        };
        let allowed = "access-control-allow-private-network";
        assert_eq!(server.ask(&private(PAGE)).await.one(allowed), Some("true"), "it is listed");
        assert_eq!(server.ask(&private("http://localhost:5173")).await.one(allowed), None);
        for stranger in OTHER_ORIGINS {
            let answer = server.ask(&private(stranger).at("/mcp")).await;
            assert_eq!((answer.status, answer.cors()), (403, vec![]), "{stranger}");
        }
        let rebound = private(PAGE).with("host", "evil.example").at("/mcp");
        let answer = server.ask(&rebound).await;
        assert_eq!((answer.status, answer.cors()), (403, vec![]));
        let long = private(PAGE).with("x-padding", &"x".repeat(17_000)).at("/mcp");
        assert_eq!(server.ask(&long).await.status, 431);
        let no_page = private(PAGE).without("origin").at("/mcp");
        assert_eq!(server.ask(&no_page).await.status, 405, "no browser asks like this");
    }
}

#[tokio::test]
async fn with_the_policy_any_every_page_may_read() {
    for road in SERVED_BY {
        let server = Server::start(road, |_, http| http.origins = OriginPolicy::any()).await;
        for origin in ["https://evil.example", "null", "file://"] {
            let ask = Ask::modern("tools/list", json!({})).with("origin", origin);
            let answer = server.ask(&ask.with("host", "evil.example")).await;
            assert_eq!(answer.status, 200);
            can_be_read(&answer, origin, origin);
            let asked = Ask::preflight(origin, "POST", "authorization");
            let asked = asked.with("access-control-request-private-network", "true");
            let answer = server.ask(&asked).await;
            assert_eq!((answer.status, answer.cors().len()), (204, 4), "listed by no name");
        }
        let two = Ask::modern("tools/list", json!({})).with("origin", "a").with("origin", "b");
        let answer = server.ask(&two).await;
        assert_eq!((answer.status, answer.cors()), (200, vec![]));
    }
}

#[tokio::test]
async fn a_server_on_a_public_address_serves_clients_and_no_pages_of_other_hosts() {
    let server = Server::start_at(ServedBy::Serve, "0.0.0.0:0", None, |_, _| ()).await;
    let mut local = server.clone();
    local.address.set_ip([127, 0, 0, 1].into());
    let ask = |host: &str| Ask::modern("tools/list", json!({})).with("host", host);
    for host in ["mcp.example.com", "10.0.0.7:8000", "localhost", "a1:8000"] {
        assert_eq!(local.ask(&ask(host)).await.status, 200, "{host}");
    }
    for (host, origin) in [
        ("10.0.0.7:8000", "http://10.0.0.7:8000"),
        ("mcp.example.com", "https://mcp.example.com"),
        ("localhost:8000", "http://localhost:5173"),
    ] {
        let answer = local.ask(&ask(host).with("origin", origin)).await;
        assert_eq!(answer.status, 200, "{host} {origin}: {answer:?}");
        can_be_read(&answer, origin, host);
    }
    for (host, origin) in [
        ("10.0.0.7:8000", "https://evil.example"),
        ("mcp.example.com", "https://evil.example"),
        ("mcp.example.com", "null"),
        // By DNS rebinding.
        ("evil.example:8000", "http://evil.example:8000"),
    ] {
        for ask in [
            ask(host).with("origin", origin),
            Ask::preflight(origin, "POST", "").with("host", host),
        ] {
            let answer = local.ask(&ask).await;
            assert_eq!((answer.status, answer.cors()), (403, vec![]), "{host} {origin}");
        }
    }
}

#[tokio::test]
async fn a_configured_policy_is_kept_on_every_address() {
    let named = |_: &mut Config, http: &mut HttpConfig| http.origins = OriginPolicy::loopback();
    let mut server = Server::start_at(ServedBy::Serve, "0.0.0.0:0", None, named).await;
    server.address.set_ip([127, 0, 0, 1].into());
    let ask = |host: &str| Ask::modern("tools/list", json!({})).with("host", host);
    assert_eq!(server.ask(&ask("localhost")).await.status, 200);
    assert_eq!(server.ask(&ask("10.0.0.7")).await.status, 403);
}

#[tokio::test]
async fn the_response_at_a_wrong_path_names_the_endpoint() {
    for road in SERVED_BY {
        let server = Server::start(road, |_, _| ()).await;
        let mut lost = vec!["/mcp/", "/mcp/?a=b"];
        // With a router, other paths belong to the application.
        lost.extend(
            (road == ServedBy::Serve)
                .then_some(["/", "/mcp//", "/MCP", "/sse", "/mcp/x"])
                .into_iter()
                .flatten(),
        );
        for path in lost {
            for ask in [Ask::initialize(), Ask::new("GET"), Ask::new("DELETE"), Ask::new("PUT")] {
                let answer = server.ask(&ask.at(path)).await;
                assert_eq!(answer.status, 404, "{road:?} {path}");
                assert_eq!(answer.one("content-type"), Some("application/json"));
                assert!(
                    answer.body.contains("the endpoint is '/mcp'"),
                    "{road:?} {path}: {answer:?}"
                );
            }
        }
        assert_eq!(server.ask(&Ask::initialize().at("/mcp?a=b")).await.status, 200);

        let slash = |_: &mut Config, http: &mut HttpConfig| http.path = "/mcp/".to_owned();
        let server = Server::start(road, slash).await;
        assert_eq!(server.ask(&Ask::initialize().at("/mcp/")).await.status, 200);
        let answer = server.ask(&Ask::initialize()).await;
        assert_eq!(answer.status, 404);
        assert!(answer.body.contains("the endpoint is '/mcp/'"), "{answer:?}");
    }
}

#[tokio::test]
async fn every_path_that_a_router_accepts_can_be_the_endpoint() {
    let engine = Engine::builder("test", "1").start().await.unwrap();
    for path in ["/", "/a/b", "/{tenant}/mcp", "/{*rest}"] {
        let mut config = HttpConfig::default();
        config.path = path.to_owned();
        // Panics if the path is invalid.
        let _ = router(engine.clone(), config);
    }
}

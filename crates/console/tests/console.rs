//! The JSON of a console on one node, as a page reads it.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use stentor::console::{self, ConsoleConfig, Operator};
use stentor::test::{Client, Notice, assert_notified};
use stentor::{Engine, tool};
use tower::ServiceExt as _;

async fn engine() -> Engine {
    let noon = tool("noon", || async { "12:00" }).description("Tells the time");
    let secret = tool("secret", || async { "x" }).only_for(["admins"]);
    Engine::builder("Clock", "1.2.0").tool(noon).tool(secret).start().await.expect("an engine")
}

async fn send(app: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = app.clone().oneshot(request).await.expect("a response");
    let status = response.status();
    assert!(response.headers().contains_key("content-security-policy"));
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn get_from(host: &str, path: &str) -> Request<Body> {
    Request::get(path).header("host", host).body(Body::empty()).expect("a request")
}

/// The answer of the only node.
async fn get(app: &Router, path: &str) -> Value {
    let (status, mut all) = send(app, get_from("localhost:1", path)).await;
    assert_eq!(status, StatusCode::OK, "{all}");
    assert_eq!((&all["version"], all["nodes"].as_array().map(Vec::len)), (&json!(1), Some(1)));
    all["nodes"][0]["answer"].take()
}

async fn act(app: &Router, engine: &Engine, mut action: Value) -> (StatusCode, Value) {
    action["node"] = json!(engine.node());
    let request = Request::post("/api/v1/actions")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("x-stentor-console", "1")
        .body(Body::from(action.to_string()));
    send(app, request.expect("a request")).await
}

async fn only_session(app: &Router) -> Value {
    let mut sessions = get(app, "/api/v1/sessions").await;
    assert_eq!((&sessions["total"], &sessions["found"]), (&json!(1), &json!(1)));
    sessions["sessions"][0].take()
}

fn outcomes(session: &Value, what: &str) -> Vec<String> {
    let entries = session["followed"]["entries"].as_array().into_iter().flatten();
    let named = entries.filter(|it| it["what"] == what);
    named.map(|it| it["became"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_page_and_its_files_are_served_with_a_strict_policy() {
    let engine = engine().await;
    let app = console::router(&engine, ConsoleConfig::new());
    let page = app.clone().oneshot(get_from("localhost", "/")).await.expect("a page");
    let policy = page.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let page = page.into_body().collect().await.expect("a page").to_bytes();
    let page = String::from_utf8_lossy(&page).into_owned();
    // Whatever the page names is there, and nothing comes from another server.
    let files = page.split(['"', '\'']).filter(|it| it.ends_with(".js") || it.ends_with(".css"));
    for file in files.collect::<Vec<_>>() {
        assert!(!file.contains("//"), "{file}");
        let path = format!("/{}", file.trim_start_matches("./"));
        let found = app.clone().oneshot(get_from("localhost", &path)).await.expect("a file");
        assert_eq!(found.status(), StatusCode::OK, "{path}");
    }
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_console_may_be_nested_below_a_path() {
    let engine = engine().await;
    let app = Router::new().nest("/ops/console", console::router(&engine, ConsoleConfig::new()));
    let page = app.clone().oneshot(get_from("localhost", "/ops/console")).await.expect("a page");
    let page = page.into_body().collect().await.expect("a page").to_bytes();
    assert!(String::from_utf8_lossy(&page).contains("src=\"console/console.js\""));
    let script = get_from("localhost", "/ops/console/console.js");
    assert_eq!(app.clone().oneshot(script).await.expect("a script").status(), StatusCode::OK);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn strangers_and_unknown_hosts_are_refused() {
    let engine = engine().await;
    let app = console::router(&engine, ConsoleConfig::new().host("console.example"));
    for (host, status) in [
        ("localhost:7667", StatusCode::OK),
        ("console.example", StatusCode::OK),
        ("evil.example", StatusCode::FORBIDDEN),
    ] {
        assert_eq!(send(&app, get_from(host, "/api/v1/me")).await.0, status, "{host}");
    }
    let config = ConsoleConfig::new().actions(true).operator(|headers| {
        let name = headers.get("x-user")?.to_str().ok()?;
        Some(Operator { name: Some(name.into()), may_act: false })
    });
    let app = console::router(&engine, config);
    assert_eq!(send(&app, get_from("localhost", "/")).await.0, StatusCode::UNAUTHORIZED);
    let mut known = get_from("localhost", "/api/v1/me");
    known.headers_mut().insert("x-user", "ann".parse().expect("a value"));
    let (status, me) = send(&app, known).await;
    assert_eq!(
        (status, &me["name"], &me["mayAct"]),
        (StatusCode::OK, &json!("ann"), &json!(false))
    );
    assert_eq!(me["server"], json!({"name": "Clock", "version": "1.2.0"}));
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_told_what_is_wrong() {
    let engine = engine().await;
    let app = console::router(&engine, ConsoleConfig::new().actions(true));
    for (path, status) in [
        ("/api/v1/nothing", StatusCode::NOT_FOUND),
        ("/api/v1/session", StatusCode::BAD_REQUEST),
        ("/api/v1/sessions?order=up", StatusCode::BAD_REQUEST),
        ("/api/v1/log?after=x", StatusCode::BAD_REQUEST),
    ] {
        let (got, body) = send(&app, get_from("localhost", path)).await;
        assert_eq!(got, status, "{path}");
        assert!(body["error"].is_string(), "{path}: {body}");
    }
    let (status, body) = act(&app, &engine, json!({"action": "explode"})).await;
    assert!(status.is_client_error() && body["error"].is_string(), "{status} {body}");
    let (status, _) = act(&app, &engine, json!({"action": "cancelCall", "call": 99})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let mut plain = get_from("localhost", "/api/v1/actions");
    *plain.method_mut() = axum::http::Method::POST;
    assert_eq!(send(&app, plain).await.0, StatusCode::FORBIDDEN, "without the header");
    let reader = console::router(&engine, ConsoleConfig::new());
    let (status, _) = act(&reader, &engine, json!({"action": "drain"})).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(!engine.is_draining());
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn overview_actors_and_catalog_show_what_the_engine_has() {
    let engine = engine().await;
    let app = console::router(&engine, ConsoleConfig::new());
    let client = Client::connect(&engine).await;
    client.call_tool("noon", ()).await.expect("a result");
    let overview = get(&app, "/api/v1/overview").await;
    assert_eq!(overview["state"], "running");
    assert_eq!(overview["sessions"]["pipe"], 1);
    assert!(overview["frames"]["delivered"]["reply"].as_u64() >= Some(1), "{overview}");
    assert!(overview["held"]["budget"].as_u64() > Some(0));
    let tree = get(&app, "/api/v1/actors").await["tree"].take();
    assert_eq!(tree["kind"], "supervisor");
    let kinds: Vec<_> =
        tree["children"].as_array().into_iter().flatten().map(|it| &it["kind"]).collect();
    assert_eq!(kinds, ["registry", "hub", "pool", "pool"]);
    let keys = |catalog: Value| {
        let items = catalog["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|it| it["key"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(get(&app, "/api/v1/catalog").await), ["noon", "secret"]);
    assert_eq!(keys(get(&app, "/api/v1/catalog?principal=bob").await), ["noon"]);
    let secret = get(&app, "/api/v1/catalog").await["items"][1].take();
    let said = (&secret["kind"], &secret["labels"], &secret["scopes"]);
    assert_eq!(said, (&json!("tool"), &json!(["admins"]), &json!([])));
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_followed_session_says_what_became_of_each_message() {
    let engine = engine().await;
    let app = console::router(&engine, ConsoleConfig::new().actions(true));
    let client = Client::connect(&engine).await;
    client.listen(json!({"toolsListChanged": true})).await.expect("a listen");
    let mut notices = client.notices().await;
    let id = only_session(&app).await["id"].clone();
    let path = format!("/api/v1/session?id={}", id.as_str().expect("an id"));
    assert_eq!(get(&app, &path).await["followed"]["on"], false);
    assert_eq!(get(&app, "/api/v1/session?id=nobody").await, Value::Null);

    let (status, _) = act(&app, &engine, json!({"action": "follow", "session": id})).await;
    assert_eq!(status, StatusCode::OK);
    engine.catalog().add(tool("midnight", || async { "0:00" })).await.expect("a tool");
    assert_notified(&mut notices, Notice::ToolsChanged).await;
    engine.send_resource_updated("file:///unwatched");
    let hidden = tool("hidden", || async { "x" }).only_for(["admins"]);
    engine.catalog().add(hidden).await.expect("a tool");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;

    let session = get(&app, &path).await;
    let delivered = outcomes(&session, "notifications/tools/list_changed");
    assert!(delivered.contains(&"delivered".to_owned()), "{session}");
    let unwatched = outcomes(&session, "notifications/resources/updated file:///unwatched");
    assert!(unwatched.iter().all(|it| it == "filtered") && !unwatched.is_empty(), "{session}");

    let (_, done) = act(&app, &engine, json!({"action": "unfollow", "session": id})).await;
    assert!(done["done"].is_string());
    assert_eq!(get(&app, &path).await["followed"]["on"], false);
    let (_, done) = act(&app, &engine, json!({"action": "endSession", "session": id})).await;
    assert!(done["done"].is_string());
    assert_eq!(get(&app, "/api/v1/sessions").await["total"], 0);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn sessions_are_found_and_paged() {
    let engine = engine().await;
    let app = console::router(&engine, ConsoleConfig::new());
    let mut clients = Vec::new();
    for number in 0..5 {
        let name = if number == 3 { "Special" } else { "Usual" };
        let builder = Client::builder(&engine).client_info(name, "1");
        let client =
            builder.era(stentor::protocol::Era::Legacy).principal(format!("user-{number}"));
        clients.push(client.connect().await);
    }
    let count = async |path: &str| {
        let answer = get(&app, path).await;
        (answer["found"].as_u64(), answer["sessions"].as_array().map(Vec::len))
    };
    assert_eq!(count("/api/v1/sessions").await, (Some(5), Some(5)));
    assert_eq!(count("/api/v1/sessions?limit=2&offset=4").await, (Some(5), Some(1)));
    assert_eq!(count("/api/v1/sessions?text=special").await, (Some(1), Some(1)));
    assert_eq!(count("/api/v1/sessions?principal=user-2").await, (Some(1), Some(1)));
    assert_eq!(count("/api/v1/sessions?kind=listen").await, (Some(0), Some(0)));
    let listed = get(&app, "/api/v1/sessions?order=id").await;
    for session in listed["sessions"].as_array().into_iter().flatten() {
        let id = session["id"].as_str().expect("an id");
        let secret = id.rsplit('.').next().unwrap_or_default();
        assert!(secret.len() <= 6, "the page must not have the whole id: {id}");
        assert_eq!(session["era"], "legacy");
    }
    engine.shutdown().await;
}

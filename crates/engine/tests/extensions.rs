//! Extensions of an author: methods, notifications and capabilities, in both eras.

mod support;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use stentor_engine::{Context, Engine, ExtensionError, StartError, ToolError, extension, tool};
use stentor_test::{Builder, Client, Notice};
use stentor_wire::{Era, ErrorObject, code};

const CHANGED: &str = "notifications/counter/changed";

#[derive(Deserialize, JsonSchema)]
struct Add {
    by: i64,
}

async fn engine() -> Engine {
    let counter = extension("com.example/counter")
        .settings(json!({"start": 0}))
        .method("counter/add", async |add: Add, ctx: Context| -> Result<Value, ToolError> {
            ctx.info("adding");
            ctx.notify_all(CHANGED, json!({"count": add.by})).await?;
            Ok(json!({"count": add.by}))
        })
        .method("counter/reset", || async { Err::<(), _>(ToolError::invalid_params("no")) })
        .notification(CHANGED, "counterChanged");
    let strict =
        extension("com.example/strict").method("strict/ask", || async { json!({}) }).required();
    support::engine()
        .extension(counter)
        .extension(strict)
        .capability("com.example/mood", "good")
        .capability("tools", "never")
        .start()
        .await
        .unwrap()
}

fn client(engine: &Engine, era: Era) -> Builder {
    Client::builder(engine).era(era)
}

#[tokio::test(start_paused = true)]
async fn clients_of_both_eras_see_what_the_server_declares() {
    let engine = engine().await;
    for (era, tasks) in [(Era::Legacy, None), (Era::Modern, Some(&json!({})))] {
        let server = client(&engine, era).connect().await.server().await.unwrap();
        let declared = &server["capabilities"];
        let extensions = &declared["extensions"];
        assert_eq!(extensions["com.example/counter"], json!({"start": 0}));
        assert_eq!(extensions["com.example/strict"], json!({}));
        assert_eq!(extensions.get("io.modelcontextprotocol/tasks"), tasks);
        assert_eq!(declared["com.example/mood"], "good");
        assert_eq!(declared["tools"], json!({"listChanged": true}), "it is the protocol's");
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_is_a_call_like_any_other() {
    let engine = engine().await;
    for era in [Era::Legacy, Era::Modern] {
        let unaware = client(&engine, era).connect().await;
        let mut adding = unaware.start("counter/add", json!({"by": 3}));
        assert_eq!(adding.log().await.is_some(), era == Era::Legacy, "a level was not asked for");
        assert_eq!(adding.result().await.unwrap()["count"], 3);
        let wrong = unaware.request("counter/add", json!({"by": "x"})).await.unwrap_err();
        assert_eq!(wrong.code, code::INVALID_PARAMS);
        let refused = unaware.request("counter/reset", ()).await.unwrap_err();
        assert_eq!(refused, ErrorObject::new(code::INVALID_PARAMS, "no"));
        let unknown = unaware.request("counter/none", ()).await.unwrap_err();
        assert_eq!(unknown.code, code::METHOD_NOT_FOUND);
        // A client has to declare the second extension.
        let strict = unaware.request("strict/ask", ()).await.unwrap_err();
        assert!(strict.message.contains("capability"), "{strict}");
        let aware = client(&engine, era).extension("com.example/strict", json!({})).connect().await;
        assert!(aware.request("strict/ask", ()).await.unwrap().is_object());
    }
}

#[tokio::test(start_paused = true)]
async fn a_listen_receives_the_notifications_that_it_asks_for() {
    let engine = engine().await;
    let (legacy, listens) = (Client::legacy(&engine).await, Client::connect(&engine).await);
    let deaf = Client::connect(&engine).await;
    let mut told = legacy.notices().await;
    let (mut heard, mut unheard) = (listens.notices().await, deaf.notices().await);
    let asked = json!({"counterChanged": true, "toolsListChanged": false, "unknownChanged": true});
    let granted = listens.listen(asked).await.unwrap();
    assert_eq!(granted, json!({"counterChanged": true}), "only what exists");
    deaf.listen(json!({"counterChanged": 1, "resourceSubscriptions": ["a://1"]})).await.unwrap();

    let params = json!({"count": 7, "_meta": {"a": 1}});
    engine.notify_all(CHANGED, &params).await.unwrap();
    engine.notify_all("notifications/other", json!({})).await.unwrap();
    engine.catalog().add(tool("new", || async { "" })).await.unwrap();
    let (changed, other) =
        (Notice::custom(CHANGED, params), Notice::custom("notifications/other", json!({})));
    assert_eq!(heard.settled().await, [changed.clone(), Notice::ToolsChanged]);
    assert_eq!(unheard.settled().await, [Notice::ToolsChanged]);
    assert_eq!(told.settled().await, [changed, other, Notice::ToolsChanged]);
}

#[tokio::test]
async fn an_engine_with_a_wrong_extension_does_not_start() {
    let wrong = support::engine().extension(extension("nameless")).start().await;
    let error = ExtensionError::Identifier("nameless".to_owned());
    assert!(matches!(wrong, Err(StartError::Extension(found)) if found == error));
}

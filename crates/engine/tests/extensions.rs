//! Extensions of an author: methods, notifications and capabilities, in both eras.

mod support;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stentor_engine::{Context, Engine, ExtensionError, StartError, ToolError, extension, tool};
use stentor_wire::{code, meta_key};
use support::{Client, methods, modern_meta};

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

fn ask(id: i64, method: &str, mut params: Value, modern: bool) -> Value {
    if modern {
        params["_meta"] = modern_meta();
    }
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

async fn answer(client: &mut Client, id: i64, request: Value) -> Value {
    client.send(request).await;
    client.answer(id).await.0
}

#[tokio::test(start_paused = true)]
async fn clients_of_both_eras_see_what_the_server_declares() {
    let engine = engine().await;
    let mut client = Client::connect(&engine).await;
    let initialize = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    });
    let legacy = answer(&mut client, 1, ask(1, "initialize", initialize, false)).await;
    let modern = answer(&mut client, 2, ask(2, "server/discover", json!({}), true)).await;
    for (answer, tasks) in [(legacy, None), (modern, Some(&json!({})))] {
        let declared = &answer["result"]["capabilities"];
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
    for modern in [false, true] {
        let mut client = match modern {
            false => Client::legacy(&engine).await,
            true => Client::connect(&engine).await,
        };
        client.send(ask(1, "counter/add", json!({"by": 3}), modern)).await;
        let (added, before) = client.answer(1).await;
        assert_eq!(added["result"]["count"], 3);
        assert_eq!(methods(&before).contains(&"notifications/message"), !modern);
        let wrong = answer(&mut client, 2, ask(2, "counter/add", json!({"by": "x"}), modern)).await;
        assert_eq!(wrong["error"]["code"], code::INVALID_PARAMS);
        let refused = answer(&mut client, 3, ask(3, "counter/reset", json!({}), modern)).await;
        assert_eq!(refused["error"], json!({"code": code::INVALID_PARAMS, "message": "no"}));
        let unknown = answer(&mut client, 4, ask(4, "counter/none", json!({}), modern)).await;
        assert_eq!(unknown["error"]["code"], code::METHOD_NOT_FOUND);
        // A client has to declare the second extension.
        let strict = answer(&mut client, 5, ask(5, "strict/ask", json!({}), modern)).await;
        assert!(strict["error"]["message"].as_str().unwrap().contains("capability"), "{strict}");
        if modern {
            let mut declared = ask(6, "strict/ask", json!({}), true);
            declared["params"]["_meta"][meta_key::CLIENT_CAPABILITIES] =
                json!({"extensions": {"com.example/strict": {}}});
            assert!(answer(&mut client, 6, declared).await["result"].is_object());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_listen_receives_the_notifications_that_it_asks_for() {
    let engine = engine().await;
    let mut legacy = Client::legacy(&engine).await;
    let (mut listens, mut deaf) = (Client::connect(&engine).await, Client::connect(&engine).await);
    let asked = json!({"notifications": {
        "counterChanged": true, "toolsListChanged": true, "unknownChanged": true,
    }});
    listens.send(ask(1, "subscriptions/listen", asked, true)).await;
    let acknowledged = listens.next().await.unwrap();
    assert_eq!(
        acknowledged["params"]["notifications"],
        json!({"toolsListChanged": true, "counterChanged": true}),
        "only what exists"
    );
    let other = json!({"notifications": {"counterChanged": 1, "toolsListChanged": true}});
    deaf.send(ask(1, "subscriptions/listen", other, true)).await;
    deaf.next().await.unwrap();

    let params = json!({"count": 7, "_meta": {"a": 1}});
    engine.notify_all(CHANGED, &params).await.unwrap();
    engine.notify_all("notifications/other", json!({})).await.unwrap();
    engine.catalog().add(tool("new", || async { "" })).await.unwrap();
    let heard = [listens.next().await.unwrap(), listens.next().await.unwrap()];
    assert_eq!(methods(&heard), [CHANGED, "notifications/tools/list_changed"]);
    assert_eq!(heard[0]["params"]["count"], 7);
    let meta = json!({"a": 1, (meta_key::SUBSCRIPTION_ID): 1});
    assert_eq!(heard[0]["params"]["_meta"], meta);
    let deaf = [deaf.next().await.unwrap()];
    assert_eq!(methods(&deaf), ["notifications/tools/list_changed"]);
    let told = legacy.ping().await;
    let expected = [CHANGED, "notifications/other", "notifications/tools/list_changed"];
    assert_eq!(methods(&told), expected);
    assert_eq!(told[0]["params"], params);
}

#[tokio::test]
async fn an_engine_with_a_wrong_extension_does_not_start() {
    let wrong = support::engine().extension(extension("nameless")).start().await;
    let error = ExtensionError::Identifier("nameless".to_owned());
    assert!(matches!(wrong, Err(StartError::Extension(found)) if found == error));
}

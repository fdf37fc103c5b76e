//! Results, and the streams that carry them.

use std::time::Duration;

use serde_json::json;
use stentor::protocol::model::CacheScope;
use stentor::{Json, Resource, catalog::ListCache, protocol::CacheHint};
use stentor_tests::{
    Call, Client, Event, Lane, META_SERVER, MODERN_VERSION, Reply, Server, in_every_lane,
};

use crate::{echo, initialize, modern, ping};

// Results

in_every_lane![only_modern_results_carry_a_type_and_cache_hints];

async fn only_modern_results_carry_a_type_and_cache_hints(lane: Lane) {
    let server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    let reference = json!({"type": "ref/prompt", "name": "greet"});
    let argument = json!({"name": "style", "value": ""});
    let both = [
        ("tools/list", json!({}), true),
        ("prompts/list", json!({}), true),
        ("resources/list", json!({}), true),
        ("resources/templates/list", json!({}), true),
        ("resources/read", json!({"uri": "test://static"}), true),
        ("tools/call", json!({"name": "echo", "arguments": {"text": "a"}}), false),
        ("tools/call", json!({"name": "fail"}), false),
        ("tools/call", json!({"name": "sum", "arguments": {"a": 1, "b": 2}}), false),
        ("prompts/get", json!({"name": "greet", "arguments": {"name": "Ann"}}), false),
        ("completion/complete", json!({"ref": reference, "argument": argument}), false),
    ];
    let own = if lane.is_legacy() {
        let uri = json!({"uri": "test://static"});
        vec![
            ("ping", json!({}), false),
            ("logging/setLevel", json!({"level": "info"}), false),
            ("resources/subscribe", uri.clone(), false),
            ("resources/unsubscribe", uri, false),
        ]
    } else {
        vec![("server/discover", json!({}), true)]
    };
    for (method, params, is_cacheable) in both.into_iter().chain(own) {
        let result = client.ask(method, params).await;
        if lane.is_legacy() {
            for member in ["resultType", "ttlMs", "cacheScope", "_meta"] {
                assert_eq!(result.get(member), None, "{method}: {result}");
            }
            continue;
        }
        assert_eq!(result["resultType"], "complete", "{method}: {result}");
        let server = json!({"name": "fixture", "version": "1.2.3"});
        assert_eq!(result["_meta"][META_SERVER], server, "{method}");
        let hints = is_cacheable.then(|| (json!(0), json!("private")));
        let found = result.get("ttlMs").cloned().zip(result.get("cacheScope").cloned());
        assert_eq!(found, hints, "{method}: {result}");
    }
}

#[tokio::test]
async fn a_server_can_set_cache_hints_for_its_lists_and_resources() {
    let server = Server::tuned(|config, _| {
        config.lists.cache =
            ListCache::all(CacheHint { ttl_ms: 60_000, scope: CacheScope::Public });
    })
    .await;
    let kept = Resource::text("test://kept", "kept", "kept").cache(5_000, CacheScope::Public);
    server.engine.catalog().add(kept).await.expect("a new resource");
    let client = Client::connect(&server, Lane::HTTP_MODERN).await;
    for (method, params, ttl_ms, scope) in [
        ("tools/list", json!({}), 60_000, "public"),
        ("server/discover", json!({}), 60_000, "public"),
        ("resources/read", json!({"uri": "test://kept"}), 5_000, "public"),
        ("resources/read", json!({"uri": "test://static"}), 0, "private"),
    ] {
        let result = client.ask(method, params).await;
        let found = (&result["ttlMs"], &result["cacheScope"]);
        assert_eq!(found, (&json!(ttl_ms), &json!(scope)), "{method}");
    }
}

#[tokio::test]
async fn discover_returns_the_server_info_and_capabilities() {
    let server = Server::start().await;
    for lane in [Lane::STDIO_MODERN, Lane::HTTP_MODERN] {
        let client = Client::connect(&server, lane).await;
        let result = client.ask("server/discover", json!({})).await;
        assert_eq!(result["instructions"], "Be gentle.");
        assert_eq!(result["supportedVersions"][0], MODERN_VERSION);
        for capability in ["tools", "prompts", "resources", "logging", "completions"] {
            assert!(result["capabilities"][capability].is_object(), "{result}");
        }
        assert_eq!(result["capabilities"]["resources"]["subscribe"], true);
    }
}

#[tokio::test]
async fn a_result_that_does_not_fit_its_schema_is_an_error_of_the_server() {
    #[derive(serde::Serialize, schemars::JsonSchema)]
    struct Count {
        #[schemars(range(max = 9))]
        count: u32,
    }
    let server = Server::start().await;
    let liar = stentor::tool("liar", || async { Json(Count { count: 10 }) });
    server.engine.catalog().add(liar).await.expect("a new tool");
    let client = Client::connect(&server, Lane::HTTP_MODERN).await;
    assert_eq!(client.call("liar", json!({})).await.error()["code"], -32603);
}

// Streams

fn is_stream(reply: &Reply) -> bool {
    reply.header("content-type") == "text/event-stream"
}

#[tokio::test]
async fn every_stream_has_the_headers_that_keep_it_flowing() {
    let server = Server::start().await;
    let legacy = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let modern_client = Client::connect(&server, Lane::HTTP_MODERN).await;
    let token = json!({"progressToken": 1});
    let legacy_call = legacy.start_with("hold", json!({"name": "a"}), token.clone()).await;
    let modern_call = modern_client.start_with("hold", json!({"name": "b"}), token).await;
    // A listen is answered with a stream, whatever its client prefers.
    let listen =
        modern("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let listen = listen.with("accept", "application/json, text/event-stream;q=0.1");
    let listen = listen.send(server.address).await;
    let get = Call::get(legacy.session()).send(server.address).await;
    for reply in [legacy_call.reply(), modern_call.reply(), &listen, &get] {
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), "text/event-stream");
        assert_eq!(reply.header("cache-control"), "no-store");
        assert_eq!(reply.header("x-accel-buffering"), "no");
    }
}

#[tokio::test]
async fn an_idle_stream_sends_keep_alives() {
    let server = Server::tuned(|_, http| http.keep_alive = Duration::from_millis(20)).await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let mut get = Call::get(client.session()).send(server.address).await;
    let call = modern("tools/call", json!({"name": "hold", "arguments": {"name": "a"}}));
    let mut call = call.send(server.address).await;
    let listen =
        modern("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let mut listen = listen.send(server.address).await;
    assert!(matches!(listen.event().await, Some(Event::Data(..))), "the acknowledgment");
    assert!(matches!(get.event().await, Some(Event::Data(..))), "its id");
    for stream in [&mut get, &mut call, &mut listen] {
        for _ in 0..3 {
            assert_eq!(stream.event().await, Some(Event::Comment));
        }
    }
}

#[tokio::test]
async fn the_order_of_accept_decides_between_json_and_a_stream() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let legacy_echo = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "echo", "arguments": {"text": "hello"}}});
    for (accept, streams) in [
        ("application/json, text/event-stream", false),
        ("text/event-stream, application/json", true),
        ("application/json;q=0.5, text/event-stream", true),
        ("text/event-stream;q=0.5, application/json", false),
        ("*/*", false),
    ] {
        let calls = [
            echo(),
            modern("tools/list", json!({})),
            Call::legacy(client.session(), &legacy_echo),
            Call::legacy(client.session(), &ping(2)),
            Call::post(initialize("2025-11-25").to_string()),
        ];
        for call in calls {
            let mut reply = call.clone().with("accept", accept).send(server.address).await;
            assert_eq!(reply.status, 200);
            assert_eq!(is_stream(&reply), streams, "{accept}: {call:?}");
            if !streams {
                assert_eq!(reply.header("content-type"), "application/json");
            }
            assert!(reply.message().await.expect("an answer")["result"].is_object());
            if streams {
                assert_eq!(reply.message().await, None, "the response ends its stream");
            }
        }
    }
}

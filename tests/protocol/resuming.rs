//! Clients that come back to a stream.

use serde_json::{Value, json};
use stentor_tests::{Call, Client, Event, Lane, Phase, Reply, Server, eventually};

/// The next event of a stream: its message, or null if it only carries an id; and its id.
async fn event(stream: &mut Reply) -> (Value, Option<String>) {
    match stream.event().await.expect("another event") {
        Event::Data(data, id) if data.is_empty() => (Value::Null, id),
        Event::Data(data, id) => (serde_json::from_str(&data).expect("a message"), id),
        Event::Comment => panic!("no time has passed"),
    }
}

/// A legacy call of `hold` that has reported its progress.
async fn hold(server: &Server, client: &Client, name: &str) -> Reply {
    let meta = json!({"progressToken": name});
    let params = json!({"name": "hold", "arguments": {"name": name}, "_meta": meta});
    let request = json!({"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": params});
    let call = Call::legacy(client.session(), &request);
    let reply = call.send(server.address).await;
    server.stage.reached(name, Phase::Waiting).await;
    reply
}

#[tokio::test]
async fn legacy_events_have_ids_of_their_own_and_modern_ones_have_none() {
    let server = Server::start().await;
    let mut ids = std::collections::HashSet::new();
    for version in ["2025-11-25", "2025-06-18"] {
        let client = Client::speaking(&server, Lane::HTTP_LEGACY, version).await;
        let mut streams = vec![client.notices().await.into_reply()];
        server.engine.send_tool_list_changed();
        for name in ["a", "b"] {
            streams.push(hold(&server, &client, &format!("{name} {version}")).await);
        }
        for stream in &mut streams {
            // Older clients would read the empty event as a message.
            if version == "2025-11-25" {
                let (message, id) = event(stream).await;
                assert_eq!(message, Value::Null);
                assert!(ids.insert((version, id.expect("an id"))));
            }
            let (message, id) = event(stream).await;
            assert!(message["method"].is_string(), "{message}");
            assert!(ids.insert((version, id.expect("an id"))), "an id twice in a session");
        }
    }
    let client = Client::connect(&server, Lane::HTTP_MODERN).await;
    let meta = json!({"progressToken": 1});
    let mut call = client.start_with("hold", json!({"name": "c"}), meta).await.into_reply();
    let mut listen = client.hear(&[]).await.into_reply();
    server.mark().await;
    for stream in [&mut call, &mut listen] {
        let (message, id) = event(stream).await;
        assert!(message["method"].is_string(), "{message}");
        assert_eq!(id, None);
    }
}

#[tokio::test]
async fn a_client_that_resumes_a_call_gets_each_event_once() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let mut notices = client.hear(&[]).await;
    let mut stream = hold(&server, &client, "a").await;
    let (_, first) = event(&mut stream).await;
    let (progress, second) = event(&mut stream).await;
    assert_eq!(progress["method"], "notifications/progress");
    drop(stream);
    let come_back = async |id: &Option<String>| {
        let get = Call::get(client.session()).with("last-event-id", id.as_ref().expect("an id"));
        let reply = get.send(server.address).await;
        assert_eq!(reply.status, 200);
        reply
    };
    // Resumes while the call runs: from the first event, and from the last one read.
    let (again, again_id) = event(&mut come_back(&first).await).await;
    assert_eq!((again, &again_id), (progress.clone(), &second));
    let mut live = come_back(&second).await;
    server.stage.release("a");
    let (answer, third) = event(&mut live).await;
    assert_eq!(
        (&answer["id"], answer["result"]["content"][0]["text"].as_str()),
        (&json!("a"), Some("held"))
    );
    assert_eq!(live.event().await, None, "the response is the end");
    // Resumes after the call was answered.
    let mut whole = come_back(&first).await;
    assert_eq!(event(&mut whole).await, (progress, second));
    assert_eq!(event(&mut whole).await, (answer, third));
    assert_eq!(whole.event().await, None);
    // Messages of the call were sent on the call's own stream only.
    server.mark().await;
    assert_eq!(notices.until_mark().await, [""; 0]);
}

#[tokio::test]
async fn a_client_that_resumes_its_notices_gets_each_event_once() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let mut stream = client.notices().await.into_reply();
    let announce = [
        stentor::Engine::send_tool_list_changed,
        stentor::Engine::send_prompt_list_changed,
        stentor::Engine::send_resource_list_changed,
    ];
    let mut seen = vec![event(&mut stream).await];
    for change in announce {
        change(&server.engine);
        seen.push(event(&mut stream).await);
    }
    server.settle().await;
    // The server sent all three, but the client claims to have received one or none. Its old stream
    // is still open.
    for reached in [1, 0] {
        let id = seen[reached].1.as_ref().expect("an id");
        let come_back = Call::get(client.session()).with("last-event-id", id);
        let mut before = std::mem::replace(&mut stream, come_back.send(server.address).await);
        for expected in &seen[reached + 1..] {
            assert_eq!(event(&mut stream).await, *expected);
        }
        assert_eq!(before.event().await, None, "another has taken its place");
    }
    server.engine.send_tool_list_changed();
    let (message, id) = event(&mut stream).await;
    assert_eq!(message["method"], "notifications/tools/list_changed");
    assert!(seen.iter().all(|(_, other)| *other != id));
}

#[tokio::test]
async fn a_client_that_cannot_resume_is_notified_to_read_its_lists_again() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    for id in ["0-999999", "77-0"] {
        let come_back = Call::get(client.session()).with("last-event-id", id);
        let mut stream = come_back.send(server.address).await;
        assert_eq!(stream.status, 200, "{id}");
        let mut told = Vec::new();
        for _ in 0..3 {
            told.push(event(&mut stream).await.0["method"].as_str().expect("a notice").to_owned());
        }
        told.sort();
        let expected = ["prompts", "resources", "tools"]
            .map(|kind| format!("notifications/{kind}/list_changed"));
        assert_eq!(told, expected, "{id}");
        drop(stream);
        eventually("the stream to be given up", async || {
            server.activity().await.sessions.iter().all(|session| !session.attached)
        })
        .await;
    }
}

#[tokio::test]
async fn a_stream_cannot_be_read_by_another_session() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let other = Client::connect(&server, Lane::HTTP_LEGACY).await;
    let mut stream = hold(&server, &client, "a").await;
    let (_, first) = event(&mut stream).await;
    let come_back = Call::get(other.session()).with("last-event-id", first.expect("an id"));
    let mut others = come_back.send(server.address).await;
    server.stage.release("a");
    server.stage.reached("a", Phase::Finished).await;
    server.mark().await;
    server.engine.notify_all("notifications/example/end", json!({})).await.expect("running");
    loop {
        let (message, _) = event(&mut others).await;
        let method = message["method"].as_str().expect("no response of the other one");
        assert_ne!(method, "notifications/progress");
        if method == "notifications/example/end" {
            break;
        }
    }
}

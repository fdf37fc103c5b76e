//! When the hooks of resources run: on one engine, for clients of both eras.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use stentor_engine::testing::{FaultTarget, kill};
use stentor_engine::{
    Engine, EngineBuilder, Mutation, Resource, ResourceTemplate, TemplateVars, Watch, resource,
    resource_template,
};
use support::{Client, methods, modern_meta};
use tokio::time::sleep;

const URI: &str = "test://hooked";

/// The hooks that ran, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    /// The hooks that ran since the last look, once all actors are idle.
    async fn taken(&self) -> Vec<String> {
        sleep(Duration::from_millis(100)).await;
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn hook(&self, name: &'static str) -> impl Fn(Watch) -> std::future::Ready<()> + use<> {
        let log = self.clone();
        move |watch: Watch| {
            log.note(format!("{name} {}", watch.uri()));
            std::future::ready(())
        }
    }

    fn resource(&self, version: &'static str) -> Resource {
        let [on, off] = match version {
            "old" => ["watch", "unwatch"],
            _ => ["watch new", "unwatch new"],
        };
        resource(URI, "hooked", || async { "text" })
            .on_watch(self.hook(on))
            .on_unwatch(self.hook(off))
    }

    fn template(&self) -> ResourceTemplate {
        let (on, off) = (self.clone(), self.clone());
        let read = |vars: TemplateVars| async move { vars["id"].clone() };
        resource_template("DB://orders/{id}", "orders", read)
            .on_watch(move |watch: Watch| {
                on.note(format!("watch {} {:?}", watch.uri(), watch.vars()));
                std::future::ready(())
            })
            .on_unwatch(move |watch: Watch| {
                off.note(format!("unwatch {:?}", watch.vars()));
                std::future::ready(())
            })
    }
}

async fn started(builder: EngineBuilder, log: &Log) -> Engine {
    let resource = log.resource("old");
    builder.resource(resource).resource_template(log.template()).start().await.unwrap()
}

async fn listen(client: &mut Client, id: &str, uris: &[&str]) {
    let notices = json!({"resourceSubscriptions": uris});
    let params = json!({"notifications": notices, "_meta": modern_meta()});
    let method = "subscriptions/listen";
    client.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
    let acknowledged = client.next().await.expect("an acknowledgment");
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
}

async fn cancel(client: &Client, id: &str) {
    let params = json!({"requestId": id, "_meta": modern_meta()});
    let method = "notifications/cancelled";
    client.send(json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
}

async fn unsubscribe(client: &mut Client, uri: &str) {
    let (method, params) = ("resources/unsubscribe", json!({"uri": uri}));
    client.send(json!({"jsonrpc": "2.0", "id": "un", "method": method, "params": params})).await;
    client.answer("un").await;
}

#[tokio::test(start_paused = true)]
async fn hooks_run_for_the_first_watcher_and_after_the_last_one_of_either_era() {
    let log = Log::default();
    let engine = started(support::engine(), &log).await;
    let (mut legacy, mut modern) = (Client::legacy(&engine).await, Client::connect(&engine).await);
    legacy.subscribe("1", URI).await;
    assert_eq!(log.taken().await, ["watch test://hooked"]);
    listen(&mut modern, "2", &["TEST://hooke%64", "test://watched", "test://none"]).await;
    legacy.subscribe("3", "Test://hooked").await;
    unsubscribe(&mut legacy, URI).await;
    assert!(log.taken().await.is_empty(), "somebody watches");
    cancel(&modern, "2").await;
    assert_eq!(log.taken().await, ["unwatch test://hooked"]);
    listen(&mut modern, "4", &[URI]).await;
    assert_eq!(log.taken().await, ["watch test://hooked"]);
    drop(modern);
    assert_eq!(log.taken().await, ["unwatch test://hooked"]);
    engine.shutdown().await;
    assert!(log.taken().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_template_is_watched_once_for_each_uri_and_knows_its_variables() {
    let log = Log::default();
    let engine = started(support::engine(), &log).await;
    let (mut one, mut other) = (Client::legacy(&engine).await, Client::legacy(&engine).await);
    one.subscribe("1", "db://orders/7").await;
    other.subscribe("1", "DB://orders/%37").await;
    other.subscribe("2", "db://orders/a%2Fb").await;
    let (seven, path) = (r#"{"id": "7"}"#, r#"{"id": "a/b"}"#);
    let watched =
        [format!("watch db://orders/7 {seven}"), format!("watch db://orders/a%2Fb {path}")];
    assert_eq!(log.taken().await, watched);
    drop(other);
    assert_eq!(log.taken().await, [format!("unwatch {path}")]);
    drop(one);
    assert_eq!(log.taken().await, [format!("unwatch {seven}")]);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_a_session_or_of_the_hub_ends_no_watch_and_the_end_of_the_session_does() {
    let log = Log::default();
    let engine = started(support::engine(), &log).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::legacy(&engine).await;
        client.subscribe("1", URI).await;
        clients.push(client);
    }
    assert_eq!(log.taken().await, ["watch test://hooked"]);
    for session in engine.sessions() {
        kill(&engine, FaultTarget::Session(session.id)).await.unwrap();
    }
    kill(&engine, FaultTarget::Hub).await.unwrap();
    assert!(log.taken().await.is_empty());
    kill(&engine, FaultTarget::Registry).await.unwrap();
    clients.truncate(1);
    assert!(log.taken().await.is_empty());
    // The last one leaves while there is no hub that could notice it.
    kill(&engine, FaultTarget::Hub).await.unwrap();
    clients.clear();
    assert_eq!(log.taken().await, ["unwatch test://hooked"]);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_item_that_comes_changes_or_goes_while_it_is_watched_begins_and_ends_the_watch() {
    let log = Log::default();
    let engine = support::engine().resource_template(log.template()).start().await.unwrap();
    let mut client = Client::connect(&engine).await;
    listen(&mut client, "1", &[URI, "db://orders/1"]).await;
    assert_eq!(log.taken().await, [r#"watch db://orders/1 {"id": "1"}"#]);
    let catalog = engine.catalog();
    catalog.add(log.resource("old")).await.unwrap();
    assert_eq!(log.taken().await, ["watch test://hooked"]);
    catalog.put(log.resource("new")).await.unwrap();
    assert_eq!(log.taken().await, ["unwatch test://hooked", "watch new test://hooked"]);
    catalog.remove_resource(URI).await.unwrap();
    assert_eq!(log.taken().await, ["unwatch new test://hooked"]);
    // A resource without hooks takes the URI from the template, as it does for a read.
    catalog.add(Resource::text("DB://orders/1", "one", "")).await.unwrap();
    assert_eq!(log.taken().await, [r#"unwatch {"id": "1"}"#]);
    catalog.apply([Mutation::put(log.resource("old"))]).await.unwrap();
    assert_eq!(log.taken().await, ["watch test://hooked"]);
    engine.shutdown().await;
    assert_eq!(log.taken().await, ["unwatch test://hooked"], "the engine has ended");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_or_takes_too_long_is_followed_by_the_next_one() {
    let log = Log::default();
    let on = log.hook("watch");
    let engine = support::engine()
        .configure(|config| config.watches.hook_timeout = Duration::from_secs(2))
        .resource(
            resource(URI, "hooked", || async { "text" })
                .on_watch(move |watch: Watch| {
                    let noted = on(watch);
                    async move {
                        noted.await;
                        std::future::pending().await
                    }
                })
                .on_unwatch(|| async { panic!("a bug of the hook") }),
        )
        .start()
        .await
        .unwrap();
    let mut client = Client::legacy(&engine).await;
    for _ in 0..3 {
        client.subscribe("1", URI).await;
        unsubscribe(&mut client, URI).await;
        client.subscribe("2", URI).await;
        assert_eq!(log.taken().await, ["watch test://hooked"], "one hook at a time");
        sleep(Duration::from_secs(3)).await;
        assert!(log.taken().await.is_empty(), "it counts as watched");
        unsubscribe(&mut client, URI).await;
    }
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_announces_changes_as_long_as_it_likes() {
    let watch = Arc::new(Mutex::new(None));
    let kept = watch.clone();
    let engine = support::engine()
        .resource(Resource::text(URI, "hooked", "").on_watch(move |watch: Watch| {
            watch.send_updated();
            *kept.lock().unwrap() = Some(watch);
            std::future::ready(())
        }))
        .start()
        .await
        .unwrap();
    let mut client = Client::legacy(&engine).await;
    client.subscribe("1", "TEST://hooked").await;
    let updated = client.next().await.expect("a notice");
    assert_eq!(updated["params"]["uri"], "TEST://hooked");
    let watch = watch.lock().unwrap().take().expect("the hook ran");
    assert_eq!(format!("{watch:?}"), r#"Watch { uri: "test://hooked", vars: {} }"#);
    watch.clone().send_updated();
    assert_eq!(methods(&[client.next().await.unwrap()]), ["notifications/resources/updated"]);
    engine.shutdown().await;
    watch.send_updated();
}

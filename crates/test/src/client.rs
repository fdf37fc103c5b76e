//! What a test asks a server.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stentor_engine::Engine;
use stentor_wire::model::{
    GetPromptResult, Prompt, ReadResourceResult, Resource, ResourceTemplate, Tool,
};
use stentor_wire::{Era, ErrorObject, KeyKind, ListKind, LogLevel, Method};

use crate::call::{RunningCall, ToolReply};
use crate::link::{Event, Exchange, Link, ended};
use crate::{Builder, Notices};

/// A client in memory, connected to an engine.
///
/// It reads by itself what the server sends, and keeps what nobody has read yet. The connection
/// closes when the client, its calls and its notices are dropped.
#[derive(Debug)]
pub struct Client {
    link: Arc<Link>,
    /// The result of `initialize`, of a legacy client.
    hello: Option<Value>,
    /// The listens of a modern client, by the resource that it watches; the one for the lists has
    /// no URI.
    listens: Mutex<HashMap<String, Exchange>>,
}

impl Client {
    pub(crate) fn new(link: Link, hello: Option<Value>) -> Self {
        Self { link: Arc::new(link), hello, listens: Mutex::default() }
    }

    /// Connects a client that speaks the newest version of the protocol, without capabilities.
    ///
    /// # Panics
    ///
    /// As [`Builder::connect`].
    pub async fn connect(engine: &Engine) -> Self {
        Self::builder(engine).connect().await
    }

    /// Connects a client that speaks the newest version with a handshake, without capabilities.
    ///
    /// # Panics
    ///
    /// As [`Builder::connect`].
    pub async fn legacy(engine: &Engine) -> Self {
        Self::builder(engine).era(Era::Legacy).connect().await
    }

    /// A client with capabilities, answers, or a version of the test's choice.
    pub fn builder(engine: &Engine) -> Builder {
        Builder::new(engine)
    }

    /// The era in which the client speaks.
    #[must_use]
    pub fn era(&self) -> Era {
        self.link.era()
    }

    /// What the server says of itself: the result of `initialize`, or of `server/discover`.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn server(&self) -> Result<Value, ErrorObject> {
        match &self.hello {
            Some(hello) => Ok(hello.clone()),
            None => self.link.ask(Method::Discover.as_str(), json!({})).await,
        }
    }

    /// Sends any request and waits for its result. `params` serialize to an object, or to null.
    ///
    /// Questions of the server are answered as those of a tool are.
    ///
    /// # Errors
    ///
    /// The server's, or that the session has ended.
    ///
    /// # Panics
    ///
    /// If `params` do not serialize to JSON.
    pub async fn request(
        &self,
        method: &str,
        params: impl Serialize,
    ) -> Result<Value, ErrorObject> {
        self.link.ask(method, to_value(params)).await
    }

    /// Sends any request, and does not wait for its result: [`RunningCall::result`].
    ///
    /// # Panics
    ///
    /// If `params` do not serialize to JSON.
    #[track_caller]
    pub fn start(&self, method: &str, params: impl Serialize) -> RunningCall {
        RunningCall::new(self.link.clone(), self.link.begin(method, to_value(params)))
    }

    /// Sends any notification.
    ///
    /// # Panics
    ///
    /// If `params` do not serialize to JSON.
    pub fn notify(&self, method: &str, params: impl Serialize) {
        self.link.notify(method, to_value(params));
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: &Method,
        params: Value,
    ) -> Result<T, ErrorObject> {
        read(self.link.ask(method.as_str(), params).await?)
    }

    /// Reads all pages of a list.
    async fn list<T: DeserializeOwned>(
        &self,
        method: &Method,
        member: &str,
    ) -> Result<Vec<T>, ErrorObject> {
        let (mut all, mut params) = (Vec::new(), json!({}));
        loop {
            let mut page = self.link.ask(method.as_str(), params).await?;
            let items: Vec<T> = read(page[member].take())?;
            all.extend(items);
            match page.get_mut("nextCursor") {
                Some(cursor) => params = json!({"cursor": cursor.take()}),
                None => return Ok(all),
            }
        }
    }

    /// All tools.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn list_tools(&self) -> Result<Vec<Tool>, ErrorObject> {
        self.list(&Method::ToolsList, "tools").await
    }

    /// All resources.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn list_resources(&self) -> Result<Vec<Resource>, ErrorObject> {
        self.list(&Method::ResourcesList, "resources").await
    }

    /// All resource templates.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn list_resource_templates(&self) -> Result<Vec<ResourceTemplate>, ErrorObject> {
        self.list(&Method::TemplatesList, "resourceTemplates").await
    }

    /// All prompts.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn list_prompts(&self) -> Result<Vec<Prompt>, ErrorObject> {
        self.list(&Method::PromptsList, "prompts").await
    }

    /// Calls a tool and waits for its result. `arguments` serialize to an object, or to null for
    /// none.
    ///
    /// # Errors
    ///
    /// An error of the protocol, as for a tool that does not exist. A tool that fails, or whose arguments
    /// do not fit its schema, has a result, with [`ToolReply::is_error`].
    ///
    /// # Panics
    ///
    /// If `arguments` do not serialize to JSON.
    pub async fn call_tool(
        &self,
        name: &str,
        arguments: impl Serialize,
    ) -> Result<ToolReply, ErrorObject> {
        self.start_tool(name, arguments).reply().await
    }

    /// Calls a tool, and does not wait for it: the call is sent, and what it sends is kept.
    ///
    /// # Panics
    ///
    /// If `arguments` do not serialize to JSON.
    #[track_caller]
    pub fn start_tool(&self, name: &str, arguments: impl Serialize) -> RunningCall {
        let mut params = json!({ "name": name });
        match to_value(arguments) {
            Value::Null => {}
            arguments => params["arguments"] = arguments,
        }
        self.start(Method::ToolsCall.as_str(), params)
    }

    /// Reads a resource.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn read_resource(&self, uri: &str) -> Result<ReadResourceResult, ErrorObject> {
        self.ask(&Method::ResourcesRead, json!({ "uri": uri })).await
    }

    /// Reads a resource of text.
    ///
    /// # Errors
    ///
    /// The server's, or that the resource is not text.
    pub async fn read_text(&self, uri: &str) -> Result<String, ErrorObject> {
        let result = self.link.ask(Method::ResourcesRead.as_str(), json!({ "uri": uri })).await?;
        let text = result["contents"][0]["text"].as_str();
        text.map(str::to_owned).ok_or_else(|| ErrorObject::internal(format!("no text: {result}")))
    }

    /// Fills in a prompt. `arguments` serialize to an object of texts, or to null for none.
    ///
    /// # Errors
    ///
    /// The server's.
    ///
    /// # Panics
    ///
    /// If `arguments` do not serialize to JSON.
    pub async fn get_prompt(
        &self,
        name: &str,
        arguments: impl Serialize,
    ) -> Result<GetPromptResult, ErrorObject> {
        let mut params = json!({ "name": name });
        match to_value(arguments) {
            Value::Null => {}
            arguments => params["arguments"] = arguments,
        }
        self.ask(&Method::PromptsGet, params).await
    }

    /// The values that the server suggests for an argument of a prompt.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn complete_prompt(
        &self,
        name: &str,
        argument: &str,
        value: &str,
    ) -> Result<Vec<String>, ErrorObject> {
        self.complete(json!({"type": "ref/prompt", "name": name}), argument, value).await
    }

    /// The values that the server suggests for a variable of a resource template.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn complete_template(
        &self,
        template: &str,
        variable: &str,
        value: &str,
    ) -> Result<Vec<String>, ErrorObject> {
        self.complete(json!({"type": "ref/resource", "uri": template}), variable, value).await
    }

    async fn complete(
        &self,
        of: Value,
        name: &str,
        value: &str,
    ) -> Result<Vec<String>, ErrorObject> {
        let params = json!({"ref": of, "argument": {"name": name, "value": value}});
        let mut result = self.link.ask(Method::Complete.as_str(), params).await?;
        read(result["completion"]["values"].take())
    }

    /// Sets the least severe log message that the client receives. A modern client asks for it in
    /// every request from now on, and receives none before.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn set_log_level(&self, level: LogLevel) -> Result<(), ErrorObject> {
        if self.era() == Era::Modern {
            self.link.set_level(level);
            return Ok(());
        }
        self.link.ask(Method::SetLevel.as_str(), json!({ "level": level })).await.map(drop)
    }

    /// The notices that come from now on: changes of all lists, updates of the resources that the
    /// client [watches](Self::watch), and whatever else the server sends. A modern client opens a
    /// `subscriptions/listen` for the lists.
    ///
    /// # Panics
    ///
    /// If the server refuses the listen.
    pub async fn notices(&self) -> Notices {
        // What was sent before is not received by these notices.
        self.link.round_trip().await;
        let lists = ListKind::ALL.into_iter().map(|list| (list.member().to_owned(), true.into()));
        let notices = Notices::new(self.link.clone());
        let listening = self.listen_for(String::new(), Value::Object(lists.collect())).await;
        listening.unwrap_or_else(|error| panic!("the server refuses the listen: {error}"));
        notices
    }

    /// Subscribes to the updates of a resource. [Notices](Self::notices) receive them.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn watch(&self, uri: &str) -> Result<(), ErrorObject> {
        if self.era() == Era::Legacy {
            let method = Method::ResourcesSubscribe;
            return self.link.ask(method.as_str(), json!({ "uri": uri })).await.map(drop);
        }
        let filter = json!({ KeyKind::Resource.rules().member: [uri] });
        self.listen_for(uri.to_owned(), filter).await
    }

    /// Ends the subscription to the updates of a resource.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn unwatch(&self, uri: &str) -> Result<(), ErrorObject> {
        if self.era() == Era::Legacy {
            let method = Method::ResourcesUnsubscribe;
            return self.link.ask(method.as_str(), json!({ "uri": uri })).await.map(drop);
        }
        let listen = self.listens.lock().remove(uri);
        if let Some(listen) = listen {
            self.link.cancel(&listen.id, "the test no longer watches it");
        }
        Ok(())
    }

    /// Opens one more `subscriptions/listen`, as for `taskIds` or notifications of an extension.
    /// [Notices](Self::notices) receive what it brings, until the connection closes. Returns the
    /// filter that the server grants.
    ///
    /// In the legacy era there is nothing to do: a session receives what is sent to it.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn listen(&self, filter: Value) -> Result<Value, ErrorObject> {
        match self.era() {
            Era::Legacy => Ok(filter),
            Era::Modern => Ok(self.open_listen(filter).await?.0),
        }
    }

    async fn listen_for(&self, uri: String, filter: Value) -> Result<(), ErrorObject> {
        if self.era() == Era::Legacy || self.listens.lock().contains_key(&uri) {
            return Ok(());
        }
        let (_, exchange) = self.open_listen(filter).await?;
        self.listens.lock().insert(uri, exchange);
        Ok(())
    }

    async fn open_listen(&self, filter: Value) -> Result<(Value, Exchange), ErrorObject> {
        let params = json!({ "notifications": filter });
        let mut exchange = self.link.begin(Method::Listen.as_str(), params);
        match exchange.events.recv().await {
            Some(Event::Acknowledged(granted)) => Ok((granted, exchange)),
            Some(Event::Response(Err(error))) => Err(error),
            Some(other) => Err(ErrorObject::internal(format!("no acknowledgment but {other:?}"))),
            None => Err(ended()),
        }
    }

    /// Returns when the client has received every notice of the changes up to now.
    pub async fn settle(&self) {
        self.link.settle().await;
    }

    /// Disconnects in order: the server answers the requests that run, as during a shutdown, and
    /// ends the session.
    pub async fn close(self) {
        self.link.close().await;
    }
}

#[track_caller]
fn to_value(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("a value that serializes to JSON")
}

/// Reads what a server answered.
pub(crate) fn read<T: DeserializeOwned>(value: Value) -> Result<T, ErrorObject> {
    let text = value.to_string();
    serde_json::from_value(value)
        .map_err(|error| ErrorObject::internal(format!("the answer is wrong: {error}: {text}")))
}

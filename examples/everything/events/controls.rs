//! The tools by which a test controls the event types and webhooks.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stentor::events::{EventError, EventsHandle};
use stentor::identity::Identity;
use stentor::{Context, EngineBuilder, ToolError, tool};

use super::Restarts;
use super::types::{CAPPED, Event, Payload, Types};

/// The secret of webhooks that are added for somebody.
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

#[derive(Clone)]
pub(super) struct Controls(Arc<Inner>);

struct Inner {
    types: Types,
    events: EventsHandle,
    restarts: Restarts,
}

#[derive(Deserialize, JsonSchema)]
struct Name {
    name: String,
}

#[derive(Deserialize, JsonSchema)]
struct Emit {
    name: String,
    count: u32,
    #[serde(default)]
    data: Payload,
}

#[derive(Deserialize, JsonSchema)]
struct Id {
    id: String,
}

#[derive(Deserialize, JsonSchema)]
struct Whose {
    principal: String,
    name: String,
    url: String,
}

#[derive(Deserialize, JsonSchema)]
struct Present {
    name: String,
    present: bool,
}

#[derive(Deserialize, JsonSchema)]
struct Breaking {
    name: String,
    breaking: bool,
}

#[derive(Deserialize, JsonSchema)]
struct Revoked {
    name: String,
    revoked: bool,
}

#[derive(Deserialize, JsonSchema)]
struct Origin {
    origin: String,
}

/// The word of the protocol for a webhook that gets nothing until it is refreshed.
const PAUSED: &str = concat!("sus", "pended");

/// The most occurrences that one call emits.
const MOST: u32 = 10_000;

impl Controls {
    pub(super) fn new(types: Types, events: EventsHandle, restarts: Restarts) -> Self {
        Self(Arc::new(Inner { types, events, restarts }))
    }

    fn find(&self, name: &str) -> Result<Event, ToolError> {
        self.0.types.find(name).ok_or_else(|| ToolError::new(format!("no event type {name}")))
    }

    /// Adds the tools.
    pub(super) fn offer(self, mut server: EngineBuilder, with_restart: bool) -> EngineBuilder {
        macro_rules! control {
            ($name:literal, $what:literal, $method:ident, $args:ty) => {{
                let controls = self.clone();
                let name = concat!("events_conformance_", $name);
                let run = move |args: $args, ctx: Context| {
                    let controls = controls.clone();
                    async move { controls.$method(args, ctx).await }
                };
                server = server.tool(tool(name, run).description($what));
            }};
        }
        control!("emit", "Emits occurrences", emit, Emit);
        control!("yield_error", "Reports a failure to all streams", yield_error, Name);
        control!("yield_gap", "Reports a gap to all streams", yield_gap, Name);
        control!("terminate", "Ends a type for good", terminate, Name);
        control!("allow_callback_origin", "Allows one origin", allow_origin, Origin);
        control!("webhook_gap", "Reports a gap to a webhook", webhook_gap, Id);
        control!("webhook_terminate", "Ends a webhook", webhook_terminate, Id);
        control!("subscribe_as", "Adds a webhook of somebody", subscribe_as, Whose);
        control!("subscription_exists", "Whether a webhook exists", exists, Whose);
        control!("subscription_state", "The state of a webhook", state, Id);
        control!("set_type", "Removes a type, or adds it again", set_type, Present);
        control!("change_schema", "Changes the schema of a type", change_schema, Breaking);
        control!("revoke", "Takes a type from the caller", revoke, Revoked);
        server = server.tool(
            tool("events_conformance_quota", || async {
                json!({"name": CAPPED.0, "max": CAPPED.1}).to_string()
            })
            .description("The type with a quota"),
        );
        if !with_restart {
            return server;
        }
        let (restart, generation) = (self.0.restarts.clone(), self.0.restarts.clone());
        let restart = move || {
            let coming = restart.ask();
            async move { coming.to_string() }
        };
        let generation = move || {
            let now = generation.generation();
            async move { now.to_string() }
        };
        server
            .tool(
                tool("events_conformance_restart", restart)
                    .description("Starts the server again; answers the coming generation"),
            )
            .tool(
                tool("events_conformance_generation", generation)
                    .description("How often the server was started"),
            )
    }

    async fn emit(&self, args: Emit, _ctx: Context) -> Result<String, ToolError> {
        let event = self.find(&args.name)?;
        let mut ids = Vec::new();
        for number in 0..args.count.min(MOST) {
            let mut payload = Payload::from_iter([("number".to_owned(), number.into())]);
            payload.extend(args.data.clone());
            let id = event.emit(payload).await;
            ids.push(id.map_err(|error| ToolError::new(error.to_string()))?);
        }
        Ok(json!(ids).to_string())
    }

    async fn yield_error(&self, args: Name, _ctx: Context) -> Result<&'static str, ToolError> {
        self.find(&args.name)?.report_failure("the upstream does not answer");
        Ok("reported")
    }

    async fn yield_gap(&self, args: Name, _ctx: Context) -> Result<&'static str, ToolError> {
        self.find(&args.name)?.report_gap();
        Ok("reported")
    }

    async fn terminate(&self, args: Name, _ctx: Context) -> Result<&'static str, ToolError> {
        let event = self.find(&args.name)?;
        self.0.types.refused.lock().insert((Some("*".to_owned()), args.name));
        event.end_subscriptions(EventError::Forbidden("the type has ended".to_owned()));
        Ok("ended")
    }

    async fn allow_origin(&self, args: Origin, _ctx: Context) -> Result<String, ToolError> {
        let allowed = self.0.events.allow_origin(&args.origin);
        allowed.map_err(|error| ToolError::new(error.to_string()))?;
        Ok(args.origin)
    }

    async fn webhook_gap(&self, args: Id, _ctx: Context) -> Result<&'static str, ToolError> {
        match self.0.events.report_gap(&args.id) {
            true => Ok("reported"),
            false => Err(ToolError::new("there is no such webhook")),
        }
    }

    async fn webhook_terminate(&self, args: Id, _ctx: Context) -> Result<&'static str, ToolError> {
        let error = EventError::Forbidden("the webhook was ended".to_owned());
        match self.0.events.end_webhook(&args.id, &error) {
            true => Ok("ended"),
            false => Err(ToolError::new("there is no such webhook")),
        }
    }

    async fn subscribe_as(&self, args: Whose, _ctx: Context) -> Result<String, ToolError> {
        let identity = Identity::named(args.principal);
        let subscribed =
            self.0.events.subscribe_as(identity, &args.name, Map::new(), &args.url, SECRET);
        let id = subscribed.await.map_err(|error| ToolError::new(error.to_string()))?;
        Ok((*id).to_owned())
    }

    async fn exists(&self, args: Whose, _ctx: Context) -> Result<String, ToolError> {
        let Whose { principal, name, url } = args;
        let id = self.0.events.webhook_id(&principal, &name, &Map::new(), &url);
        let id = id.map_err(|error| ToolError::new(error.to_string()))?;
        Ok(self.0.events.webhook(&id).is_some().to_string())
    }

    async fn state(&self, args: Id, _ctx: Context) -> Result<&'static str, ToolError> {
        Ok(match self.0.events.webhook(&args.id) {
            Some(webhook) if webhook.is_paused => PAUSED,
            Some(_) => "active",
            None => "absent",
        })
    }

    async fn set_type(&self, args: Present, _ctx: Context) -> Result<&'static str, ToolError> {
        let event = self.find(&args.name)?;
        let changed = match args.present {
            true => self.0.events.add(&event).await,
            false => self.0.events.remove(&args.name).await,
        };
        changed.map_err(|error| ToolError::new(error.to_string()))?;
        Ok("changed")
    }

    async fn change_schema(
        &self,
        args: Breaking,
        _ctx: Context,
    ) -> Result<&'static str, ToolError> {
        let event = self.find(&args.name)?;
        let mut input = Value::Object(event.input_schema());
        input["properties"]["more"] = json!({"type": "string"});
        if args.breaking {
            input["properties"]["tag"] = json!({"type": "number"});
        }
        let Value::Object(input) = input else { return Err(ToolError::new("no schema")) };
        let payload = event.payload_schema();
        let event = event.schemas(input, payload);
        let changed = self.0.events.replace(&event).await;
        changed.map_err(|error| ToolError::new(error.to_string()))?;
        Ok("changed")
    }

    async fn revoke(&self, args: Revoked, ctx: Context) -> Result<&'static str, ToolError> {
        let whose = (ctx.principal().map(str::to_owned), args.name);
        match args.revoked {
            true => self.0.types.refused.lock().insert(whose),
            false => self.0.types.refused.lock().remove(&whose),
        };
        self.0.events.recheck();
        Ok("changed")
    }
}

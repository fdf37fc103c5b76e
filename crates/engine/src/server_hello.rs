//! The server's description of itself for clients that begin. It never changes, so it is encoded
//! once.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use stentor_wire::encode::{CacheHint, ResultBody, ServerIdentity};
use stentor_wire::model::{Implementation, JsonObject};
use stentor_wire::{Era, ErrorObject, ProtocolVersion};

use crate::extension::ProtocolExtension;

#[derive(Debug)]
pub(crate) struct ServerHello {
    initialize: Vec<(ProtocolVersion, Result<ResultBody, ErrorObject>)>,
    discover: Result<ResultBody, ErrorObject>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Initialize<'a> {
    protocol_version: &'a str,
    capabilities: &'a JsonObject,
    server_info: &'a Implementation,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Discover<'a> {
    supported_versions: [&'static str; ProtocolVersion::ALL.len()],
    capabilities: &'a JsonObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
}

impl ServerHello {
    /// `more` are capabilities of the application's own, which clients see as they are.
    pub(crate) fn new(
        identity: &ServerIdentity,
        instructions: Option<&str>,
        extensions: &[Arc<dyn ProtocolExtension>],
        more: &JsonObject,
        cache: CacheHint,
    ) -> Self {
        let capabilities = &capabilities(Era::Legacy, extensions, more);
        let initialize = |version: ProtocolVersion| {
            let result = Initialize {
                protocol_version: version.as_str(),
                capabilities,
                server_info: identity.info(),
                instructions,
            };
            (version, ResultBody::new(&result))
        };
        let legacy = ProtocolVersion::ALL.into_iter().filter(|it| it.era() == Era::Legacy);
        let discover = ResultBody::new(&Discover {
            supported_versions: ProtocolVersion::ALL.map(ProtocolVersion::as_str),
            capabilities: &self::capabilities(Era::Modern, extensions, more),
            instructions,
        });
        Self {
            initialize: legacy.map(initialize).collect(),
            discover: discover.map(|result| result.with_cache(cache)),
        }
    }

    /// The answer to `initialize` that agrees on this version.
    pub(crate) fn initialize(&self, version: ProtocolVersion) -> Result<ResultBody, ErrorObject> {
        let found = self.initialize.iter().find(|(known, _)| *known == version);
        found.map_or_else(
            || Err(ErrorObject::unsupported_version(version.as_str())),
            |(_, answer)| answer.clone(),
        )
    }

    pub(crate) fn discover(&self) -> Result<ResultBody, ErrorObject> {
        self.discover.clone()
    }
}

/// All capabilities are declared, because items of every kind can be added while the server runs.
fn capabilities(
    era: Era,
    extensions: &[Arc<dyn ProtocolExtension>],
    more: &JsonObject,
) -> JsonObject {
    let mut declared = more.clone();
    let list = || serde_json::json!({"listChanged": true});
    declared.insert("tools".to_owned(), list());
    declared.insert("prompts".to_owned(), list());
    let resources = serde_json::json!({"listChanged": true, "subscribe": true});
    declared.insert("resources".to_owned(), resources);
    declared.insert("completions".to_owned(), serde_json::json!({}));
    declared.insert("logging".to_owned(), serde_json::json!({}));
    let settings = extensions.iter().filter_map(|extension| {
        Some((extension.identifier().to_owned(), extension.settings(era)?))
    });
    let settings: JsonObject = settings.collect();
    if !settings.is_empty() {
        declared.insert("extensions".to_owned(), Value::Object(settings));
    }
    declared
}

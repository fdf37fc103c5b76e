//! The server's description of itself for clients that begin. It never changes, so it is encoded
//! once.

use serde::Serialize;
use serde_json::Value;
use stentor_wire::encode::{CacheHint, ResultBody, ServerIdentity};
use stentor_wire::model::{Implementation, ServerCapabilities};
use stentor_wire::{Era, ErrorObject, ProtocolVersion, TASKS_EXTENSION};

type Answer = Result<ResultBody, ErrorObject>;

#[derive(Debug)]
pub(crate) struct ServerHello {
    initialize: Vec<(ProtocolVersion, Answer)>,
    discover: Answer,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Initialize<'a> {
    protocol_version: &'a str,
    capabilities: &'a ServerCapabilities,
    server_info: &'a Implementation,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
}

impl ServerHello {
    pub(crate) fn new(
        identity: &ServerIdentity,
        instructions: Option<&str>,
        cache: CacheHint,
    ) -> Self {
        let capabilities = &capabilities();
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
        let discover = discover(instructions, capabilities);
        Self {
            initialize: legacy.map(initialize).collect(),
            discover: discover.map(|result| result.with_cache(cache)),
        }
    }

    /// The answer to `initialize` that agrees on this version.
    pub(crate) fn initialize(&self, version: ProtocolVersion) -> Answer {
        let found = self.initialize.iter().find(|(known, _)| *known == version);
        found.map_or_else(
            || Err(ErrorObject::unsupported_version(version.as_str())),
            |(_, answer)| answer.clone(),
        )
    }

    pub(crate) fn discover(&self) -> Answer {
        self.discover.clone()
    }
}

fn discover(instructions: Option<&str>, capabilities: &ServerCapabilities) -> Answer {
    let mut result = serde_json::json!({
        "supportedVersions": ProtocolVersion::ALL.map(ProtocolVersion::as_str),
        "capabilities": capabilities,
    });
    result["capabilities"]["extensions"] = serde_json::json!({ (TASKS_EXTENSION): {} });
    if let Some(instructions) = instructions {
        result["instructions"] = Value::from(instructions);
    }
    ResultBody::new(&result)
}

/// All capabilities are declared, because items of every kind can be added while the server runs.
fn capabilities() -> ServerCapabilities {
    let declared = serde_json::json!({
        "tools": {"listChanged": true},
        "resources": {"listChanged": true, "subscribe": true},
        "prompts": {"listChanged": true},
        "completions": {},
        "logging": {},
    });
    serde_json::from_value(declared).unwrap_or_default()
}

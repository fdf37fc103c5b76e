//! Rewrites content that the version of a client does not have, in forms that it has.

use stentor_wire::ProtocolVersion;
use stentor_wire::model::{CallToolResult, ContentBlock, GetPromptResult};

/// Rewrites the result of a tool for a version. In the legacy era structured content is an object;
/// any other value is sent as text only.
pub(super) fn tool_result(result: &mut CallToolResult, version: ProtocolVersion) {
    if version.era().structured_is_object()
        && let Some(value) = result.structured_content.take_if(|value| !value.is_object())
        && result.content.is_empty()
    {
        result.content.push(ContentBlock::text(value.to_string()));
    }
    result.content.iter_mut().for_each(|block| content(block, version));
}

pub(crate) fn prompt_result(result: &mut GetPromptResult, version: ProtocolVersion) {
    result.messages.iter_mut().for_each(|message| content(&mut message.content, version));
}

/// Replaces content of a kind that the version does not have by text: a client that meets an
/// unknown kind refuses the whole result.
fn content(block: &mut ContentBlock, version: ProtocolVersion) {
    let text = match block {
        ContentBlock::Audio(audio) if !version.has_audio() => {
            format!("(audio of the type {})", audio.mime_type)
        }
        ContentBlock::ResourceLink(link) if !version.has_resource_links() => {
            format!("{}: {}", link.name, link.uri)
        }
        _ => return,
    };
    *block = ContentBlock::text(text);
}

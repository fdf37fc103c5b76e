//! What the version of a client has no words for, said in those that it has.

use stentor_wire::ProtocolVersion;
use stentor_wire::model::{CallToolResult, ContentBlock, GetPromptResult};

/// Writes the result of a tool as a version has it: to the legacy era structured content is an object.
/// What is left out, the text says, too.
pub(super) fn tool_result(result: &mut CallToolResult, version: ProtocolVersion) {
    if version.era().structured_is_object()
        && let Some(value) = result.structured_content.take_if(|value| !value.is_object())
        && result.content.is_empty()
    {
        result.content.push(ContentBlock::text(value.to_string()));
    }
    result.content.iter_mut().for_each(|block| content(block, version));
}

/// Writes the messages of a prompt as a version has them.
pub(crate) fn prompt_result(result: &mut GetPromptResult, version: ProtocolVersion) {
    result.messages.iter_mut().for_each(|message| content(&mut message.content, version));
}

/// A client that meets a kind of content that it does not know refuses all of it.
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

//! An actor of the host that runs the calls of two tools, one at a time.

use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, Message, RpcReplyPort, SpawnErr};
use schemars::JsonSchema;
use serde::Deserialize;
use stentor::{Context, Tool, ToolError, actor_tool};
use tokio::time::sleep;

pub(crate) const CONVERTER: &str = "converter";
const PAGES: u32 = 4;

type Reply = RpcReplyPort<Result<String, ToolError>>;

#[derive(Deserialize, JsonSchema)]
struct File {
    /// What to convert; `poison` crashes the converter.
    #[schemars(length(max = 4_096))]
    path: String,
}

enum ConverterMsg {
    Convert(File, Context, Reply),
    Count(Reply),
}

impl Message for ConverterMsg {}

pub(crate) fn tools() -> [Tool; 2] {
    // Looked up by name for each call, because a restarted converter has a new reference.
    let converter = || ActorRef::where_is(CONVERTER);
    let convert = actor_tool("convert", converter, ConverterMsg::Convert);
    let count = actor_tool("count", converter, ConverterMsg::Count);
    [
        convert.description("Converts a file page by page; poison is what it cannot digest"),
        count.description("Counts the files that were converted"),
    ]
}

pub(crate) async fn start(host: ActorCell) -> Result<(), SpawnErr> {
    Actor::spawn_linked(Some(CONVERTER.to_owned()), Converter, (), host).await?;
    Ok(())
}

struct Converter;

impl Actor for Converter {
    type Msg = ConverterMsg;
    /// The number of converted files.
    type State = u32;
    type Arguments = ();

    async fn pre_start(
        &self,
        _myself: ActorRef<ConverterMsg>,
        (): (),
    ) -> Result<u32, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _myself: ActorRef<ConverterMsg>,
        message: ConverterMsg,
        converted: &mut u32,
    ) -> Result<(), ActorProcessingErr> {
        // Not `reply.send(..)?`: it is no error of the converter if the caller has disconnected.
        match message {
            ConverterMsg::Convert(file, ctx, reply) => {
                for page in 1..=PAGES {
                    if reply.is_closed() {
                        return Ok(());
                    }
                    sleep(Duration::from_millis(400)).await;
                    if file.path == "poison" {
                        // For ractor this is a failure, like a panic.
                        return Err("the file is poisoned".into());
                    }
                    ctx.report_progress(page.into(), Some(PAGES.into()), format!("page {page}"));
                }
                *converted += 1;
                let _ = reply.send(Ok(format!("Converted {}", file.path)));
            }
            ConverterMsg::Count(reply) => {
                let _ = reply.send(Ok(format!("{converted} files since the converter started")));
            }
        }
        Ok(())
    }
}

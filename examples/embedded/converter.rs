//! An actor of the host that does the work of two tools, one file after the other.

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

/// Its tools.
pub(crate) fn tools() -> [Tool; 2] {
    // By its name, as each life of the converter has another reference.
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
    /// How many files it has converted.
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
        // Not `reply.send(..)?`: that whoever asked has gone is no reason to fail.
        match message {
            ConverterMsg::Convert(file, ctx, reply) => {
                for page in 1..=PAGES {
                    if reply.is_closed() {
                        return Ok(());
                    }
                    sleep(Duration::from_millis(400)).await;
                    if file.path == "poison" {
                        // To ractor a failure, as a panic would be.
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

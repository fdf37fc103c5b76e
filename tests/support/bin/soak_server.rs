//! The server of the suite `soak`. It reads one [`Command`] per line and answers each with a line.

use std::error::Error;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stentor::{Context, ask::AskError, tool};
use stentor_tests::{Addresses, Census, Command, Server, Settings, Tokens, description, long_uri};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

#[derive(Deserialize, JsonSchema)]
struct Name {
    #[allow(dead_code, reason = "only its schema is used")]
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = std::env::args().nth(1).ok_or("the settings are missing")?;
    let settings: Settings = serde_json::from_str(&settings)?;
    let server = Server::tuned(|config, http| {
        if settings.tokens {
            *http = std::mem::take(http).auth(Tokens::default());
        }
        config.sessions.idle_timeout = settings.idle;
        config.stall_timeout = settings.stall;
        config.drain_timeout = settings.patience;
        config.calls.ask_timeout = settings.patience;
    })
    .await;
    let ask = async |ctx: Context| -> Result<&str, AskError> {
        let _: Name = ctx.elicit("Who are you?").await?;
        Ok("thanks")
    };
    server.engine.catalog().add(tool("ask", ask)).await?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addresses = Addresses { http: server.address, pipes: listener.local_addr()? };
    let engine = server.engine.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let engine = engine.clone();
            tokio::spawn(async move {
                let (reader, writer) = socket.into_split();
                // A client that disconnects is not an error.
                let _ = stentor::stdio::serve_on(&engine, reader, writer).await;
            });
        }
    });

    answer(&addresses).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Command::Change(n) => {
                let changed = Server::tool("change").description(description(n));
                server.engine.catalog().put(changed).await?;
                answer(&()).await?;
            }
            Command::Touch(count) => {
                for n in 0..count {
                    server.engine.send_resource_updated(&long_uri(n));
                }
                answer(&()).await?;
            }
            Command::Notify { count, bytes } => {
                let params = json!({"padding": "x".repeat(bytes)});
                for _ in 0..count {
                    server.engine.notify_all("notifications/example/flood", &params).await?;
                }
                answer(&()).await?;
            }
            Command::Count => {
                answer(&Census::take(&server).await.ok_or("an actor is missing")?).await?;
            }
        }
    }
    Ok(())
}

async fn answer(answer: &impl Serialize) -> Result<(), Box<dyn Error>> {
    let mut stdout = tokio::io::stdout();
    stdout.write_all(format!("{}\n", serde_json::to_string(answer)?).as_bytes()).await?;
    Ok(stdout.flush().await?)
}

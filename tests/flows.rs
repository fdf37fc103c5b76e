//! The everyday requests of a client, in every lane.

#[path = "flows/calls.rs"]
mod calls;
#[path = "flows/items.rs"]
mod items;
#[path = "flows/lists.rs"]
mod lists;

use stentor_tests::{Client, Lane, Server};

async fn connected(lane: Lane) -> (Server, Client) {
    let server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    (server, client)
}

//! Nodes of a cluster.
mod balancer;
use std::net::SocketAddr;
#[tokio::main]
async fn main() {
    let mut arguments =
        std::env::args().skip(1).map(|address| address.parse::<SocketAddr>().unwrap());
    let balancer = balancer::Balancer::start(arguments.next().unwrap(), arguments).await.unwrap();
    eprintln!("{}", balancer.address());
    std::future::pending::<()>().await
}

//! A server for users who are known: OAuth or fixed tokens, tools and resources that only some users
//! see, scopes that clients are told to ask for, and rights that change while clients are connected.
//!
//!     # OAuth: the address that clients use, and who gives out their tokens.
//!     cargo run --release -p stentor-examples --example secured -- \
//!         --http 127.0.0.1:8000 --resource http://127.0.0.1:8000/mcp --issuer http://127.0.0.1:9000
//!
//!     # Two fixed tokens, without OAuth.
//!     cargo run --release -p stentor-examples --example secured -- --http 127.0.0.1:8000 --static
//!
//! * `main.rs`: who may connect.
//! * `grants.rs`: labels of users, which change at run time.
//! * `items.rs`: what is offered, and to whom.
//! * `rights.rs`: tools that change rights.
//!
//! Further options: `--anonymous` also serves strangers; `--allow-origin ORIGIN` lets web pages call;
//! `--leeway SECONDS` is for clocks that differ. Two processes form one server with `--node NAME
//! --cluster ADDR --seed ADDR`; both keep their grants in one `--grants FILE`.

mod grants;
mod items;
mod rights;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use grants::Grants;
use stentor::Engine;
use stentor::cluster::{Cluster, ClusterConfig};
use stentor::http::{Authenticator, HttpConfig, OriginPolicy, StaticTokens, serve_on};
use stentor::identity::Identity;
use stentor::oauth::OAuth;
use stentor::{session::NodeId, signal};
use tokio::net::TcpListener;

const USAGE: &str = "usage: secured --http ADDR (--static | --resource URL --issuer URL...) \
                     [--anonymous] [--leeway SECONDS] [--allow-origin ORIGIN]... \
                     [--node NAME --cluster ADDR [--seed ADDR]... --grants FILE]";

#[derive(Default)]
struct Arguments {
    http: Option<SocketAddr>,
    fixed_tokens: bool,
    resource: Option<String>,
    issuers: Vec<String>,
    anonymous: bool,
    leeway: Option<f64>,
    origins: Vec<String>,
    node: Option<NodeId>,
    cluster: Option<SocketAddr>,
    seeds: Vec<String>,
    grants: Option<PathBuf>,
}

impl Arguments {
    fn read() -> Result<Self, Box<dyn Error>> {
        let (mut read, mut given) = (Self::default(), std::env::args().skip(1));
        while let Some(name) = given.next() {
            let mut value = || given.next().ok_or(USAGE);
            match &*name {
                "--http" => read.http = Some(value()?.parse()?),
                "--static" => read.fixed_tokens = true,
                "--resource" => read.resource = Some(value()?),
                "--issuer" => read.issuers.push(value()?),
                "--anonymous" => read.anonymous = true,
                "--leeway" => read.leeway = Some(value()?.parse()?),
                "--allow-origin" => read.origins.push(value()?),
                "--node" => read.node = Some(NodeId::new(value()?)?),
                "--cluster" => read.cluster = Some(value()?.parse()?),
                "--seed" => read.seeds.push(value()?),
                "--grants" => read.grants = Some(value()?.into()),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(read)
    }

    /// Who may connect.
    fn authenticator(&self) -> Result<Arc<dyn Authenticator>, Box<dyn Error>> {
        if self.fixed_tokens {
            let ann = Identity::named("ann").scopes(["mcp:read", "admin"]);
            let bob = Identity::named("bob").scopes(["mcp:read"]);
            let tokens = [("ann-secret-token-0001", ann), ("bob-secret-token-0002", bob)];
            return Ok(Arc::new(StaticTokens::new(tokens)?));
        }
        let mut oauth =
            OAuth::resource(self.resource.as_deref().ok_or(USAGE)?).scopes(["mcp:read"]);
        for issuer in &self.issuers {
            oauth = oauth.issuer(issuer.as_str());
        }
        if let Some(leeway) = self.leeway {
            oauth = oauth.leeway(Duration::from_secs_f64(leeway));
        }
        Ok(Arc::new(oauth.build()?))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let _logs = stentor_examples::log("info,ractor=warn,ractor_cluster=error,chitchat=warn");
    let arguments = Arguments::read()?;
    let address = arguments.http.ok_or(USAGE)?;
    let grants = Grants::new(arguments.grants.clone());

    let mut server = Engine::builder("Stentor Secured", env!("CARGO_PKG_VERSION"))
        .state(grants.clone())
        // What a user sees follows from the scopes of the token, and from what was granted.
        .labels(move |user| grants.labels(user));
    if let Some(node) = arguments.node.clone() {
        server = server.configure(|config| config.node = node);
    }
    let engine = rights::add(items::add(server)).start().await?;

    let mut origins = OriginPolicy::loopback().listed_origins_only();
    for origin in &arguments.origins {
        origins = origins.with_origin(origin);
    }
    let http = HttpConfig::new()
        .auth(arguments.authenticator()?)
        .allow_anonymous(arguments.anonymous)
        .origins(origins);

    let cluster = match arguments.cluster {
        Some(nodes) => Some(join(&engine, nodes, arguments.seeds).await?),
        None => None,
    };
    let listener = TcpListener::bind(address).await?;
    stentor_examples::say(format!("Serving http://{address}/mcp. Ctrl-C ends it."));
    let shutdown = async move {
        signal::terminated().await;
        if let Some(cluster) = cluster {
            cluster.leave().await;
        }
    };
    serve_on(engine, listener, http, shutdown).await?;
    Ok(())
}

/// Joins the other node, which is on this machine, too. Nodes trust what others say of a user, so
/// between machines they need TLS (`ClusterConfig::tls`).
async fn join(
    engine: &Engine,
    nodes: SocketAddr,
    seeds: Vec<String>,
) -> Result<Cluster, Box<dyn Error>> {
    let mut config = ClusterConfig::new("secured", "a secret for demonstrations");
    (config.listen, config.gossip) = (nodes, nodes);
    config.seeds = seeds;
    let cluster = Cluster::join(engine, config).await?;
    cluster.ready().await;
    Ok(cluster)
}

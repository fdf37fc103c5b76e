//! The story: what happens to the nodes, step by step.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::balancer::Balancer;
use crate::client::{Client, Era, Protocol};
use crate::nodes::{Node, name};
use crate::stage::{Failure, Stage, View};
use crate::table::{LEGEND, PATIENCE, Sign};

/// A pause, so that a human can follow.
const BREATH: Duration = Duration::from_millis(1_200);
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) struct Show {
    stage: Arc<Stage>,
    balancer: Arc<Balancer>,
    nodes: Vec<Node>,
    acts: usize,
    /// The tasks of the clients, and the task that reports on the balancer.
    others: JoinSet<()>,
}

impl Show {
    /// Starts the nodes and the balancer, and waits until each node shows the items of all.
    pub(crate) async fn begin(nodes: usize) -> Result<Self, Failure> {
        let stage = Arc::new(Stage::new());
        let balancer = Balancer::start(SocketAddr::from(([127, 0, 0, 1], 0)), []).await?;
        let balancer = Arc::new(balancer);
        let mut show = Self { stage, balancer, nodes: Vec::new(), acts: 0, others: JoinSet::new() };
        show.title(format!("{nodes} nodes, each a process, and a balancer"));
        for number in 1..=nodes {
            show.start(number).await?;
        }
        show.settled().await?;
        show.nodes.iter().for_each(|node| show.balancer.add(node.http));
        show.stage.say("all", "know each other, and each offers what all of them have");
        let url = show.url();
        show.stage.say("balancer", format!("{url}: each request goes to the next node"));
        Ok(show)
    }

    /// Keeps everything running, for the user's own clients.
    pub(crate) async fn serve(&mut self) -> Result<bool, Failure> {
        let url = self.url();
        say("")?;
        say("It runs until Ctrl-C. Try, in other terminals:")?;
        say(format!("  cargo run --release -p stentor-watch --example watch -- {url}"))?;
        say(format!(
            "  cargo run --release -p stentor-watch --example watch -- {url} --call add_tool '{{\"name\":\"hello\"}}'"
        ))?;
        say(format!(
            "  cargo run --release -p stentor-watch --example watch -- {url} --call hello '{{}}'"
        ))?;
        say(
            "The tool is added to one node, heard of through all of them, and called through any.",
        )?;
        say("Or kill -STOP, -CONT and -KILL nodes, and see what a client notices of it:")?;
        for node in &self.nodes {
            let (number, http) = (node.number, node.http);
            let process = node.process();
            say(format!("  node {number}: process {process}, also at http://{http}/mcp"))?;
        }
        self.others.spawn(watch_balancer(self.stage.clone(), self.balancer.clone()));
        std::future::pending().await
    }

    /// Runs the whole story. Returns whether nothing was lost.
    pub(crate) async fn run(&mut self, clients: usize) -> Result<bool, Failure> {
        self.title(format!("{clients} clients connect, all to the balancer"));
        let address = self.balancer.address();
        for number in 1..=clients {
            let watches = format!("note://{}", name(3));
            self.others.spawn(Client::new(number, address, watches, self.stage.clone()).run());
            // One by one, so that the balancer gives each client another first node.
            self.until("a client", |show| show.stage.ledger().clients() == number).await?;
        }
        self.others.spawn(watch_balancer(self.stage.clone(), self.balancer.clone()));
        sleep(BREATH).await;

        self.a_change().await?;
        self.a_freeze().await?;
        self.a_crash().await?;
        self.a_return().await?;
        self.a_leave().await?;

        // What happens to the clients when the nodes end is not part of the story.
        self.others.shutdown().await;
        let (table, nothing_lost) = self.stage.ledger().table();
        say(format!("\n{table}\n"))?;
        say(LEGEND)?;
        say(if nothing_lost { "\nNothing was lost." } else { "\nSomething was lost." })?;
        Ok(nothing_lost)
    }

    async fn a_change(&mut self) -> Result<(), Failure> {
        self.title("A tool is added on node 1");
        self.add(1, "weather", "on node 1").await?;
        self.all_hear().await?;

        self.title("It is called through node 2");
        let through = self.node(2)?.http;
        self.call(through, "weather").await?;
        sleep(BREATH).await;

        self.title("A resource is touched on node 3");
        self.stage.ledger().announce("note touched on node 3", Sign::Text("version 1".to_owned()));
        self.node(3)?.tell("touch").await?;
        self.all_hear().await
    }

    async fn a_freeze(&mut self) -> Result<(), Failure> {
        self.title("Node 3 is frozen (SIGSTOP): it keeps its connections, and says nothing");
        self.node(3)?.signal("STOP").await?;
        self.stage.say("node 3", "stands still");
        self.until("the others notice", |show| show.all_see(3, &[View::Dead])).await?;
        sleep(BREATH).await;

        self.title("Meanwhile, a tool is added on node 2");
        self.add(2, "translate", "on node 2, while node 3 is frozen").await?;
        sleep(2 * BREATH).await;
        let waiting = self.stage.ledger().waiting();
        if !waiting.is_empty() {
            let who: Vec<_> = waiting.iter().map(usize::to_string).collect();
            let who = who.join(", ");
            self.stage.say("", format!("not yet heard by {who}: their streams are in node 3"));
        }

        self.title("Node 3 thaws");
        self.node(3)?.signal("CONT").await?;
        self.stage.say("node 3", "goes on");
        self.all_hear().await?;
        self.until("node 3 is back", |show| show.all_see(3, &[View::Linked])).await?;
        self.settled().await
    }

    async fn a_crash(&mut self) -> Result<(), Failure> {
        self.title("Node 2 is killed (kill -9), and with it the tool that only it had");
        let change = Sign::NoTool("translate".to_owned());
        self.stage.ledger().announce("tool gone, as node 2 was killed", change);
        self.node(2)?.signal("KILL").await?;
        self.stage.say("node 2", "is no more");
        self.all_hear().await?;
        self.until("the others notice", |show| show.all_see(2, &[View::Dead])).await?;
        let dead = self.nodes.remove(self.place(2)?);
        self.balancer.remove(dead.http);
        sleep(BREATH).await;
        Ok(())
    }

    async fn a_return(&mut self) -> Result<(), Failure> {
        self.title("Node 2 comes back, a new process under the old name, and adds a tool");
        self.start(2).await?;
        self.settled().await?;
        let http = self.node(2)?.http;
        self.balancer.add(http);
        self.stage.say("node 2", "offers what the others have, and gets its share of requests");
        sleep(BREATH).await;
        self.add(2, "summarize", "on node 2, which came back").await?;
        self.all_hear().await
    }

    async fn a_leave(&mut self) -> Result<(), Failure> {
        self.title("Node 1 leaves in order, and with it the tool that only it had");
        let change = Sign::NoTool("weather".to_owned());
        self.stage.ledger().announce("tool gone, as node 1 has left", change);
        let http = self.node(1)?.http;
        self.balancer.remove(http);
        self.stage.say("balancer", "sends nothing more to node 1");
        let place = self.place(1)?;
        let mut leaving = self.nodes.remove(place);
        leaving.tell("leave").await?;
        leaving.ended().await?;
        self.stage.say("node 1", "has left, and its process has ended");
        self.all_hear().await?;

        self.title("All goes on: a tool is added on node 3");
        self.add(3, "goodbye", "on node 3, after node 1 left").await?;
        self.all_hear().await
    }

    async fn start(&mut self, number: usize) -> Result<(), Failure> {
        let seeds: Vec<_> = self.nodes.iter().map(|node| node.gossip).collect();
        let node = Node::start(number, seeds, &self.stage).await?;
        let process = node.process();
        self.stage.say(
            format!("node {number}"),
            format!("is process {process}, at http://{}/mcp", node.http),
        );
        self.nodes.push(node);
        Ok(())
    }

    async fn add(&mut self, number: usize, tool: &str, when: &str) -> Result<(), Failure> {
        self.stage.say(format!("node {number}"), format!("adds the tool {tool}"));
        let title = format!("tool added {when}");
        self.stage.ledger().announce(title, Sign::Tool(tool.to_owned()));
        self.node(number)?.tell(&format!("add {tool}")).await
    }

    /// Calls a tool at an address, and prints the messages of the call.
    async fn call(&self, through: SocketAddr, tool: &str) -> Result<(), Failure> {
        let who = self.stage.name_of(&through.to_string());
        let params = json!({"name": tool, "arguments": {}});
        let progress = |message: &Value| {
            let text = message["params"]["message"].as_str().unwrap_or("something");
            self.stage.say("caller", format!("hears through {who}: {text}"));
        };
        let mut protocol = Protocol::new(Era::Modern, through);
        let result = protocol.ask("tools/call", params, progress).await?;
        let text = result["content"][0]["text"].as_str().unwrap_or("something else");
        self.stage.say("caller", format!("has the answer through {who}: {text}"));
        Ok(())
    }

    /// Waits until each client knows of each change, up to `PATIENCE`. The table shows the rest as
    /// lost.
    async fn all_hear(&self) -> Result<(), Failure> {
        while self.stage.ledger().expects_more() {
            sleep(LOOK_EVERY).await;
        }
        let waiting = self.stage.ledger().waiting();
        if !waiting.is_empty() {
            self.stage.say("", format!("LOST on the clients {waiting:?}"));
        }
        sleep(BREATH).await;
        Ok(())
    }

    /// Waits until each node shows the items of all nodes.
    async fn settled(&self) -> Result<(), Failure> {
        let all: Vec<_> =
            self.nodes.iter().map(|node| format!("work-on-{}", name(node.number))).collect();
        let settling = async {
            for node in &self.nodes {
                let mut protocol = Protocol::new(Era::Modern, node.http);
                while !protocol.tools().await.is_ok_and(|has| all.iter().all(|t| has.contains(t))) {
                    sleep(LOOK_EVERY).await;
                }
            }
        };
        Ok(timeout(PATIENCE, settling).await.map_err(|_| "the nodes do not find each other")?)
    }

    fn all_see(&self, number: usize, views: &[View]) -> bool {
        let mut others = self.nodes.iter().filter(|node| node.number != number);
        others.all(|node| {
            self.stage.view(node.number, number).is_some_and(|view| views.contains(&view))
        })
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let waiting = async {
            while !holds(self) {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(PATIENCE, waiting).await.map_err(|_| format!("this does not come: {what}").into())
    }

    fn place(&self, number: usize) -> Result<usize, Failure> {
        let place = self.nodes.iter().position(|node| node.number == number);
        place.ok_or_else(|| format!("there is no node {number}").into())
    }

    fn node(&mut self, number: usize) -> Result<&mut Node, Failure> {
        let place = self.place(number)?;
        Ok(&mut self.nodes[place])
    }

    fn title(&mut self, title: impl Display) {
        self.acts += 1;
        let _ = say(format!("\n{}. {title}", self.acts));
    }

    fn url(&self) -> String {
        format!("http://{}/mcp", self.balancer.address())
    }
}

/// Reports when the balancer finds that a node does not answer, or answers again.
async fn watch_balancer(stage: Arc<Stage>, balancer: Arc<Balancer>) {
    let mut known = HashMap::new();
    loop {
        for (node, answers) in balancer.backends() {
            let name = stage.name_of(&node.to_string());
            match (known.insert(node, answers), answers) {
                (None | Some(true), false) => {
                    let what = format!("{name} does not answer, so others get its requests");
                    stage.say("balancer", what);
                }
                (Some(false), true) => {
                    stage.say("balancer", format!("{name} answers again, and gets its share"));
                }
                _ => {}
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

fn say(line: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

//! Nodes as processes: the test's end, and what the processes do.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stentor_engine::NodeId;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex as AsyncMutex, watch};

use super::super::{Mesh, MeshHandler, PeerInfo, Receipt, SendError};
use super::SOON;
use crate::config::{ClusterConfig, ClusterError, ClusterTls};

const SETTINGS: &str = "STENTOR_MESH_TEST_NODE";
/// What a node says is told by this from what the test harness in its process says.
const MARK: &str = "@ ";

/// The number of a frame that its receiver cannot bear.
const BREAK: u64 = u64::MAX;

/// A node in a process of its own.
pub(super) struct Node {
    pub(super) name: &'static str,
    child: AsyncMutex<Child>,
    pid: Pid,
    input: AsyncMutex<ChildStdin>,
    lines: watch::Receiver<Vec<String>>,
    /// Lines before this one are forgotten.
    from: Mutex<usize>,
}

impl Node {
    pub(super) async fn start(name: &'static str, mut settings: Value) -> Self {
        settings["name"] = json!(name);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["mesh::tests::process::node", "--exact", "--nocapture", "--quiet"])
            .env(SETTINGS, settings.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (heard, lines) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut output = BufReader::new(output).lines();
            while let Ok(Some(line)) = output.next_line().await {
                if let Some(line) = line.strip_prefix(MARK) {
                    heard.send_modify(|lines| lines.push(line.to_owned()));
                }
            }
        });
        let pid = i32::try_from(child.id().unwrap()).ok().and_then(Pid::from_raw).unwrap();
        let node = Self {
            name,
            child: AsyncMutex::new(child),
            pid,
            input: AsyncMutex::new(input),
            lines,
            from: Mutex::new(0),
        };
        let started = |line: &str| line.starts_with("listens") || line.starts_with("refused");
        node.hears("that it started", started).await;
        node
    }

    /// Where it gossips.
    pub(super) fn gossip(&self) -> String {
        format!("127.0.0.1:{}", self.ports().1)
    }

    /// Where it listens for links, and where it gossips.
    pub(super) fn ports(&self) -> (u16, u16) {
        let lines = self.lines.borrow();
        let listens = lines.iter().find_map(|line| line.strip_prefix("listens ")).unwrap();
        let (link, gossip) = listens.split_once(' ').unwrap();
        (link.parse().unwrap(), gossip.parse().unwrap())
    }

    pub(super) async fn tell(&self, line: &str) {
        let line = format!("{line}\n");
        self.input.lock().await.write_all(line.as_bytes()).await.unwrap();
    }

    /// Waits for a line that begins so.
    pub(super) async fn sees(&self, begin: &str) -> String {
        self.hears(begin, |line| is(line, begin)).await
    }

    async fn hears(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let mut lines = self.lines.clone();
        let from = *self.from.lock();
        let found = |lines: &Vec<String>| lines[from..].iter().any(|line| fits(line));
        match tokio::time::timeout(SOON, lines.wait_for(found)).await {
            Ok(Ok(lines)) => lines[from..].iter().find(|line| fits(line)).unwrap().clone(),
            _ => panic!("{} never saw '{what}' but {:?}", self.name, self.lines.borrow()),
        }
    }

    pub(super) fn saw(&self, begin: &str) -> bool {
        self.lines.borrow()[*self.from.lock()..].iter().any(|line| is(line, begin))
    }

    /// What it saw so far does not count any more.
    pub(super) fn forget(&self) {
        *self.from.lock() = self.lines.borrow().len();
    }

    pub(super) async fn kill(&self) {
        self.child.lock().await.kill().await.unwrap();
    }

    pub(super) async fn ends(&self) {
        let mut child = self.child.lock().await;
        assert!(tokio::time::timeout(SOON, child.wait()).await.unwrap().unwrap().success());
    }

    pub(super) fn freeze(&self) {
        kill_process(self.pid, Signal::STOP).unwrap();
    }

    pub(super) fn thaw(&self) {
        kill_process(self.pid, Signal::CONT).unwrap();
    }
}

/// Whether the line's first words are these.
fn is(line: &str, begin: &str) -> bool {
    line.strip_prefix(begin).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// A network between nodes that can stop to carry anything.
pub(super) struct Network(watch::Sender<usize>);

impl Network {
    /// Carries what comes to this address to the same port of another.
    pub(super) async fn between(from: SocketAddr, to: IpAddr) -> Self {
        let listener = TcpListener::bind(from).await.unwrap();
        let to = SocketAddr::new(to, from.port());
        let stalled = watch::Sender::new(0);
        let network = Self(stalled.clone());
        tokio::spawn(async move {
            for number in 1.. {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = TcpStream::connect(to).await.unwrap();
                let mut stalled = stalled.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                        _ = stalled.wait_for(|stalled| *stalled >= number) => {}
                    }
                    // Both are open, and nothing comes.
                    std::future::pending::<()>().await;
                    drop((near, far));
                });
            }
        });
        network
    }

    /// Connections up to this one carry nothing any more.
    pub(super) fn stall(&self, up_to: usize) {
        self.0.send_replace(up_to);
    }
}

/// An authority that issues keys for nodes.
pub(super) struct Keys {
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Keys {
    pub(super) fn authority() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self { authority: rcgen::CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(super) fn issue(&self) -> Value {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([ClusterTls::NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        json!([self.authority.pem(), certificate.pem(), key.serialize_pem()])
    }
}

/// What a process does that was started as a node. In any other it is no test of anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node() {
    let Ok(settings) = std::env::var(SETTINGS) else { return };
    let settings: Value = serde_json::from_str(&settings).unwrap();
    let node = NodeId::new(settings["name"].as_str().unwrap()).unwrap();
    let mesh = match Mesh::start(node.clone(), config(&settings), Arc::new(Tell::default())).await {
        Ok(mesh) => mesh,
        Err(error) => return refused(&error),
    };
    let (link, gossip) = mesh.addresses();
    say(format!("listens {} {}", link.port(), gossip.port()));
    let stopping = mesh.clone();
    tokio::spawn(async move {
        stopping.stopped().await;
        say("stopped".to_owned());
    });
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = input.next_line().await {
        let words: Vec<_> = line.split(' ').collect();
        let peer = |name: &str| NodeId::new(name).unwrap();
        match words[..] {
            ["send", to, count, size] => {
                let (count, size) = (count.parse().unwrap(), size.parse().unwrap());
                tokio::spawn(send(mesh.clone(), peer(to), count, size));
            }
            ["break", to] => mesh.try_send(&peer(to), &numbered(BREAK, true, 0)).unwrap(),
            ["fill", to, size] => fill(&mesh, &peer(to), size.parse().unwrap()),
            ["drained", of] => {
                let of = peer(of);
                while in_flight(&mesh, &of) > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                say(format!("drained {of}"));
            }
            ["say", key, value] => mesh.say(key, value).await,
            ["cut", of] => mesh.cut(&peer(of)),
            ["view"] => {
                for seen in mesh.view() {
                    say(format!("view {} {:?} {}", seen.node, seen.state, seen.connected));
                }
                say("viewed".to_owned());
            }
            ["second"] => {
                let second = Mesh::start(peer("z"), config(&settings), Arc::new(Tell::default()));
                refused(&second.await.unwrap_err());
            }
            ["leave"] => return mesh.leave().await,
            _ => panic!("{line}"),
        }
    }
}

fn config(settings: &Value) -> ClusterConfig {
    let text = |key: &str| settings[key].as_str().map(str::to_owned);
    let number = |key: &str| settings[key].as_u64().map(|number| number as usize);
    let cookie = text("cookie").unwrap_or("what all nodes know".to_owned());
    let mut config = ClusterConfig::new(text("cluster").unwrap_or("test".to_owned()), cookie);
    for seed in settings["seeds"].as_array().into_iter().flatten() {
        config.seeds.push(seed.as_str().unwrap().to_owned());
    }
    if let Some(listen) = text("listen") {
        config.listen = listen.parse().unwrap();
    }
    if let Some(gossip) = text("gossip") {
        config.gossip = gossip.parse().unwrap();
    }
    config.advertise = text("advertise").map(|ip| ip.parse().unwrap());
    config.max_in_flight = number("max_in_flight").unwrap_or(config.max_in_flight);
    config.max_frame = number("max_frame").unwrap_or(config.max_frame);
    if let Some(after) = settings["give_up_ms"].as_u64() {
        config.give_up_after = Duration::from_millis(after);
    }
    if let [authority, chain, key] = settings["tls"].as_array().map_or(&[][..], |tls| tls) {
        let pem = |value: &Value| value.as_str().unwrap().as_bytes().to_vec();
        let tls = ClusterTls::from_pem(&pem(authority), &pem(chain), &pem(key));
        config.tls = Some(tls.unwrap());
    }
    config
}

fn say(line: String) {
    // In one piece, and not where the test harness would keep it.
    let line = format!("{MARK}{line}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

fn refused(error: &ClusterError) {
    say(format!("refused {}", format!("{error:?}").replace('(', " ")));
}

fn numbered(number: u64, last: bool, size: usize) -> Bytes {
    let mut frame = BytesMut::with_capacity(size.max(9));
    frame.put_u64(number);
    frame.put_u8(last.into());
    frame.resize(size.max(9), 7);
    frame.freeze()
}

async fn send(mesh: Mesh, to: NodeId, count: u64, size: usize) {
    for number in 1..=count {
        let frame = numbered(number, number == count, size);
        if let Err(error) = mesh.send(&to, &frame).await {
            return say(format!("unsent {to} {error:?}"));
        }
    }
}

fn fill(mesh: &Mesh, to: &NodeId, size: usize) {
    loop {
        match mesh.try_send(to, &numbered(0, false, size)) {
            Ok(()) => {}
            Err(SendError::NoRoom) => break,
            Err(error) => panic!("{error}"),
        }
    }
    say(format!("full {to} {}", in_flight(mesh, to)));
}

fn in_flight(mesh: &Mesh, to: &NodeId) -> u64 {
    mesh.view().into_iter().find(|seen| seen.node == *to).unwrap().in_flight
}

/// Tells the test what happens, and that frames of a row come in their order.
#[derive(Default)]
struct Tell(Mutex<HashMap<NodeId, u64>>);

impl MeshHandler for Tell {
    fn alive(&self, node: &NodeId, said: &BTreeMap<String, String>) {
        let said = said.iter().map(|(key, value)| format!(" {key}={value}"));
        say(format!("alive {node}{}", said.collect::<String>()));
    }

    fn up(&self, node: &NodeId, _: &PeerInfo) {
        say(format!("up {node}"));
    }

    fn down(&self, node: &NodeId) {
        self.0.lock().remove(node);
        say(format!("down {node}"));
    }

    fn room(&self, node: &NodeId) {
        say(format!("room {node}"));
    }

    fn dead(&self, node: &NodeId) {
        say(format!("dead {node}"));
    }

    fn frame(&self, from: &NodeId, mut frame: Bytes, _: Receipt) {
        let (number, last) = (frame.get_u64(), frame.get_u8() == 1);
        if number == 0 {
            return;
        }
        assert_ne!(number, BREAK, "this is what the test wants");
        let mut rows = self.0.lock();
        let row = rows.entry(from.clone()).or_default();
        *row += 1;
        if number != *row {
            return say(format!("disorder {from} {number} for {row}"));
        }
        if last {
            say(format!("got {from} {number}"));
            *row = 0;
        }
    }
}

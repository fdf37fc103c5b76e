//! Nodes as processes: the test's end, and the code of the processes.

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
use super::TEST_TIMEOUT;
use crate::config::{ClusterConfig, ClusterError, ClusterTls};

const SETTINGS: &str = "STENTOR_MESH_TEST_NODE";
/// Distinguishes the lines of a node from those of the test harness in its process.
const MARK: &str = "@ ";

/// The number of a frame on which its receiver panics.
const BREAK: u64 = u64::MAX;

/// A node in its own process.
pub(super) struct Node {
    pub(super) name: &'static str,
    child: AsyncMutex<Child>,
    pid: Pid,
    input: AsyncMutex<ChildStdin>,
    lines: watch::Receiver<Vec<String>>,
    /// Lines before this index are ignored.
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
        let (sender, lines) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut output = BufReader::new(output).lines();
            while let Ok(Some(line)) = output.next_line().await {
                if let Some(line) = line.strip_prefix(MARK) {
                    sender.send_modify(|lines| lines.push(line.to_owned()));
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
        node.wait_for_line("that it started", started).await;
        node
    }

    pub(super) fn gossip(&self) -> String {
        format!("127.0.0.1:{}", self.ports().1)
    }

    /// The ports for links and for gossip.
    pub(super) fn ports(&self) -> (u16, u16) {
        let lines = self.lines.borrow();
        let listens = lines.iter().find_map(|line| line.strip_prefix("listens ")).unwrap();
        let (link, gossip) = listens.split_once(' ').unwrap();
        (link.parse().unwrap(), gossip.parse().unwrap())
    }

    pub(super) async fn command(&self, line: &str) {
        let line = format!("{line}\n");
        self.input.lock().await.write_all(line.as_bytes()).await.unwrap();
    }

    /// Waits for a line that starts with these words.
    pub(super) async fn wait_for(&self, begin: &str) -> String {
        self.wait_for_line(begin, |line| is(line, begin)).await
    }

    async fn wait_for_line(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let mut lines = self.lines.clone();
        let from = *self.from.lock();
        let found = |lines: &Vec<String>| lines[from..].iter().any(|line| fits(line));
        match tokio::time::timeout(TEST_TIMEOUT, lines.wait_for(found)).await {
            Ok(Ok(lines)) => lines[from..].iter().find(|line| fits(line)).unwrap().clone(),
            _ => panic!("{} never saw '{what}' but {:?}", self.name, self.lines.borrow()),
        }
    }

    pub(super) fn has_printed(&self, begin: &str) -> bool {
        self.lines.borrow()[*self.from.lock()..].iter().any(|line| is(line, begin))
    }

    /// Ignores all lines so far.
    pub(super) fn forget(&self) {
        *self.from.lock() = self.lines.borrow().len();
    }

    pub(super) async fn kill(&self) {
        self.child.lock().await.kill().await.unwrap();
    }

    pub(super) async fn ends(&self) {
        let mut child = self.child.lock().await;
        assert!(tokio::time::timeout(TEST_TIMEOUT, child.wait()).await.unwrap().unwrap().success());
    }

    pub(super) fn freeze(&self) {
        kill_process(self.pid, Signal::STOP).unwrap();
    }

    pub(super) fn thaw(&self) {
        kill_process(self.pid, Signal::CONT).unwrap();
    }
}

/// Whether the line starts with these words.
fn is(line: &str, begin: &str) -> bool {
    line.strip_prefix(begin).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// A network between nodes that can stop carrying data.
pub(super) struct Network(watch::Sender<usize>);

impl Network {
    /// Forwards connections to this address to the same port of another.
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
                    // Both connections stay open, and carry nothing.
                    std::future::pending::<()>().await;
                    drop((near, far));
                });
            }
        });
        network
    }

    /// Connections up to this number carry nothing from now on.
    pub(super) fn stall(&self, up_to: usize) {
        self.0.send_replace(up_to);
    }
}

/// A certificate authority for nodes.
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

/// The code of a node's process. In any other process this test does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node() {
    let Ok(settings) = std::env::var(SETTINGS) else { return };
    let settings: Value = serde_json::from_str(&settings).unwrap();
    let node = NodeId::new(settings["name"].as_str().unwrap()).unwrap();
    let mesh =
        match Mesh::start(node.clone(), config(&settings), Arc::new(Reporter::default())).await {
            Ok(mesh) => mesh,
            Err(error) => return refused(&error),
        };
    let (link, gossip) = mesh.addresses();
    print_line(format!("listens {} {}", link.port(), gossip.port()));
    let stopping = mesh.clone();
    tokio::spawn(async move {
        stopping.stopped().await;
        print_line("stopped".to_owned());
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
                print_line(format!("drained {of}"));
            }
            ["say", key, value] => mesh.set_gossip(key, value).await,
            ["cut", of] => mesh.cut(&peer(of)),
            ["view"] => {
                for seen in mesh.view() {
                    print_line(format!("view {} {:?} {}", seen.node, seen.state, seen.connected));
                }
                print_line("viewed".to_owned());
            }
            ["second"] => {
                let second =
                    Mesh::start(peer("z"), config(&settings), Arc::new(Reporter::default()));
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

fn print_line(line: String) {
    // In one write, and not to where the test harness captures output.
    let line = format!("{MARK}{line}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

fn refused(error: &ClusterError) {
    print_line(format!("refused {}", format!("{error:?}").replace('(', " ")));
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
            return print_line(format!("unsent {to} {error:?}"));
        }
    }
}

fn fill(mesh: &Mesh, to: &NodeId, size: usize) {
    loop {
        match mesh.try_send(to, &numbered(0, false, size)) {
            Ok(()) => {}
            Err(SendError::WindowFull) => break,
            Err(error) => panic!("{error}"),
        }
    }
    print_line(format!("full {to} {}", in_flight(mesh, to)));
}

fn in_flight(mesh: &Mesh, to: &NodeId) -> u64 {
    mesh.view().into_iter().find(|seen| seen.node == *to).unwrap().in_flight
}

/// Reports the events to the test, and checks that the frames of a row arrive in order.
#[derive(Default)]
struct Reporter(Mutex<HashMap<NodeId, u64>>);

impl MeshHandler for Reporter {
    fn alive(&self, node: &NodeId, values: &BTreeMap<String, String>) {
        let values = values.iter().map(|(key, value)| format!(" {key}={value}"));
        print_line(format!("alive {node}{}", values.collect::<String>()));
    }

    fn up(&self, node: &NodeId, _: &PeerInfo) {
        print_line(format!("up {node}"));
    }

    fn down(&self, node: &NodeId) {
        self.0.lock().remove(node);
        print_line(format!("down {node}"));
    }

    fn space_available(&self, node: &NodeId) {
        print_line(format!("room {node}"));
    }

    fn dead(&self, node: &NodeId) {
        print_line(format!("dead {node}"));
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
            return print_line(format!("disorder {from} {number} for {row}"));
        }
        if last {
            print_line(format!("got {from} {number}"));
            *row = 0;
        }
    }
}

//! Real connections to a listener, and a mesh actor that only reports which nodes were proven.

use ractor::{Actor, ActorProcessingErr};
use stentor_engine::NodeId;
use stentor_engine::remote::NodeState;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::super::Shared;
use super::super::link::dial;
use super::*;
use crate::config::ClusterConfig;

const COOKIE: &str = "what all nodes know";

/// Far longer than any step takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

struct Proofs;

impl Actor for Proofs {
    type Msg = MeshMsg;
    type State = mpsc::UnboundedSender<NodeId>;
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        _: ActorRef<MeshMsg>,
        proven: Self::State,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(proven)
    }

    async fn handle(
        &self,
        _: ActorRef<MeshMsg>,
        message: MeshMsg,
        sender: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let MeshMsg::Proven(proven) = message {
            sender.send(proven.proof.theirs.node)?;
        }
        Ok(())
    }
}

/// A node whose link port is open.
struct Port {
    shared: Arc<Shared>,
    addr: SocketAddr,
    proven: mpsc::UnboundedReceiver<NodeId>,
}

fn shared(name: &str, max_strangers: usize) -> Arc<Shared> {
    let mut config = ClusterConfig::new("test", COOKIE);
    config.max_strangers = max_strangers;
    Arc::new(Shared::new(NodeId::new(name).unwrap(), config))
}

impl Port {
    async fn open(max_strangers: usize) -> Self {
        let shared = shared("b", max_strangers);
        let (sender, proven) = mpsc::unbounded_channel();
        let (mesh_actor, _) = Actor::spawn(None, Proofs, sender).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(Listener { shared: shared.clone(), mesh_actor }.run(listener));
        Self { shared, addr, proven }
    }

    /// Lets a node connect, and waits until it is proven.
    async fn accepts_node(&mut self, name: &str) {
        let own = shared(name, 1);
        let dialled = dial(&own, NodeId::new("b").unwrap(), self.addr);
        timeout(TEST_TIMEOUT, dialled).await.expect("in time").expect("a link");
        let proven = timeout(TEST_TIMEOUT, self.proven.recv()).await.expect("in time");
        assert_eq!(proven.unwrap().as_str(), name);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// Waits until the other end has closed the connection, whatever it sent before.
async fn closed(mut stream: TcpStream) {
    let mut received = Vec::new();
    let _ = timeout(TEST_TIMEOUT, stream.read_to_end(&mut received)).await.expect("it is closed");
}

#[tokio::test]
async fn a_node_is_accepted_while_many_strangers_hold_and_renew_connections() {
    let mut port = Port::open(64).await;
    // Twice as many as allowed. Each is renewed as soon as it is closed.
    let (opened, mut all_opened) = mpsc::unbounded_channel();
    for _ in 0..128 {
        let (addr, opened) = (port.addr, opened.clone());
        tokio::spawn(async move {
            while let Ok(stream) = TcpStream::connect(addr).await {
                if opened.send(()).is_err() {
                    return;
                }
                closed(stream).await;
            }
        });
    }
    for _ in 0..512 {
        timeout(TEST_TIMEOUT, all_opened.recv()).await.expect("in time");
    }
    for name in ["a", "c", "d"] {
        let begun = std::time::Instant::now();
        port.accepts_node(name).await;
        // Far less than the time limit of a single stranger.
        assert!(begun.elapsed() < HELLO_TIMEOUT / 2, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn only_the_oldest_stranger_gives_way() {
    let mut port = Port::open(2).await;
    let mut strangers = Vec::new();
    for _ in 0..3 {
        strangers.push(TcpStream::connect(port.addr).await.unwrap());
    }
    closed(strangers.remove(0)).await;
    // The others are still open.
    for mut stranger in strangers {
        assert_eq!(stranger.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stranger.write_all(&[0, 0]).await.unwrap();
        closed(stranger).await;
    }
    port.accepts_node("a").await;
}

#[tokio::test(start_paused = true)]
async fn a_stranger_has_a_total_time_limit() {
    let port = Port::open(2).await;
    let mut stranger = TcpStream::connect(port.addr).await.unwrap();
    let begun = Instant::now();
    // The stranger sends one byte from time to time.
    let (mut sent, mut received) = (0, [0]);
    stranger.write_all(&512_u16.to_be_bytes()).await.unwrap();
    while !matches!(timeout(ACCEPT_RETRY, stranger.read(&mut received)).await, Ok(Ok(0) | Err(_))) {
        let _ = stranger.write_all(b" ").await;
        sent += 1;
        assert!(sent < 400, "it goes on and on");
    }
    assert!(begun.elapsed() <= HELLO_TIMEOUT + ACCEPT_RETRY, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn only_a_limited_number_of_bytes_is_read_from_a_stranger() {
    let (near, far) = pair().await;
    let has_sent = Arc::new(AtomicBool::new(false));
    let mut bounded = Bounded { remaining: 10, ..Bounded::new(near, has_sent.clone()) };
    let mut far = far;
    far.write_all(&[7; 30]).await.unwrap();
    let mut read = [0; 8];
    assert!(!has_sent.load(Ordering::Relaxed));
    bounded.read_exact(&mut read).await.unwrap();
    assert!(has_sent.load(Ordering::Relaxed));
    // The read that reaches the limit is returned whole.
    bounded.read_exact(&mut read).await.unwrap();
    assert!(bounded.read_exact(&mut read).await.is_err());
    bounded.remove_limit();
    bounded.read_exact(&mut read).await.unwrap();
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, far)
}

#[test]
fn the_addresses_of_dead_nodes_are_still_known() {
    let shared = shared("b", 1);
    let seen = [("a", [10, 0, 0, 1], NodeState::Alive), ("c", [10, 0, 0, 2], NodeState::Dead)];
    for (name, ip, state) in seen {
        shared.nodes.lock().insert(NodeId::new(name).unwrap(), ((ip, 1).into(), state));
    }
    let known = |ip: &str| shared.is_known(ip.parse().unwrap());
    assert!(known("10.0.0.1") && known("::ffff:10.0.0.2") && !known("10.0.0.3"));
}

#[tokio::test(start_paused = true)]
async fn refused_connections_are_logged_at_a_limited_rate() {
    let mut refused = Refused::default();
    let mut lines = 0;
    for _ in 0..1_000 {
        refused.add(Some(([10, 0, 0, 1], 1).into()), &"no");
        if refused.log_at <= Instant::now() {
            refused.log();
            lines += 1;
        }
        tokio::time::advance(Duration::from_millis(25)).await;
    }
    assert_eq!(lines, 3, "in 25 seconds");
}

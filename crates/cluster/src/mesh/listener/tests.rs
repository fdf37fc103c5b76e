//! Real connections to a listener, and a relay that only says whose were proven.

use ractor::{Actor, ActorProcessingErr};
use stentor_engine::NodeId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::super::link::dial;
use super::super::{NodeState, Shared};
use super::*;
use crate::config::ClusterConfig;

const COOKIE: &str = "what all nodes know";

/// Nothing waits so long when all is well.
const SOON: Duration = Duration::from_secs(30);

struct Proofs;

impl Actor for Proofs {
    type Msg = RelayMsg;
    type State = mpsc::UnboundedSender<NodeId>;
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        _: ActorRef<RelayMsg>,
        proven: Self::State,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(proven)
    }

    async fn handle(
        &self,
        _: ActorRef<RelayMsg>,
        message: RelayMsg,
        tell: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let RelayMsg::Proven(proven) = message {
            tell.send(proven.proof.theirs.node)?;
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
        let (tell, proven) = mpsc::unbounded_channel();
        let (relay, _) = Actor::spawn(None, Proofs, tell).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(Listener { shared: shared.clone(), relay }.run(listener));
        Self { shared, addr, proven }
    }

    /// A node connects, which takes no longer than it takes.
    async fn is_reached_by(&mut self, name: &str) {
        let own = shared(name, 1);
        let dialled = dial(&own, NodeId::new("b").unwrap(), self.addr);
        timeout(SOON, dialled).await.expect("in time").expect("a link");
        let proven = timeout(SOON, self.proven.recv()).await.expect("in time");
        assert_eq!(proven.unwrap().as_str(), name);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// Waits until the other end has closed the connection, whatever it said before.
async fn closed(mut stream: TcpStream) {
    let mut said = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut said)).await.expect("it is closed");
}

#[tokio::test]
async fn a_node_is_let_in_however_many_strangers_hold_connections_and_renew_them() {
    let mut port = Port::open(64).await;
    // Twice as many as may be, each made anew as soon as it is closed.
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
        timeout(SOON, all_opened.recv()).await.expect("in time");
    }
    for name in ["a", "c", "d"] {
        let begun = std::time::Instant::now();
        port.is_reached_by(name).await;
        // Far less than a single stranger may take.
        assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn who_came_first_gives_way_and_no_other() {
    let mut port = Port::open(2).await;
    let mut strangers = Vec::new();
    for _ in 0..3 {
        strangers.push(TcpStream::connect(port.addr).await.unwrap());
    }
    closed(strangers.remove(0)).await;
    // The others are still waited for.
    for mut stranger in strangers {
        assert_eq!(stranger.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stranger.write_all(&[0, 0]).await.unwrap();
        closed(stranger).await;
    }
    port.is_reached_by("a").await;
}

#[tokio::test(start_paused = true)]
async fn a_stranger_has_so_much_time_in_all_and_no_more() {
    let port = Port::open(2).await;
    let mut stranger = TcpStream::connect(port.addr).await.unwrap();
    let begun = Instant::now();
    // A byte now and then.
    let (mut said, mut heard) = (0, [0]);
    stranger.write_all(&512_u16.to_be_bytes()).await.unwrap();
    while !matches!(timeout(PAUSE, stranger.read(&mut heard)).await, Ok(Ok(0) | Err(_))) {
        let _ = stranger.write_all(b" ").await;
        said += 1;
        assert!(said < 400, "it goes on and on");
    }
    assert!(begun.elapsed() <= PATIENCE + PAUSE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn of_a_stranger_only_so_much_is_read() {
    let (near, far) = pair().await;
    let spoke = Arc::new(AtomicBool::new(false));
    let mut bounded = Bounded { left: 10, ..Bounded::new(near, spoke.clone()) };
    let mut far = far;
    far.write_all(&[7; 30]).await.unwrap();
    let mut read = [0; 8];
    assert!(!spoke.load(Ordering::Relaxed));
    bounded.read_exact(&mut read).await.unwrap();
    assert!(spoke.load(Ordering::Relaxed));
    // To the end of what is read at once.
    bounded.read_exact(&mut read).await.unwrap();
    assert!(bounded.read_exact(&mut read).await.is_err());
    bounded.lift();
    bounded.read_exact(&mut read).await.unwrap();
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, far)
}

#[test]
fn addresses_of_nodes_are_known_also_of_those_that_are_gone() {
    let shared = shared("b", 1);
    let seen = [("a", [10, 0, 0, 1], NodeState::Alive), ("c", [10, 0, 0, 2], NodeState::Dead)];
    for (name, ip, state) in seen {
        shared.nodes.lock().insert(NodeId::new(name).unwrap(), ((ip, 1).into(), state));
    }
    let known = |ip: &str| shared.is_known(ip.parse().unwrap());
    assert!(known("10.0.0.1") && known("::ffff:10.0.0.2") && !known("10.0.0.3"));
}

#[tokio::test(start_paused = true)]
async fn however_many_are_refused_there_is_a_line_for_them_now_and_then() {
    let mut refused = Refused::default();
    let mut lines = 0;
    for _ in 0..1_000 {
        refused.add(Some(([10, 0, 0, 1], 1).into()), &"no");
        if refused.tell_at <= Instant::now() {
            refused.tell();
            lines += 1;
        }
        tokio::time::advance(Duration::from_millis(25)).await;
    }
    assert_eq!(lines, 3, "in 25 seconds");
}

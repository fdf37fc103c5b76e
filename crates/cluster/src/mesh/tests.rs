//! A node is a process, so these tests start themselves again, once for each node, and talk to
//! what they started by lines of text.

mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use process::{Keys, Network, Node};

/// Long enough for a busy machine: nothing waits this long when all is well.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_by_one_of_them_and_frames_come_in_order() {
    let a = Node::start("a", json!({})).await;
    let c = Node::start("c", json!({ "seeds": [a.gossip()] })).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    for (node, others) in [(&a, ["b", "c"]), (&b, ["a", "c"]), (&c, ["a", "b"])] {
        for other in others {
            node.sees(&format!("up {other}")).await;
        }
    }
    b.tell("send c 5000 100").await;
    b.tell("send a 200 100000").await;
    c.tell("send b 5000 100").await;
    c.sees("got b 5000").await;
    a.sees("got b 200").await;
    b.sees("got c 5000").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_nodes_that_send_to_each_other_at_once_all_come() {
    let a = Node::start("a", json!({ "max_in_flight": 200_000, "max_frame": 90_000 })).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.sees("up b").await;
    b.sees("up a").await;
    a.tell("send b 1000 50000").await;
    b.tell("send a 1000 50000").await;
    a.sees("got b 1000").await;
    b.sees("got a 1000").await;
    // What one of the two does not take is not sent.
    b.tell("send a 1 100000").await;
    b.sees("unsent a TooLarge").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_is_noticed_and_comes_back_under_its_name() {
    let a = Node::start("a", json!({})).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.sees("up b").await;
    b.sees("up a").await;
    let killed = Instant::now();
    b.kill().await;
    a.sees("down b").await;
    let down = killed.elapsed();
    a.sees("dead b").await;
    eprintln!("a killed node: link gone after {down:?}, given up after {:?}", killed.elapsed());
    a.forget();
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.sees("alive b").await;
    a.sees("up b").await;
    b.sees("up a").await;
    // At once, before the old run is given up.
    a.forget();
    b.kill().await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.sees("up b").await;
    b.sees("up a").await;
    a.tell("send b 10 10").await;
    b.sees("got a 10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_freezes_is_noticed_and_comes_back_when_it_thaws() {
    let a = Node::start("a", json!({})).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    let c = Node::start("c", json!({ "seeds": [a.gossip()] })).await;
    for node in [&a, &c] {
        node.sees("up b").await;
    }
    let frozen = Instant::now();
    b.freeze();
    for node in [&a, &c] {
        node.sees("dead b").await;
        node.sees("down b").await;
    }
    let noticed = frozen.elapsed();
    assert!(noticed < Duration::from_secs(10), "{noticed:?}");
    for node in [&a, &b, &c] {
        node.forget();
    }
    b.thaw();
    let thawed = Instant::now();
    for (node, other) in [(&a, "b"), (&c, "b"), (&b, "a"), (&b, "c")] {
        node.sees(&format!("up {other}")).await;
    }
    eprintln!("a frozen node: given up after {noticed:?}, back after {:?}", thawed.elapsed());
    a.tell("send b 100 100").await;
    b.sees("got a 100").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_read_is_sent_no_more_than_the_window_and_then_the_rest() {
    // Not given up meanwhile.
    let patient = json!({ "max_in_flight": 1_000_000, "max_frame": 100_000, "give_up_ms": 60_000 });
    let a = Node::start("a", patient.clone()).await;
    let mut more = patient;
    more["seeds"] = json!([a.gossip()]);
    let b = Node::start("b", more).await;
    a.sees("up b").await;
    b.sees("up a").await;
    b.freeze();
    a.tell("fill b 1000").await;
    let full = a.sees("full b").await;
    let in_flight: u64 = full.split(' ').nth(2).unwrap().parse().unwrap();
    assert!((900_000..=1_000_000).contains(&in_flight), "{in_flight}");
    // Who waits for room does so.
    a.tell("send b 2000 1000").await;
    b.thaw();
    a.sees("room b").await;
    b.sees("got a 2000").await;
    a.tell("drained b").await;
    a.sees("drained b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_is_made_again() {
    let a = Node::start("a", json!({})).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    for (node, other) in [(&a, &b), (&b, &a)] {
        a.sees("up b").await;
        b.sees("up a").await;
        a.forget();
        b.forget();
        node.tell(&format!("cut {}", other.name)).await;
        a.sees("down b").await;
        b.sees("down a").await;
    }
    a.sees("up b").await;
    b.sees("up a").await;
    assert!(!a.saw("dead b") && !b.saw("dead a"));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_link_over_which_nothing_comes_any_more_is_made_again() {
    let brisk = json!({ "give_up_ms": 1_000 });
    // Others connect to it at an address where it does not listen itself.
    let behind = json!({ "give_up_ms": 1_000, "gossip": "0.0.0.0:0", "advertise": "127.0.0.2" });
    let b = Node::start("b", behind).await;
    let network = ([127, 0, 0, 2], b.ports().0).into();
    let network = Network::between(network, [127, 0, 0, 1].into()).await;
    let mut settings = brisk;
    settings["seeds"] = json!([b.gossip()]);
    let a = Node::start("a", settings).await;
    a.sees("up b").await;
    b.sees("up a").await;
    a.forget();
    b.forget();
    network.stall(1);
    for (node, other) in [(&a, "b"), (&b, "a")] {
        node.sees(&format!("down {other}")).await;
        node.sees(&format!("up {other}")).await;
    }
    a.tell("send b 10 10").await;
    b.sees("got a 10").await;
    assert!(!a.saw("dead b") && !b.saw("dead a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_which_something_fails_is_none_any_more() {
    let a = Node::start("a", json!({})).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.sees("up b").await;
    b.sees("up a").await;
    a.tell("break b").await;
    b.sees("stopped").await;
    a.sees("down b").await;
    a.sees("dead b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_says_is_heard_and_that_it_leaves_at_once() {
    let a = Node::start("a", json!({ "give_up_ms": 60_000 })).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.sees("up b").await;
    b.tell("say mood fine").await;
    a.sees("alive b mood=fine").await;
    b.tell("leave").await;
    a.sees("down b").await;
    a.sees("dead b").await;
    a.tell("view").await;
    a.sees("view b Left false").await;
    b.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_another_cookie_or_is_of_another_cluster_gets_no_link() {
    let a = Node::start("a", json!({})).await;
    let wrong = json!({ "seeds": [a.gossip()], "cookie": "another secret, as long" });
    let other = json!({ "seeds": [a.gossip()], "cluster": "other" });
    let b = Node::start("b", wrong).await;
    let c = Node::start("c", other).await;
    let d = Node::start("d", json!({ "seeds": [a.gossip()] })).await;
    // By the time that one more is linked, they had as much time.
    a.sees("up d").await;
    d.sees("up a").await;
    for node in [&b, &c] {
        node.tell("view").await;
        node.sees("viewed").await;
        assert!(!a.saw(&format!("up {}", node.name)));
        assert!(!node.saw("up a"));
    }
    assert!(!a.saw("alive b") && !a.saw("alive c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_is_linked_whatever_strangers_do_to_the_ports_of_another() {
    let b = Node::start("b", json!({})).await;
    let (link, gossip) = b.ports();
    // More than may be, each made anew as soon as it is closed.
    for _ in 0..400 {
        tokio::spawn(async move {
            while let Ok(mut stream) = TcpStream::connect(("127.0.0.1", link)).await {
                let _ = stream.read(&mut [0]).await;
            }
        });
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut sent = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                for size in [0, 15, 16, 100, 1_000, 30_000] {
                    let _ = socket.send_to(&vec![7; size], ("127.0.0.1", gossip));
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        }
    });
    for _ in 0..3 {
        let a = Node::start("a", json!({ "seeds": [b.gossip()] })).await;
        let begun = Instant::now();
        a.sees("up b").await;
        b.sees("up a").await;
        eprintln!("linked after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        a.tell("send b 10 10").await;
        b.sees("got a 10").await;
        a.kill().await;
        b.sees("down a").await;
        b.forget();
    }
    stop.store(true, Ordering::Relaxed);
    eprintln!("{} datagrams of a stranger", flood.join().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_of_somebody_who_does_not_know_the_cookie_is_not_heard() {
    let a = Node::start("a", json!({})).await;
    let address = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stranger = chitchat::ChitchatConfig {
        chitchat_id: chitchat::ChitchatId::new("s", 1, address),
        cluster_id: "test".to_owned(),
        gossip_interval: Duration::from_millis(5),
        listen_addr: address,
        seed_nodes: vec![a.gossip()],
        failure_detector_config: chitchat::FailureDetectorConfig::default(),
        marked_for_deletion_grace_period: SOON,
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: chitchat::ProtocolVersion::V1,
    };
    let said = vec![("link".to_owned(), "127.0.0.1:1".to_owned())];
    let transport = chitchat::transport::UdpTransport;
    let stranger = chitchat::spawn_chitchat(stranger, said, &transport).await.unwrap();
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.sees("up b").await;
    assert!(!a.saw("alive s"));
    assert!(stranger.with_chitchat(|known| known.node_states().len()).await == 1);
    drop(b);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_keys_of_one_authority_talk_and_others_do_not() {
    let (ours, theirs) = (Keys::authority(), Keys::authority());
    let a = Node::start("a", json!({ "tls": ours.issue() })).await;
    let stranger = json!({ "seeds": [a.gossip()], "tls": theirs.issue() });
    let b = Node::start("b", stranger).await;
    let plain = Node::start("c", json!({ "seeds": [a.gossip()] })).await;
    let d = Node::start("d", json!({ "seeds": [a.gossip()], "tls": ours.issue() })).await;
    a.sees("up d").await;
    d.sees("up a").await;
    d.tell("send a 100 100000").await;
    a.sees("got d 100").await;
    a.sees("alive b").await;
    a.sees("alive c").await;
    for node in [&b, &plain] {
        assert!(!a.saw(&format!("up {}", node.name)));
        assert!(!node.saw("up a"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_refused_that_could_be_overheard_or_is_the_second_of_its_process() {
    let a = Node::start("a", json!({ "listen": "0.0.0.0:0" })).await;
    a.sees("refused Plaintext").await;
    let b = Node::start("b", json!({ "listen": "0.0.0.0:0", "tls": Keys::authority().issue() }));
    b.await.sees("refused Advertise").await;
    let c = Node::start("c", json!({ "cookie": "short" })).await;
    c.sees("refused Cookie").await;
    let d = Node::start("d", json!({})).await;
    d.tell("second").await;
    d.sees("refused SecondNode").await;
    d.tell("leave").await;
    d.ends().await;
}

//! Each node needs its own process. So these tests start their own executable again, once for each
//! node, and exchange lines of text with it.

mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use process::{Keys, Network, Node};

/// Far longer than any step takes, for a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_through_one_seed_and_frames_arrive_in_order() {
    let a = Node::start("a", json!({})).await;
    let c = Node::start("c", json!({ "seeds": [a.gossip()] })).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    for (node, others) in [(&a, ["b", "c"]), (&b, ["a", "c"]), (&c, ["a", "b"])] {
        for other in others {
            node.wait_for(&format!("up {other}")).await;
        }
    }
    b.command("send c 5000 100").await;
    b.command("send a 200 100000").await;
    c.command("send b 5000 100").await;
    c.wait_for("got b 5000").await;
    a.wait_for("got b 200").await;
    b.wait_for("got c 5000").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_two_nodes_that_send_at_once_all_arrive() {
    let a = Node::start("a", json!({ "max_in_flight": 200_000, "max_frame": 90_000 })).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.wait_for("up b").await;
    b.wait_for("up a").await;
    a.command("send b 1000 50000").await;
    b.command("send a 1000 50000").await;
    a.wait_for("got b 1000").await;
    b.wait_for("got a 1000").await;
    // A frame that the other node does not accept is not sent.
    b.command("send a 1 100000").await;
    b.wait_for("unsent a TooLarge").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_detected_and_reconnects_under_its_name() {
    let a = Node::start("a", json!({})).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.wait_for("up b").await;
    b.wait_for("up a").await;
    let killed = Instant::now();
    b.kill().await;
    a.wait_for("down b").await;
    let down = killed.elapsed();
    a.wait_for("dead b").await;
    eprintln!("a killed node: link gone after {down:?}, given up after {:?}", killed.elapsed());
    a.forget();
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.wait_for("alive b").await;
    a.wait_for("up b").await;
    b.wait_for("up a").await;
    // The node restarts at once, before its earlier run is given up.
    a.forget();
    b.kill().await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.wait_for("up b").await;
    b.wait_for("up a").await;
    a.command("send b 10 10").await;
    b.wait_for("got a 10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_is_detected_and_reconnects_when_it_resumes() {
    let a = Node::start("a", json!({})).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    let c = Node::start("c", json!({ "seeds": [a.gossip()] })).await;
    for node in [&a, &c] {
        node.wait_for("up b").await;
    }
    let frozen = Instant::now();
    b.freeze();
    for node in [&a, &c] {
        node.wait_for("dead b").await;
        node.wait_for("down b").await;
    }
    let noticed = frozen.elapsed();
    assert!(noticed < Duration::from_secs(10), "{noticed:?}");
    for node in [&a, &b, &c] {
        node.forget();
    }
    b.thaw();
    let thawed = Instant::now();
    for (node, other) in [(&a, "b"), (&c, "b"), (&b, "a"), (&b, "c")] {
        node.wait_for(&format!("up {other}")).await;
    }
    eprintln!("a frozen node: given up after {noticed:?}, back after {:?}", thawed.elapsed());
    a.command("send b 100 100").await;
    b.wait_for("got a 100").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_read_receives_at_most_the_window_and_later_the_rest() {
    // The frozen node must not be given up meanwhile.
    let patient = json!({ "max_in_flight": 1_000_000, "max_frame": 100_000, "give_up_ms": 60_000 });
    let a = Node::start("a", patient.clone()).await;
    let mut more = patient;
    more["seeds"] = json!([a.gossip()]);
    let b = Node::start("b", more).await;
    a.wait_for("up b").await;
    b.wait_for("up a").await;
    b.freeze();
    a.command("fill b 1000").await;
    let full = a.wait_for("full b").await;
    let in_flight: u64 = full.split(' ').nth(2).unwrap().parse().unwrap();
    assert!((900_000..=1_000_000).contains(&in_flight), "{in_flight}");
    // This sender waits for space.
    a.command("send b 2000 1000").await;
    b.thaw();
    a.wait_for("room b").await;
    b.wait_for("got a 2000").await;
    a.command("drained b").await;
    a.wait_for("drained b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_link_is_made_again() {
    let a = Node::start("a", json!({})).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    for (node, other) in [(&a, &b), (&b, &a)] {
        a.wait_for("up b").await;
        b.wait_for("up a").await;
        a.forget();
        b.forget();
        node.command(&format!("cut {}", other.name)).await;
        a.wait_for("down b").await;
        b.wait_for("down a").await;
    }
    a.wait_for("up b").await;
    b.wait_for("up a").await;
    assert!(!a.has_printed("dead b") && !b.has_printed("dead a"));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_link_is_made_again() {
    let brisk = json!({ "give_up_ms": 1_000 });
    // Other nodes connect to it at an address on which it does not listen itself.
    let behind = json!({ "give_up_ms": 1_000, "gossip": "0.0.0.0:0", "advertise": "127.0.0.2" });
    let b = Node::start("b", behind).await;
    let network = ([127, 0, 0, 2], b.ports().0).into();
    let network = Network::between(network, [127, 0, 0, 1].into()).await;
    let mut settings = brisk;
    settings["seeds"] = json!([b.gossip()]);
    let a = Node::start("a", settings).await;
    a.wait_for("up b").await;
    b.wait_for("up a").await;
    a.forget();
    b.forget();
    network.stall(1);
    for (node, other) in [(&a, "b"), (&b, "a")] {
        node.wait_for(&format!("down {other}")).await;
        node.wait_for(&format!("up {other}")).await;
    }
    a.command("send b 10 10").await;
    b.wait_for("got a 10").await;
    assert!(!a.has_printed("dead b") && !b.has_printed("dead a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_handler_panics_stops_and_is_declared_dead() {
    let a = Node::start("a", json!({})).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.wait_for("up b").await;
    b.wait_for("up a").await;
    a.command("break b").await;
    b.wait_for("stopped").await;
    a.wait_for("down b").await;
    a.wait_for("dead b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_values_reach_other_nodes_and_a_leave_is_seen_at_once() {
    let a = Node::start("a", json!({ "give_up_ms": 60_000 })).await;
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.wait_for("up b").await;
    b.command("say mood fine").await;
    a.wait_for("alive b mood=fine").await;
    b.command("leave").await;
    a.wait_for("down b").await;
    a.wait_for("dead b").await;
    a.command("view").await;
    a.wait_for("view b Left false").await;
    b.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_cookie_or_cluster_gets_no_link() {
    let a = Node::start("a", json!({})).await;
    let wrong = json!({ "seeds": [a.gossip()], "cookie": "another secret, as long" });
    let other = json!({ "seeds": [a.gossip()], "cluster": "other" });
    let b = Node::start("b", wrong).await;
    let c = Node::start("c", other).await;
    let d = Node::start("d", json!({ "seeds": [a.gossip()] })).await;
    // Once one more node is linked, these two have had enough time too.
    a.wait_for("up d").await;
    d.wait_for("up a").await;
    for node in [&b, &c] {
        node.command("view").await;
        node.wait_for("viewed").await;
        assert!(!a.has_printed(&format!("up {}", node.name)));
        assert!(!node.has_printed("up a"));
    }
    assert!(!a.has_printed("alive b") && !a.has_printed("alive c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_is_linked_whatever_strangers_do_to_the_ports_of_another() {
    let b = Node::start("b", json!({})).await;
    let (link, gossip) = b.ports();
    // More than allowed. Each is renewed as soon as it is closed.
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
        a.wait_for("up b").await;
        b.wait_for("up a").await;
        eprintln!("linked after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        a.command("send b 10 10").await;
        b.wait_for("got a 10").await;
        a.kill().await;
        b.wait_for("down a").await;
        b.forget();
    }
    stop.store(true, Ordering::Relaxed);
    eprintln!("{} datagrams of a stranger", flood.join().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_without_the_cookie_is_ignored() {
    let a = Node::start("a", json!({})).await;
    let address = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stranger = chitchat::ChitchatConfig {
        chitchat_id: chitchat::ChitchatId::new("s", 1, address),
        cluster_id: "test".to_owned(),
        gossip_interval: Duration::from_millis(5),
        listen_addr: address,
        seed_nodes: vec![a.gossip()],
        failure_detector_config: chitchat::FailureDetectorConfig::default(),
        marked_for_deletion_grace_period: TEST_TIMEOUT,
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: chitchat::ProtocolVersion::V1,
    };
    let values = vec![("link".to_owned(), "127.0.0.1:1".to_owned())];
    let transport = chitchat::transport::UdpTransport;
    let stranger = chitchat::spawn_chitchat(stranger, values, &transport).await.unwrap();
    let b = Node::start("b", json!({ "seeds": [a.gossip()] })).await;
    a.wait_for("up b").await;
    assert!(!a.has_printed("alive s"));
    assert!(stranger.with_chitchat(|known| known.node_states().len()).await == 1);
    drop(b);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_with_keys_of_one_authority_are_linked() {
    let (ours, theirs) = (Keys::authority(), Keys::authority());
    let a = Node::start("a", json!({ "tls": ours.issue() })).await;
    let stranger = json!({ "seeds": [a.gossip()], "tls": theirs.issue() });
    let b = Node::start("b", stranger).await;
    let plain = Node::start("c", json!({ "seeds": [a.gossip()] })).await;
    let d = Node::start("d", json!({ "seeds": [a.gossip()], "tls": ours.issue() })).await;
    a.wait_for("up d").await;
    d.wait_for("up a").await;
    d.command("send a 100 100000").await;
    a.wait_for("got d 100").await;
    a.wait_for("alive b").await;
    a.wait_for("alive c").await;
    for node in [&b, &plain] {
        assert!(!a.has_printed(&format!("up {}", node.name)));
        assert!(!node.has_printed("up a"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insecure_configuration_and_a_second_node_in_a_process_are_refused() {
    let a = Node::start("a", json!({ "listen": "0.0.0.0:0" })).await;
    a.wait_for("refused Plaintext").await;
    let b = Node::start("b", json!({ "listen": "0.0.0.0:0", "tls": Keys::authority().issue() }));
    b.await.wait_for("refused Advertise").await;
    let c = Node::start("c", json!({ "cookie": "short" })).await;
    c.wait_for("refused Cookie").await;
    let d = Node::start("d", json!({})).await;
    d.command("second").await;
    d.wait_for("refused SecondNode").await;
    d.command("leave").await;
    d.ends().await;
}

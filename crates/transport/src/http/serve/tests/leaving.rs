//! Clients that close their connection, and clients that only close their sending half.

use super::streams::{LAST_CHUNK, answer, say};
use super::*;

/// Waits until a call runs.
async fn running(engine: &Engine) {
    while engine.calls().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the server has noticed that a client has disconnected. Returns how long that took.
async fn noticed(engine: &Engine, connections: &mut Connections) -> Duration {
    let left = Instant::now();
    connections.ended().await.unwrap();
    while !engine.calls().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    left.elapsed()
}

/// More bytes than the server reads while it answers a request.
fn far_ahead() -> String {
    request("tools/call", "unknown", "").repeat(20)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_before_its_answer_begins_is_noticed_at_once() {
    let (engine, _) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    for ahead in [String::new(), request("tools/call", "unknown", ""), far_ahead()] {
        let text = request("tools/call", "wait", "") + &ahead;
        let client = say(&mut connections, 2 * text.len(), &text).await;
        running(&engine).await;
        drop(client);
        let took = noticed(&engine, &mut connections).await;
        assert!(took < Duration::from_millis(200), "{took:?} with {} ahead", ahead.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_a_stream_is_noticed_at_once_whatever_it_sent_ahead() {
    let (engine, _released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        for ahead in [String::new(), far_ahead()] {
            let text = request("tools/call", "hold", "").replace("HTTP/1.1", version) + &ahead;
            let mut client = say(&mut connections, 2 * text.len(), &text).await;
            read_until(&mut client, "waiting").await;
            sleep(Duration::from_secs(1)).await;
            drop(client);
            let took = noticed(&engine, &mut connections).await;
            assert!(took <= Duration::from_millis(250), "{version}: {took:?}");
        }
    }
}

/// A connection whose client has closed its sending half, and still reads.
async fn half_closed(connections: &mut Connections, text: &str) -> DuplexStream {
    let mut client = say(connections, 64 * 1024, text).await;
    // For a duplex this closes only the sending direction.
    client.shutdown().await.unwrap();
    client
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_its_sending_half_gets_its_response() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        for (tool, wanted) in [("quiet", "released"), ("hold", "released"), ("recite", "xxx")] {
            let text = request("tools/call", tool, "").replace("HTTP/1.1", version);
            let mut client = half_closed(&mut connections, &text).await;
            sleep(Duration::from_secs(30)).await;
            released.notify_one();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains(wanted), "{version} {tool}: {answer}");
            connections.ended().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_sent_before_a_client_closed_its_sending_half_are_answered() {
    let (engine, released) = engine().await;
    let mut connections = connections(&engine, &HttpConfig::default());
    let text = request("tools/call", "hold", "") + &far_ahead();
    let mut client = half_closed(&mut connections, &text).await;
    sleep(Duration::from_secs(5)).await;
    released.notify_one();
    assert!(answer(&mut client, LAST_CHUNK).await.contains("released"));
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest.matches("unknown tool").count(), 20, "{rest}");
}

// With the real clock and the real kernel: what is sent to a closed socket is answered by a reset.
#[tokio::test]
async fn over_tcp_a_client_that_leaves_is_noticed_at_once_whatever_it_sent_and_left_unread() {
    let (engine, _released) = engine().await;
    let (address, _stop, _serving) = served(&engine, HttpConfig::default()).await;
    for ahead in [String::new(), far_ahead(), far_ahead().repeat(100)] {
        for reads in [true, false] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(request("tools/call", "hold", "").as_bytes()).await.unwrap();
            running(&engine).await;
            let sending = client.write_all(ahead.as_bytes());
            // The write waits if the kernel's buffers are full.
            let _ = timeout(Duration::from_millis(100), sending).await;
            if reads {
                read_until(&mut client, "waiting").await;
            }
            let left = std::time::Instant::now();
            drop(client);
            while !engine.calls().is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
            assert!(left.elapsed() < Duration::from_secs(2), "{:?}", left.elapsed());
        }
    }
}

#[tokio::test]
async fn over_tcp_a_client_that_closes_its_sending_half_gets_its_response() {
    let (engine, released) = engine().await;
    let (address, _stop, _serving) = served(&engine, HttpConfig::default()).await;
    for tool in ["quiet", "hold"] {
        let mut client = TcpStream::connect(address).await.unwrap();
        send(&mut client, "tools/call", tool).await;
        client.shutdown().await.unwrap();
        running(&engine).await;
        sleep(Duration::from_millis(700)).await;
        released.notify_one();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("released"), "{answer}");
    }
}

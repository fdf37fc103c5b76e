//! The end of a server: by a shutdown, or because its engine has ended by itself.

use stentor_engine::EndedUnasked;

use super::streams::{answer, say};
use super::*;

#[tokio::test(start_paused = true)]
async fn unfinished_requests_do_not_delay_a_shutdown_and_running_calls_may_finish() {
    let (engine, released) = engine().await;
    let config = HttpConfig { json_grace: Duration::from_secs(60), ..HttpConfig::default() };
    let mut connections = connections(&engine, &config);
    let whole = request("tools/call", "quiet", "");
    let mut unfinished = Vec::new();
    for end in [1, 20, whole.len() - 20, whole.len() - 1] {
        unfinished.push(say(&mut connections, PIPE, &whole[..end]).await);
    }
    // The same on a connection that has already answered a request.
    let mut later = say(&mut connections, PIPE, &request("tools/call", "unknown", "")).await;
    answer(&mut later, "\"}}").await;
    later.write_all(&whole.as_bytes()[..20]).await.unwrap();
    unfinished.push(later);
    let mut runs = say(&mut connections, PIPE, &whole).await;
    sleep(Duration::from_secs(1)).await;

    let begun = Instant::now();
    let closing = tokio::spawn(connections.close(LAST_BYTES));
    for mut client in unfinished {
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "it was closed");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    sleep(Duration::from_secs(2)).await;
    released.notify_one();
    let told = answer(&mut runs, "}").await;
    assert!(told.contains("connection: close"), "{told}");
    closing.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 2);
}

#[tokio::test]
async fn a_server_with_unfinished_requests_ends_at_once() {
    let (engine, _) = engine().await;
    let (address, stop, serving) = served(&engine, HttpConfig::default()).await;
    let whole = request("tools/call", "quiet", "");
    let mut clients = Vec::new();
    for end in [0, 1, 20, whole.len() - 20] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&whole.as_bytes()[..end]).await.unwrap();
        clients.push(client);
    }
    sleep(Duration::from_millis(100)).await;
    let begun = std::time::Instant::now();
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert!(begun.elapsed() < HttpConfig::default().close_timeout, "{:?}", begun.elapsed());
}

#[test]
fn a_whole_shutdown_takes_less_time_than_docker_waits() {
    let drain = stentor_engine::Config::default().drain_timeout;
    // Calls and actors that do not end get half a second each.
    let most = drain + Duration::from_secs(1) + HttpConfig::default().close_timeout;
    assert!(most < Duration::from_secs(10), "{most:?}");
}

#[tokio::test]
async fn a_server_whose_engine_was_killed_does_not_end_well_and_its_listener_is_closed() {
    let (engine, _) = engine().await;
    let (address, _stop, serving) = served(&engine, HttpConfig::default()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    send(&mut client, "tools/call", "hold").await;
    read_until(&mut client, "waiting").await;
    engine.supervisor_cell().kill_and_wait(None).await.unwrap();
    let served = serving.await.unwrap();
    assert!(matches!(served, Err(ServeError::Ended(EndedUnasked::Killed))), "{served:?}");
    client.read_to_end(&mut Vec::new()).await.unwrap();
    // Another server can be started on the same address.
    TcpListener::bind(address).await.unwrap();
}

#[tokio::test]
async fn a_second_engine_takes_the_same_listener_and_no_client_is_refused() {
    let kept = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    kept.set_nonblocking(true).unwrap();
    let address = kept.local_addr().unwrap();
    for _ in 0..3 {
        let (engine, _) = engine().await;
        let listener = TcpListener::from_std(kept.try_clone().unwrap()).unwrap();
        // The client connects before the server accepts.
        let mut client = TcpStream::connect(address).await.unwrap();
        let never = std::future::pending();
        let serving =
            tokio::spawn(serve_on(engine.clone(), listener, HttpConfig::default(), never));
        send(&mut client, "tools/call", "unknown").await;
        read_until(&mut client, "unknown tool").await;
        engine.supervisor_cell().kill_and_wait(None).await.unwrap();
        serving.await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn a_requested_shutdown_is_not_an_error() {
    let (engine, _) = engine().await;
    let (_, _stop, serving) = served(&engine, HttpConfig::default()).await;
    engine.shutdown().await;
    serving.await.unwrap().unwrap();
}

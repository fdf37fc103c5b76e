//! The signals that end a server.

/// Completes when the process receives Ctrl-C, or SIGTERM on Unix.
///
/// From the first poll on, these signals no longer end the process by themselves.
pub async fn terminated() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Without a handler the signal keeps its default action, which ends the process.
        let Ok(mut terminate) = signal(SignalKind::terminate()) else {
            return interrupted().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            () = interrupted() => {}
        }
    }
    #[cfg(not(unix))]
    interrupted().await;
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Ends the process at once on the next signal. A user who does not want to wait for a running
/// shutdown can then press Ctrl-C again.
pub fn exit_on_next() {
    tokio::spawn(async {
        terminated().await;
        std::process::exit(1);
    });
}

//! Peer requests that this node serves itself, after their target has come to it.

use stentor_wire::Response;
use tokio::sync::mpsc;

use super::{PeerRequest, PeerStream, Remote, ResponseControl};

/// Answers to the questions of one peer request that may wait for delivery.
const MAX_WAITING_ANSWERS: usize = 16;

/// The way back to this engine itself.
#[derive(Debug)]
struct LocalControl(mpsc::Sender<Response>);

impl ResponseControl for LocalControl {
    fn took(&self, _count: usize) {}

    fn answer(&self, response: Response) {
        // More at once than fit cannot be answers to questions, so the rest is dropped.
        let _ = self.0.try_send(response);
    }
}

impl Remote {
    /// Serves a peer request that was meant for another node.
    pub(crate) fn ask_itself(&self, peer_request: PeerRequest) -> PeerStream {
        let (sender, receiver) = mpsc::channel(1);
        let (answer_sender, mut answer_receiver) = mpsc::channel(MAX_WAITING_ANSWERS);
        let remote = self.clone();
        tokio::spawn(async move {
            let serve = async {
                let mut serving = remote.serve_peer(peer_request).await;
                loop {
                    tokio::select! {
                        next = serving.next() => match next {
                            // Nobody reads: the request was cancelled.
                            Some(next) => if sender.send(next).await.is_err() { return },
                            None => return,
                        },
                        Some(response) = answer_receiver.recv() => serving.client_answers(response),
                    }
                }
            };
            tokio::select! {
                () = serve => {}
                () = sender.closed() => {}
            }
        });
        PeerStream::new(receiver, Box::new(LocalControl(answer_sender)))
    }
}

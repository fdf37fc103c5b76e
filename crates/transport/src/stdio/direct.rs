//! Pipes and sockets that this process was started with, read and written by the runtime's
//! reactor.
//!
//! Whether waiting is allowed is a property of the open file, not of the descriptor: the other
//! processes that have it open would see it change. So it is never set on what was inherited. A
//! pipe is opened anew. A socket cannot be; each of its operations says that it must not wait.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;

use super::process::{Reader, Writer};

/// # Errors
///
/// If it cannot be read directly.
pub(super) fn reader(fd: BorrowedFd<'_>) -> io::Result<Reader> {
    Ok(match Kind::of(fd)? {
        Kind::Pipe(path) => Box::new(pipe::OpenOptions::new().open_receiver(path)?),
        Kind::Socket => Box::new(Socket::new(fd, Interest::READABLE)?),
    })
}

/// # Errors
///
/// If it cannot be written directly.
pub(super) fn writer(fd: BorrowedFd<'_>) -> io::Result<Writer> {
    Ok(match Kind::of(fd)? {
        Kind::Pipe(path) => Box::new(pipe::OpenOptions::new().open_sender(path)?),
        Kind::Socket => Box::new(Socket::new(fd, Interest::WRITABLE)?),
    })
}

enum Kind {
    /// With the name it can be opened by.
    Pipe(String),
    Socket,
}

impl Kind {
    fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let target = std::fs::read_link(&path)?;
        let target = target.to_string_lossy();
        // Not a FIFO with a name in the file system: opened after its last writer has left, it
        // would never report its end.
        if target.starts_with("pipe:[") {
            Ok(Self::Pipe(path))
        } else if target.starts_with("socket:[") {
            Ok(Self::Socket)
        } else {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
}

/// One direction of a socket.
#[derive(Debug)]
struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    fn new(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<Self> {
        // A descriptor of its own, as each can be registered once.
        #[allow(deprecated, reason = "sound with an `OwnedFd`, and what replaces it is unsafe")]
        AsyncFd::with_interest(fd.try_clone_to_owned()?, interest).map(Self)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            let wanted = room.len();
            let read = ready.try_io(|fd| Ok(recv(fd, room, RecvFlags::DONTWAIT)?.0));
            let Ok(read) = read else { continue };
            let read = read?;
            // Less than wanted is all there was: whatever follows is reported.
            if 0 < read && read < wanted {
                ready.clear_ready();
            }
            buffer.advance(read);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            if let Ok(sent) = ready.try_io(|fd| Ok(send(fd, bytes, flags)?)) {
                return Poll::Ready(sent);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Does nothing: the socket is not this process's alone.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const O_NONBLOCK: u32 = 0o4000;

    /// More than pipes and sockets hold.
    const MUCH: usize = 3 << 20;

    fn bytes() -> Vec<u8> {
        (0..MUCH).map(|n| (n % 251) as u8).collect()
    }

    fn may_wait(fd: impl AsFd) -> bool {
        let info = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        let info = std::fs::read_to_string(info).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        u32::from_str_radix(flags.trim(), 8).unwrap() & O_NONBLOCK == 0
    }

    /// Sends back what comes on `stdin`, to a client that writes and reads without end, and
    /// checks that what was inherited is as it was.
    async fn echoes(
        (stdin, mut asks): (impl AsFd, impl Write + Send + 'static),
        (stdout, mut hears): (impl AsFd, impl Read + Send + 'static),
    ) {
        let asking = thread::spawn(move || asks.write_all(&bytes()).unwrap());
        let hearing = thread::spawn(move || {
            let mut heard = Vec::new();
            hears.read_to_end(&mut heard).unwrap();
            heard
        });
        let mut reader = reader(stdin.as_fd()).unwrap();
        let mut writer = writer(stdout.as_fd()).unwrap();
        let copied = tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        assert_eq!(copied, MUCH as u64, "all was read, and then the end");
        assert!(may_wait(&stdin) && may_wait(&stdout), "others would see that it is changed");
        drop((writer, stdout));
        asking.join().unwrap();
        assert_eq!(hearing.join().unwrap(), bytes());
    }

    #[tokio::test]
    async fn pipes_are_read_and_written() {
        let (stdin, asks) = io::pipe().unwrap();
        let (hears, stdout) = io::pipe().unwrap();
        echoes((stdin, asks), (stdout, hears)).await;
    }

    #[tokio::test]
    async fn sockets_are_read_and_written() {
        let (stdin, asks) = UnixStream::pair().unwrap();
        let (hears, stdout) = UnixStream::pair().unwrap();
        echoes((stdin, asks), (stdout, hears)).await;
    }

    #[tokio::test]
    async fn one_socket_is_both() {
        let (near, far) = UnixStream::pair().unwrap();
        let answering = async {
            let mut reader = reader(far.as_fd()).unwrap();
            let mut writer = writer(far.as_fd()).unwrap();
            tokio::io::copy(&mut reader, &mut writer).await.unwrap()
        };
        let asking = tokio::task::spawn_blocking(move || {
            let mut heard = [0; 4];
            for _ in 0..100 {
                (&near).write_all(b"ping").unwrap();
                (&near).read_exact(&mut heard).unwrap();
            }
            heard
        });
        let (copied, heard) = tokio::join!(answering, asking);
        assert_eq!((copied, &heard.unwrap()), (400, b"ping"));
    }

    #[tokio::test]
    async fn what_was_said_before_the_end_is_read() {
        let (stdin, mut asks) = io::pipe().unwrap();
        asks.write_all(b"last words").unwrap();
        drop(asks);
        let mut reader = reader(stdin.as_fd()).unwrap();
        let mut read = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut reader, &mut read).await.unwrap();
        assert_eq!(read, "last words");
    }

    #[tokio::test]
    async fn who_hears_no_more_is_noticed() {
        let (hears, stdout) = io::pipe().unwrap();
        let mut pipe = writer(stdout.as_fd()).unwrap();
        drop(hears);
        let error = pipe.write_all(b"hello").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);

        let (hears, stdout) = UnixStream::pair().unwrap();
        let mut socket = writer(stdout.as_fd()).unwrap();
        drop(hears);
        let error = socket.write_all(b"hello").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn files_and_devices_are_left_to_threads() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        for fd in [null, file] {
            assert!(reader(fd.as_fd()).is_err());
            assert!(writer(fd.as_fd()).is_err());
        }
    }
}

//! Reads and writes inherited pipes and sockets with the runtime's reactor.
//!
//! Non-blocking mode is a property of the open file, not of the descriptor: other processes that
//! have the file open would see the change. So it is never set on an inherited file. A pipe is
//! opened again. A socket cannot be opened again, so each operation on it has a flag not to wait.

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
    /// With the path to open it again.
    Pipe(String),
    Socket,
}

impl Kind {
    fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let target = std::fs::read_link(&path)?;
        let target = target.to_string_lossy();
        // Not a FIFO with a name in the file system: if it is opened after its last writer has
        // closed it, it never reports its end.
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
        // A descriptor of its own, because each can be registered only once.
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
            // A short read has emptied the buffer: the reactor reports when more arrives.
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

    /// Does nothing: other processes use the socket, too.
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

    /// More bytes than pipes and sockets buffer.
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

    /// Echoes `stdin` to `stdout` for a client that writes and reads without pause. Checks that the
    /// inherited files were not changed.
    async fn echoes(
        (stdin, mut input): (impl AsFd, impl Write + Send + 'static),
        (stdout, mut output): (impl AsFd, impl Read + Send + 'static),
    ) {
        let writing = thread::spawn(move || input.write_all(&bytes()).unwrap());
        let reading = thread::spawn(move || {
            let mut received = Vec::new();
            output.read_to_end(&mut received).unwrap();
            received
        });
        let mut reader = reader(stdin.as_fd()).unwrap();
        let mut writer = writer(stdout.as_fd()).unwrap();
        let copied = tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        assert_eq!(copied, MUCH as u64, "all was read, and then the end");
        assert!(may_wait(&stdin) && may_wait(&stdout), "others would see that it is changed");
        drop((writer, stdout));
        writing.join().unwrap();
        assert_eq!(reading.join().unwrap(), bytes());
    }

    #[tokio::test]
    async fn pipes_are_read_and_written() {
        let (stdin, input) = io::pipe().unwrap();
        let (output, stdout) = io::pipe().unwrap();
        echoes((stdin, input), (stdout, output)).await;
    }

    #[tokio::test]
    async fn sockets_are_read_and_written() {
        let (stdin, input) = UnixStream::pair().unwrap();
        let (output, stdout) = UnixStream::pair().unwrap();
        echoes((stdin, input), (stdout, output)).await;
    }

    #[tokio::test]
    async fn one_socket_serves_both_directions() {
        let (near, far) = UnixStream::pair().unwrap();
        let answering = async {
            let mut reader = reader(far.as_fd()).unwrap();
            let mut writer = writer(far.as_fd()).unwrap();
            tokio::io::copy(&mut reader, &mut writer).await.unwrap()
        };
        let writing = tokio::task::spawn_blocking(move || {
            let mut received = [0; 4];
            for _ in 0..100 {
                (&near).write_all(b"ping").unwrap();
                (&near).read_exact(&mut received).unwrap();
            }
            received
        });
        let (copied, received) = tokio::join!(answering, writing);
        assert_eq!((copied, &received.unwrap()), (400, b"ping"));
    }

    #[tokio::test]
    async fn bytes_before_the_end_are_read() {
        let (stdin, mut input) = io::pipe().unwrap();
        input.write_all(b"last words").unwrap();
        drop(input);
        let mut reader = reader(stdin.as_fd()).unwrap();
        let mut read = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut reader, &mut read).await.unwrap();
        assert_eq!(read, "last words");
    }

    #[tokio::test]
    async fn a_closed_reader_is_noticed() {
        let (output, stdout) = io::pipe().unwrap();
        let mut pipe = writer(stdout.as_fd()).unwrap();
        drop(output);
        let error = pipe.write_all(b"hello").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);

        let (output, stdout) = UnixStream::pair().unwrap();
        let mut socket = writer(stdout.as_fd()).unwrap();
        drop(output);
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

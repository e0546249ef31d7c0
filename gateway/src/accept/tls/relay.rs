//! The bytes of one TLS client after its handshake: decrypted towards the gateway, encrypted towards the client.
//! Holds no buffer while nothing waits: bytes are read only when they can be passed on, into the stack.
//! Invariants: nothing is read from the gateway while ciphertext waits for the client, so that a slow client fills the socket
//! pair and is then the bucket's to judge; what a side has said before it ends is passed on.

use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;
use tidegate_tls::server_stream::TlsStream;
use tokio::io::{AsyncRead as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep};

/// One TLS record at most.
const DOWN_BYTES: usize = 16 * 1024;
/// A client's messages are small.
const UP_BYTES: usize = 4 * 1024;
/// How long a client may take over what was left for it when the gateway had ended the connection.
const CLOSING_MAX: Duration = Duration::from_secs(5);
/// How often a client that is behind is asked about.
const LOOK: Duration = Duration::from_secs(1);

/// How far a direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Its source has ended, its end is being passed on.
    Closing,
    Over,
}

/// Both directions.
pub(super) struct Relay {
    client: TlsStream<TcpStream>,
    gateway: UnixStream,
    up: Way,
    down: Way,
    /// Read from the client, not yet taken by the socket pair; as good as always empty.
    up_left: Vec<u8>,
    /// Read from the gateway, not yet taken by rustls; the same.
    down_left: Vec<u8>,
    /// Runs once the gateway has ended the connection.
    closing: Option<Pin<Box<Sleep>>>,
    /// Runs while ciphertext waits for the client.
    looking: Option<Pin<Box<Sleep>>>,
}

impl Relay {
    pub fn new(client: TlsStream<TcpStream>, gateway: UnixStream) -> Self {
        let (up, down) = (Way::Open, Way::Open);
        Self { client, gateway, up, down, up_left: Vec::new(), down_left: Vec::new(), closing: None, looking: None }
    }

    /// Client → gateway. Ready when this direction is over; an error when the connection is.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            if self.up == Way::Over {
                return Poll::Ready(Ok(()));
            }
            if !self.up_left.is_empty() {
                let taken = ready!(Pin::new(&mut self.gateway).poll_write(cx, &self.up_left))?;
                take_off(&mut self.up_left, taken);
                continue;
            }
            let mut buffer = [MaybeUninit::<u8>::uninit(); UP_BYTES];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            ready!(Pin::new(&mut self.client).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                // The bucket sees the end of its client.
                let _ = Pin::new(&mut self.gateway).poll_shutdown(cx);
                self.up = Way::Over;
                continue;
            }
            pass(&mut self.gateway, cx, buffer.filled(), &mut self.up_left)?;
        }
    }

    /// Gateway → client.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            match self.down {
                Way::Over => return Poll::Ready(Ok(())),
                Way::Closing => {
                    ready!(Pin::new(&mut self.client).poll_shutdown(cx))?;
                    self.down = Way::Over;
                    continue;
                }
                Way::Open => {}
            }
            if !self.down_left.is_empty() {
                let taken = ready!(Pin::new(&mut self.client).poll_write(cx, &self.down_left))?;
                take_off(&mut self.down_left, taken);
                continue;
            }
            if self.client.get_ref().1.wants_write() {
                ready!(Pin::new(&mut self.client).poll_flush(cx))?;
            }
            let mut buffer = [MaybeUninit::<u8>::uninit(); DOWN_BYTES];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            // A reset says that the bucket left bytes of the client unread; what it wrote has been read by then.
            match ready!(Pin::new(&mut self.gateway).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    pass(&mut self.client, cx, buffer.filled(), &mut self.down_left)?;
                }
                Ok(()) | Err(_) => {
                    self.down = Way::Closing;
                    self.closing.get_or_insert_with(|| Box::pin(sleep(CLOSING_MAX)));
                }
            }
        }
    }

    /// Finds out that the bucket has ended the connection although its last words are not read yet. No event tells: the
    /// socket has long been readable.
    fn look(&mut self, cx: &mut Context<'_>) {
        if self.closing.is_some() || !self.client.get_ref().1.wants_write() {
            self.looking = None;
            return;
        }
        if self.looking.is_none() {
            // As `Quiet::note_stall`: the next time its window shuts the kernel would end the connection at once.
            let _ = sockopt::set_tcp_user_timeout(self.client.get_ref().0, 0);
        }
        let looking = self.looking.get_or_insert_with(|| Box::pin(sleep(LOOK)));
        while looking.as_mut().poll(cx).is_ready() {
            if is_left(&self.gateway) {
                self.looking = None;
                self.closing = Some(Box::pin(sleep(CLOSING_MAX)));
                return;
            }
            looking.as_mut().reset(Instant::now() + LOOK);
        }
    }
}

/// Whether the other end of the pair is closed; asked only while the client does not take what is there for it.
fn is_left(gateway: &UnixStream) -> bool {
    let mut watched = [PollFd::new(gateway, PollFlags::empty())];
    let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut watched, Some(&no_wait)).is_ok() && watched[0].revents().contains(PollFlags::HUP)
}

impl Future for Relay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let down = this.poll_down(cx);
        let up = this.poll_up(cx);
        match (up, down) {
            (_, Poll::Ready(Err(_))) | (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            (Poll::Ready(Err(_)), _) if this.closing.is_none() => return Poll::Ready(()),
            (Poll::Ready(Err(_)), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            _ => {}
        }
        this.look(cx);
        match &mut this.closing {
            Some(closing) => closing.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// Writes what is taken now and keeps the rest.
fn pass(
    to: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
    bytes: &[u8],
    left: &mut Vec<u8>,
) -> std::io::Result<()> {
    let taken = match Pin::new(to).poll_write(cx, bytes) {
        Poll::Ready(taken) => taken?,
        Poll::Pending => 0,
    };
    left.extend_from_slice(&bytes[taken..]);
    Ok(())
}

/// Drops what was taken; an emptied buffer gives its memory back.
fn take_off(left: &mut Vec<u8>, taken: usize) {
    left.drain(..taken);
    if left.is_empty() {
        *left = Vec::new();
    }
}

//! What hyper may see of a connection: whole heads that can be read in one way, and their bodies (`framing` judges). A head
//! that is refused becomes a request for its refusal, so that its answer comes in its turn, with a problem document, and
//! is counted like every other; hyper's own refusals have none.
//! Invariant: after a refusal nothing of the peer's is read any more.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Fault, Framing};
use super::socket::Requests;
use crate::problem::Refusal;

/// Read at once while a head is unfinished, and where the reader has less room (hyper looks at 24 bytes first).
const SCRATCH_BYTES: usize = 8 * 1024;

/// A stream whose heads are judged before they are read.
pub struct Guard<S> {
    stream: S,
    requests: Arc<Requests>,
    framing: Framing,
    /// Read from the peer and not passed on; the first `ready` bytes may be.
    held: BytesMut,
    ready: usize,
    is_refused: bool,
    header_ms: u32,
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// A new connection; `header_ms` is the socket's deadline for heads.
    pub fn new(stream: S, requests: Arc<Requests>, head_bytes_max: usize, header_ms: u32) -> Self {
        let framing = Framing::new(head_bytes_max);
        Self { stream, requests, framing, held: BytesMut::new(), ready: 0, is_refused: false, header_ms }
    }

    /// Puts a request for the refusal in the place of the head.
    fn refuse(&mut self, refusal: Refusal) {
        let is_head = self.held.trim_ascii_start().starts_with(b"HEAD ");
        self.requests.refuse(self.framing.heads(), refusal);
        self.held.clear();
        self.held.extend_from_slice(if is_head { b"HEAD" } else { b"GET" });
        self.held.extend_from_slice(b" / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n");
        self.ready = self.held.len();
        self.is_refused = true;
    }

    /// Judges what is held.
    fn judge(&mut self) -> io::Result<()> {
        match self.framing.walk(&self.held) {
            Ok(ready) => self.ready = ready,
            Err(Fault::Head(refusal)) => self.refuse(refusal),
            Err(Fault::Body) => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(())
    }

    /// Reads into `held`; false at the end.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut scratch = [MaybeUninit::<u8>::uninit(); SCRATCH_BYTES];
        let mut buf = ReadBuf::uninit(&mut scratch);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && self.is_begun() => {
                self.refuse(Refusal::HeadTimeout { limit_ms: self.header_ms });
                return Poll::Ready(Ok(true));
            }
            Err(error) => return Poll::Ready(Err(error)),
            Ok(()) => {}
        }
        self.held.extend_from_slice(buf.filled());
        Poll::Ready(Ok(!buf.filled().is_empty()))
    }

    /// Whether a head has begun; of a peer that has said nothing nobody waits for an answer.
    fn is_begun(&self) -> bool {
        // Some clients end a body with an empty line that belongs to nothing.
        let held = self.held.trim_ascii_start();
        self.framing.awaits_head() && !held.is_empty() && !held.starts_with(b"PRI ")
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.ready > 0 {
                let n = this.ready.min(buf.remaining());
                buf.put_slice(&this.held[..n]);
                this.held.advance(n);
                this.ready -= n;
                return Poll::Ready(Ok(()));
            }
            if this.is_refused {
                // Not the end, for which hyper would drop the answer; hyper closes after it by itself.
                return Poll::Pending;
            }
            if !this.held.is_empty() {
                this.judge()?;
                if this.ready > 0 {
                    continue;
                }
            } else if !this.framing.awaits_head() && buf.remaining() >= SCRATCH_BYTES {
                // Within a body nothing has to be copied, but for what follows it.
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
                let fresh = &buf.filled()[before..];
                let Ok(n) = this.framing.walk(fresh) else {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                };
                this.held.extend_from_slice(&fresh[n..]);
                buf.set_filled(before + n);
                return Poll::Ready(Ok(()));
            }
            if !ready!(this.poll_hold(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

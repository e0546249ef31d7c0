//! How a connection to a gateway comes about: TCP, or an in-memory pipe when both tiers share a process.
//! Knows nothing of HTTP/2 (see `session`). Invariant: delays between dials are jittered and bounded by `dial_max_ms`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{BackplaneConfig, authority_of, plain};

/// A byte stream to a gateway.
pub trait PipeStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> PipeStream for T {}

/// Opens a new in-memory stream to the gateway of this process; called again after each loss.
pub type PipeDial =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<Box<dyn PipeStream>>> + Send>> + Send + Sync>;

/// Where a gateway is.
pub enum GatewayLink {
    /// `http://host:port` or `https://host:port`.
    Dial(String),
    /// In this process.
    Pipe(PipeDial),
}

impl GatewayLink {
    /// What receipts and metrics call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Dial(url) => authority_of(url).map_or_else(|_| url.clone(), str::to_owned),
            Self::Pipe(_) => "local".to_owned(),
        }
    }

    /// As it is listed.
    pub(super) fn url(&self) -> Option<&str> {
        match self {
            Self::Dial(url) => Some(url),
            Self::Pipe(_) => None,
        }
    }

    /// Opens a stream, or gives up after the longest delay. With `tls` both ends prove who they are before it is given.
    pub(super) async fn open(
        &self,
        config: &BackplaneConfig,
        tls: Option<&tidegate_tls::Client>,
    ) -> io::Result<Box<dyn PipeStream>> {
        let late = Duration::from_millis(u64::from(config.dial_max_ms));
        match self {
            Self::Dial(url) => {
                let authority = authority_of(url).map_err(io::Error::other)?;
                let stream = timeout(late, TcpStream::connect(authority)).await??;
                stream.set_nodelay(true)?;
                match tls {
                    None if plain(url).starts_with("https://") => Err(io::Error::other("this node has no TLS")),
                    None => Ok(Box::new(stream)),
                    Some(tls) => {
                        let parsed: http::uri::Authority = authority.parse().map_err(io::Error::other)?;
                        let name = tidegate_tls::Client::name_of(parsed.host()).map_err(io::Error::other)?;
                        Ok(Box::new(timeout(late, tls.connector().connect(name, stream)).await??))
                    }
                }
            }
            Self::Pipe(dial) => timeout(late, dial()).await?,
        }
    }
}

/// Delay before dial number `attempt` in a row (0: the first): none, then doubling, each at random between half and whole,
/// so that many logic nodes do not call a restarted gateway at once.
pub(super) fn delay(config: &BackplaneConfig, attempt: u32) -> Duration {
    if attempt == 0 {
        return Duration::ZERO;
    }
    let base = u64::from(config.dial_base_ms);
    let whole = base.saturating_mul(1 << (attempt - 1).min(16)).min(u64::from(config.dial_max_ms));
    Duration::from_millis(fastrand::u64(whole / 2..=whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_with_jitter_up_to_the_longest() {
        let config = BackplaneConfig { dial_base_ms: 50, dial_max_ms: 1_000, ..BackplaneConfig::default() };

        assert_eq!(delay(&config, 0), Duration::ZERO);
        for (attempt, whole) in [(1, 50), (2, 100), (3, 200), (6, 1_000), (40, 1_000)] {
            for _ in 0..100 {
                let ms = delay(&config, attempt).as_millis();
                assert!((whole / 2..=whole).contains(&ms), "attempt {attempt}: {ms}");
            }
        }
    }
}

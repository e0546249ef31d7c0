//! Connects to a webhook's host: resolves its name once, checks every address, and connects to one that was checked, so
//! that a second answer of the resolver cannot lead elsewhere. Literal addresses, also in odd spellings, take the same way.
//! Keeps nothing: hyper's pool keeps the connections.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::address::check_public;

/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Finds the addresses of a host; the system's resolver, or a test's.
pub type Resolve = Arc<dyn Fn(String, u16) -> Addresses + Send + Sync>;

/// The system's resolver.
#[must_use]
pub fn system_resolver() -> Resolve {
    Arc::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) }))
}

/// Makes connections for hyper.
#[derive(Clone)]
pub struct Connect {
    /// Whether any address is good.
    pub allow_private: bool,
    /// Finds addresses.
    pub resolve: Resolve,
}

impl tower_service::Service<Uri> for Connect {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.connect(&uri).await.map(TokioIo::new) })
    }
}

impl Connect {
    async fn connect(&self, uri: &Uri) -> io::Result<TcpStream> {
        let host = uri.host().ok_or_else(|| io::Error::other("the URL has no host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let found = (self.resolve)(host, port).await?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in self.checked(found)? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // A batch is one write; waiting for more would only delay it.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// One address that is not public spoils them all: such an answer is an attack or a mistake, never a spare.
    fn checked(&self, found: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
        if !self.allow_private {
            for address in &found {
                if let Err(kind) = check_public(address.ip()) {
                    let why = format!(
                        "the host leads to {}, {kind}; set allow_private = true if that is meant",
                        address.ip()
                    );
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
                }
            }
        }
        Ok(found.into_iter().take(ADDRESSES_MAX).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpListener;

    /// A resolver that gives these answers in turn, the last for ever.
    fn answers(answers: Vec<Vec<SocketAddr>>) -> (Resolve, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let resolve: Resolve = Arc::new(move |_, _| {
            let i = count.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
            let answer = answers[i].clone();
            Box::pin(async move { Ok(answer) })
        });
        (resolve, asked)
    }

    fn uri(text: &str) -> Uri {
        text.parse().expect("a URL")
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_and_nothing_is_connected() {
        let inside = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = inside.local_addr().expect("bound");
        let public: SocketAddr = "93.184.216.34:80".parse().expect("an address");
        let (resolve, _) = answers(vec![vec![public, address]]);

        let refused = Connect { allow_private: false, resolve }.connect(&uri("http://hook.example/")).await;

        let error = refused.expect_err("one address is loopback");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("allow_private"), "{error}");
        let accepted = tokio::time::timeout(std::time::Duration::from_millis(20), inside.accept()).await;
        assert!(accepted.is_err(), "nobody came");
    }

    #[tokio::test]
    async fn the_address_that_was_checked_is_the_one_connected_to() {
        let inside = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = inside.local_addr().expect("bound");
        let elsewhere: SocketAddr = "127.0.0.2:9".parse().expect("an address");
        let (resolve, asked) = answers(vec![vec![address], vec![elsewhere]]);

        let stream = Connect { allow_private: true, resolve }.connect(&uri("http://hook.example/")).await;

        assert_eq!(stream.expect("connected").peer_addr().expect("connected"), address);
        assert_eq!(asked.load(Ordering::Relaxed), 1, "the name is asked for once");
    }

    #[tokio::test]
    async fn odd_spellings_of_loopback_are_loopback() {
        let connect = Connect { allow_private: false, resolve: system_resolver() };
        for host in ["2130706433", "0x7f000001", "127.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "0"] {
            let refused = connect.connect(&uri(&format!("http://{host}:9/"))).await;
            let error = refused.expect_err(host);
            assert_ne!(error.kind(), io::ErrorKind::ConnectionRefused, "{host}: {error}");
        }
    }
}

//! The gateway's `renewal`: new certificates for those who come, nothing lost for those who are there.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use support::{gateway, metric};
use tidegate_gateway::Gateway;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Writes a fresh certificate for `localhost`, which is its own authority.
fn issue(folder: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".into()]).expect("a key");
    std::fs::write(folder.join("a.crt"), cert.pem()).expect("a scratch file");
    std::fs::write(folder.join("a.key"), signing_key.serialize_pem()).expect("a scratch file");
    cert.der().clone()
}

/// A connection whose client trusts this certificate alone, upgraded.
async fn connect(gateway: &Gateway, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("rustls knows its own versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(gateway.listen_addr()).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(REQUEST).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    assert_eq!(&head, b"HTTP/1.1 101");
    Ok(stream)
}

#[tokio::test]
async fn a_reload_concerns_those_who_come_and_a_bad_one_nobody() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let old = issue(folder.path());
    let gateway = gateway(|c| (c.tls.cert, c.tls.key) = (path("a.crt"), path("a.key"))).await;
    let mut stays = connect(&gateway, &old).await.expect("the old certificate");

    std::fs::write(path("a.key"), "no key").expect("a scratch file");
    let problems = gateway.renewal().expect_err("a file without a key");
    assert!(problems.len() == 1 && problems[0].starts_with("gateway.tls: ") && problems[0].contains("a.key"));
    connect(&gateway, &old).await.expect("what was in force stays");

    let new = issue(folder.path());
    gateway.renewal().expect("good files").apply();
    connect(&gateway, &new).await.expect("the new certificate");
    connect(&gateway, &old).await.expect_err("the old one is not shown any more");
    stays.write_all(&[0x89, 0x81, 1, 2, 3, 4, b'!' ^ 1]).await.expect("still open");
    let mut heard = Vec::new();
    while !heard.ends_with(&[0x8a, 1, b'!']) {
        assert_ne!(stays.read_buf(&mut heard).await.expect("still open"), 0, "the pong comes first");
    }
}

/// Each newcomer must not throw out one that is nearly through: everybody would begin again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_storm_of_honest_clients_handshakes_that_have_begun_are_finished() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let trusted = issue(folder.path());
    let change = |c: &mut tidegate_gateway::GatewayConfig| {
        (c.tls.cert, c.tls.key) = (path("a.crt"), path("a.key"));
        c.handshake.tls_in_flight = 16;
    };
    let gateway = Arc::new(gateway(change).await);

    let mut storm = JoinSet::new();
    for _ in 0..300 {
        let (gateway, trusted) = (Arc::clone(&gateway), trusted.clone());
        storm.spawn(async move {
            loop {
                if let Ok(stream) = connect(&gateway, &trusted).await {
                    return stream;
                }
                // A client's own pause. Without one, clients that come back at once are a storm of another kind.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let through = storm.join_all().await.len();

    let evicted = metric(&gateway, "tidegate_gateway_evicted_total{pool=\"tls_handshakes\"}");
    assert!(evicted < through as u64 / 2, "{evicted} of {through}");
}

//! Certificates made for a test, and clients that trust them: TLS as seen from outside, by tokio-rustls.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

use super::{Api, Client};

/// Signs certificates, and keeps them in a folder.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// The files of a certificate.
#[derive(Clone)]
pub struct Issued {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let authority = Self { issuer, folder: tempfile::tempdir().expect("the temporary folder is writable") };
        authority.write("ca.crt", &authority.issuer.pem());
        authority
    }

    /// A certificate for these names and addresses.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Issued {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let params = CertificateParams::new(hosts).expect("good names");
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            cert: self.write(&format!("{name}.crt"), &cert.pem()),
            key: self.write(&format!("{name}.key"), &key.serialize_pem()),
        }
    }

    /// The file with the authority's own certificate.
    pub fn ca(&self) -> String {
        self.path("ca.crt")
    }

    /// A client's side that trusts this authority alone.
    pub fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(Path::new(&self.ca())).expect("just written");
        roots.add(ca).expect("a good certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("rustls knows its own versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    fn path(&self, file: &str) -> String {
        self.folder.path().join(file).to_str().expect("temporary paths are UTF-8").to_owned()
    }

    fn write(&self, file: &str, text: &str) -> String {
        let path = self.path(file);
        std::fs::write(&path, text).expect("the temporary folder is writable");
        path
    }
}

/// TLS over a socket that is there already.
pub async fn over(connector: &TlsConnector, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a good name");
    connector.connect(name, stream).await
}

/// A TLS connection from a loopback address of its own.
pub async fn connect_from(
    connector: &TlsConnector,
    source: Ipv4Addr,
    address: SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4().expect("a socket is free");
    socket.bind((source, 0).into()).expect("all of 127.0.0.0/8 is ours");
    over(connector, socket.connect(address).await.expect("somebody listens")).await
}

/// A client by `wss://`.
pub async fn client(connector: &TlsConnector, address: SocketAddr, path: &str) -> Client {
    let stream = connect_from(connector, Ipv4Addr::LOCALHOST, address).await.expect("the certificate is good");
    Client::shake_hands(stream, "localhost", path, &[]).await
}

/// The push API by `https://`.
pub async fn api(connector: &TlsConnector, address: SocketAddr) -> Api {
    let stream = connect_from(connector, Ipv4Addr::LOCALHOST, address).await.expect("the certificate is good");
    Api::over(stream, "localhost").await.expect("HTTP/1.1 is spoken")
}

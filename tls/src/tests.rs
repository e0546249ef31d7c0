//! Handshakes of both ends over an in-memory pipe, with certificates made here.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// Writes `<name>.crt` and `<name>.key`, signed for `host`.
fn issue(
    authority: &Authority,
    folder: &Path,
    name: &str,
    host: &str,
    usage: ExtendedKeyUsagePurpose,
) -> MutualTlsConfig {
    let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a good name");
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().expect("a key");
    let cert = params.signed_by(&key, authority).expect("a certificate");
    let write = |suffix: &str, text: &str| {
        let path = folder.join(format!("{name}.{suffix}"));
        std::fs::write(&path, text).expect("a scratch file");
        path.to_str().expect("UTF-8").to_owned()
    };
    MutualTlsConfig {
        cert: write("crt", &cert.pem()),
        key: write("key", &key.serialize_pem()),
        ca: write("ca", &authority.pem()),
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a scratch folder")
}

/// Whether a byte sent by `client` to `host` comes back from `server`.
async fn speak(server: &Server, client: &Client, host: &str) -> Result<(), String> {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let acceptor = server.acceptor();
    let echo = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.flush().await
    });
    let name = Client::name_of(host).map_err(|e| e.to_string())?;
    let answer = async {
        let mut stream = client.connector().connect(name, near).await?;
        stream.write_u8(7).await?;
        stream.read_u8().await
    };
    let answer = answer.await;
    let echoed = echo.await.expect("the echo does not panic");
    match (answer, echoed) {
        (Ok(7), Ok(())) => Ok(()),
        (answer, echoed) => Err(format!("client {answer:?}, server {echoed:?}")),
    }
}

#[tokio::test]
async fn both_ends_of_one_authority_speak_and_strangers_do_not() {
    let folder = folder();
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let gateway = issue(&ours, folder.path(), "gateway", "gateway.test", ExtendedKeyUsagePurpose::ServerAuth);
    let logic = issue(&ours, folder.path(), "logic", "logic.test", ExtendedKeyUsagePurpose::ClientAuth);
    let stranger = issue(&theirs, folder.path(), "stranger", "logic.test", ExtendedKeyUsagePurpose::ClientAuth);
    let stranger = MutualTlsConfig { ca: logic.ca.clone(), ..stranger };
    let server = Server::open_mutual(&gateway, &["h2"]).expect("good files");
    let client = Client::open_mutual(&logic, &["h2"]).expect("good files");

    assert_eq!(speak(&server, &client, "gateway.test").await, Ok(()));
    let elsewhere = speak(&server, &client, "other.test").await.expect_err("the certificate has another name");
    assert!(elsewhere.contains("NotValidForName"), "{elsewhere}");
    let stranger = Client::open_mutual(&stranger, &["h2"]).expect("good files");
    let refused = speak(&server, &stranger, "gateway.test").await.expect_err("another authority's certificate");
    assert!(refused.contains("UnknownCA") || refused.contains("UnknownIssuer"), "{refused}");
}

#[tokio::test]
async fn a_reload_takes_new_files_and_a_bad_one_changes_nothing() {
    let folder = folder();
    let (old, new) = (authority("old"), authority("new"));
    let gateway = issue(&old, folder.path(), "gateway", "gateway.test", ExtendedKeyUsagePurpose::ServerAuth);
    let logic = issue(&old, folder.path(), "logic", "logic.test", ExtendedKeyUsagePurpose::ClientAuth);
    let server = Server::open_mutual(&gateway, &["h2"]).expect("good files");
    let client = Client::open_mutual(&logic, &["h2"]).expect("good files");

    let key = std::fs::read(&gateway.key).expect("just written");
    std::fs::write(&gateway.key, "-----BEGIN PRIVATE KEY-----\n").expect("a scratch file");
    let problem = server.renewal().expect_err("half a key");
    assert!(problem.to_string().contains("gateway.key"), "{problem}");
    std::fs::write(&gateway.key, key).expect("a scratch file");
    assert_eq!(speak(&server, &client, "gateway.test").await, Ok(()));

    issue(&new, folder.path(), "gateway", "gateway.test", ExtendedKeyUsagePurpose::ServerAuth);
    issue(&new, folder.path(), "logic", "logic.test", ExtendedKeyUsagePurpose::ClientAuth);
    let renewal = server.renewal().expect("good files");
    assert_eq!(speak(&server, &client, "gateway.test").await, Ok(()), "read is not yet in force");
    renewal.apply();
    let refused = speak(&server, &client, "gateway.test").await.expect_err("the client still trusts the old authority");
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    client.renewal().expect("good files").apply();
    assert_eq!(speak(&server, &client, "gateway.test").await, Ok(()));
}

#[test]
fn each_bad_file_is_named() {
    let folder = folder();
    let authority = authority("ours");
    let good = issue(&authority, folder.path(), "a", "a.test", ExtendedKeyUsagePurpose::ServerAuth);
    let other = issue(&authority, folder.path(), "b", "b.test", ExtendedKeyUsagePurpose::ServerAuth);
    let open = |cert: &str, key: &str| {
        let config = TlsConfig { cert: cert.into(), key: key.into() };
        Server::open(&config, &["http/1.1"]).err().map(|error| error.to_string()).unwrap_or_default()
    };

    assert_eq!(open(&good.cert, &good.key), "");
    assert!(open("/nowhere/a.crt", &good.key).starts_with("/nowhere/a.crt: "));
    assert!(open(&good.key, &good.key).ends_with("no certificate in this PEM file"));
    assert!(open(&good.cert, &good.cert).ends_with("no private key in this PEM file"));
    let mismatch = open(&good.cert, &other.key);
    assert!(mismatch.contains("a.crt with ") && mismatch.contains("b.key"), "{mismatch}");
    assert!(Client::name_of("no name").is_err());
    assert!(Client::name_of("[::1]").is_ok() && Client::name_of("10.0.0.1").is_ok());
}

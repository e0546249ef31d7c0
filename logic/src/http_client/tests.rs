//! Requests to services on loopback: what is sent, and what of each answer and each silence comes back.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::connect::system_resolver;
use super::service::{Hook, reply};
use super::*;

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        url: url.into(),
        secrets: vec![KEY.into()],
        allow_private: true,
        answer_bytes: 64 * 1024,
        idle_max: 1,
        ..Endpoint::default()
    }
}

async fn post_within(endpoint: &Endpoint, ms: u64) -> Result<Answered, Trouble> {
    let client = Client::new(endpoint, system_resolver()).expect("a sound endpoint");
    client.post("x-1-1", Bytes::from_static(b"{\"id\":\"x\"}\n"), Instant::now() + Duration::from_millis(ms)).await
}

async fn post(endpoint: &Endpoint) -> Result<Answered, Trouble> {
    post_within(endpoint, 2_000).await
}

fn answered(status: u16, said: Said) -> Result<Answered, Trouble> {
    Ok(Answered { status, after: None, said })
}

#[tokio::test]
async fn a_request_is_signed_lines_with_the_configured_headers() {
    let hook = Hook::start(|_, _| reply(204, "")).await;
    let mut endpoint = endpoint(&hook.url());
    endpoint.headers.insert("x-team".into(), "robots".into());

    let answer = post(&endpoint).await;

    assert_eq!(answer, answered(204, Said::Body(Bytes::new())));
    let got = hook.got().remove(0);
    let header =
        |name: &str| got.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let seconds: u64 = header("webhook-timestamp").parse().expect("seconds");
    let secret = Secret::read(KEY).expect("a key");
    assert_eq!(header("webhook-signature"), signature(&[secret], "x-1-1", seconds, b"{\"id\":\"x\"}\n"));
    assert_eq!(
        [header("content-type"), header("webhook-id"), header("x-team")],
        ["application/x-ndjson", "x-1-1", "robots"]
    );
    assert!(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().abs_diff(seconds) < 60);
}

#[tokio::test]
async fn only_a_good_answer_is_read_and_no_redirect_is_followed() {
    let elsewhere = Hook::start(|_, _| reply(200, "")).await;
    for (status, of_success, of_ok) in [
        (200, true, true),
        (201, true, false),
        (204, true, false),
        (206, true, false),
        (307, false, false),
        (500, false, false),
    ] {
        let location = elsewhere.url();
        let hook = Hook::start(move |_, _| {
            let mut reply = reply(status, "");
            reply.headers_mut().insert("location", location.parse().expect("a URL"));
            reply
        })
        .await;
        for (good, is_read) in [(Good::Success, of_success), (Good::Ok, of_ok)] {
            let answer = post(&Endpoint { good, ..endpoint(&hook.url()) }).await;

            let said = if is_read { Said::Body(Bytes::new()) } else { Said::Unread };
            assert_eq!(answer, answered(status, said), "{good:?}");
        }
    }
    assert!(elsewhere.got().is_empty(), "a redirect was followed");
}

#[tokio::test]
async fn silence_and_refusal_are_told_apart_and_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("bound");
    let endpoint = endpoint(&format!("http://{address}/"));
    tokio::time::pause();
    let started = Instant::now();
    assert_eq!(post_within(&endpoint, 100).await, Err(Trouble::Timeout));
    // The clock stands still but for this wait; timers fire at whole milliseconds.
    assert!((100..=101).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    tokio::time::resume();

    drop(silent);
    let Err(Trouble::Unreachable(why)) = post(&endpoint).await else { panic!("it is refused") };
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn an_answer_may_be_large_slow_or_cut_and_is_an_answer_all_the_same() {
    let hook = Hook::start(|_, _| reply(200, &"x".repeat(1_000))).await;
    let mut bounded = endpoint(&hook.url());
    bounded.answer_bytes = 999;
    assert_eq!(post(&bounded).await, answered(200, Said::TooMuch));
    bounded.answer_bytes = 1_000;
    assert!(matches!(post(&bounded).await, Ok(Answered { said: Said::Body(body), .. }) if body.len() == 1_000));

    let slow = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = endpoint(&format!("http://{}/", slow.local_addr().expect("bound")));
    let server = tokio::spawn(async move {
        let (mut stream, _) = slow.accept().await.expect("a connection");
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{").await.expect("the head");
        std::future::pending::<()>().await;
    });
    assert_eq!(post_within(&endpoint, 200).await, answered(200, Said::Broken));
    server.abort();
}

#[tokio::test]
async fn a_connection_cut_before_the_answer_is_no_answer() {
    let rude = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = endpoint(&format!("http://{}/", rude.local_addr().expect("bound")));
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = rude.accept().await.expect("a connection");
            let mut head = [0; 16];
            let _ = stream.read(&mut head).await;
        }
    });

    assert_eq!(post(&endpoint).await, Err(Trouble::Broken));
    server.abort();
}

#[tokio::test]
async fn without_leave_loopback_is_not_called() {
    let hook = Hook::start(|_, _| reply(200, "")).await;
    let mut endpoint = endpoint(&format!("http://localhost:{}/", hook.address.port()));
    endpoint.allow_private = false;

    let Err(Trouble::Unreachable(why)) = post(&endpoint).await else { panic!("is refused") };

    assert!(why.contains("loopback") && why.contains("allow_private"), "{why}");
    assert!(hook.got().is_empty());
}

#[tokio::test]
async fn a_certificate_must_come_from_the_authorities_of_the_endpoint() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a scratch folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).expect("writes");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a pair");
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    });
    let mut endpoint = endpoint(&format!("https://localhost:{port}/"));

    let stranger = post(&endpoint).await;
    endpoint.ca = ca.display().to_string();
    let trusted = post(&endpoint).await;

    assert!(matches!(stranger, Err(Trouble::Unreachable(_))), "{stranger:?}");
    assert_eq!(trusted, answered(204, Said::Body(Bytes::new())));
    task.abort();
}

#[test]
fn retry_after_is_seconds_or_a_date_and_never_for_ever() {
    let now = UNIX_EPOCH + Duration::from_secs(784_111_747);
    let wait = |text: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
        retry_after(&headers, now).map(|wait| wait.as_secs())
    };

    assert_eq!(wait("120"), Some(120));
    assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(30));
    assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
    assert_eq!(wait("999999999"), Some(600));
    assert_eq!((wait("soon"), wait("-1"), wait("")), (None, None, None));
}

#[test]
fn what_is_no_url_for_a_webhook_says_why() {
    for (text, word) in [
        ("", "expected"),
        ("example.org", "expected"),
        ("ftp://example.org/", "expected"),
        ("http:///x", "expected"),
        ("https://a:b@example.org/", "headers"),
        ("http://169.254.169.254/latest", "link-local"),
        ("http://[::1]:80/", "loopback"),
        ("http://[::ffff:10.0.0.1]/", "private"),
    ] {
        let why = Url::read(text, false).expect_err(text);
        assert!(why.contains(word), "{text}: {why}");
    }
    assert!(Url::read("http://127.0.0.1:9000/hook", true).is_ok());
    let url = Url::read("https://example.org/hook?key=hidden", false).expect("a URL");
    assert_eq!(shown(&url.0), "https://example.org/hook");
}

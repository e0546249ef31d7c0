//! Requests to webhooks on loopback: what is sent, and what each answer and each silence means.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::connect::system_resolver;
use super::service::{Hook, reply};
use super::*;

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn config(url: &str) -> SinkConfig {
    SinkConfig {
        name: "robots".into(),
        url: url.into(),
        secrets: vec![KEY.into()],
        allow_private: true,
        timeout_ms: 2_000,
        ..SinkConfig::default()
    }
}

fn webhook(config: &SinkConfig) -> Webhook {
    Webhook::new(config, system_resolver()).expect("a sound sink")
}

async fn post(config: &SinkConfig) -> Answer {
    webhook(config).post("x-1-1", Bytes::from_static(b"{\"id\":\"x\"}\n")).await
}

#[tokio::test]
async fn a_request_is_signed_lines_with_the_configured_headers() {
    let hook = Hook::start(|_, _| reply(204, "")).await;
    let mut config = config(&hook.url());
    config.headers.insert("x-team".into(), "robots".into());

    let answer = post(&config).await;

    assert_eq!(answer, Answer::Taken(Said::Body(Bytes::new())));
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

/// A verdict comes with 200: an empty 204, or a 201 that speaks of something else, is none.
#[tokio::test]
async fn where_the_answer_is_the_point_only_200_has_one() {
    for (status, is_good) in [(200, true), (201, false), (202, false), (204, false), (206, false)] {
        let hook = Hook::start(move |_, _| reply(status, "")).await;
        let answer = webhook(&config(&hook.url())).wanting_ok().post("x-1-1", Bytes::from_static(b"{}")).await;

        let due = if is_good {
            Answer::Taken(Said::Body(Bytes::new()))
        } else {
            Answer::Later { trouble: Trouble::Status(status), after: None }
        };
        assert_eq!(answer, due, "{status}");
    }
}

#[tokio::test]
async fn each_status_means_taken_later_or_never() {
    let elsewhere = Hook::start(|_, _| reply(200, "")).await;
    let location = elsewhere.url();
    for status in [200, 202, 204, 301, 307, 400, 401, 403, 404, 408, 410, 413, 425, 429, 500, 502, 503, 504] {
        let location = location.clone();
        let hook = Hook::start(move |_, _| {
            let mut reply = reply(status, "");
            reply.headers_mut().insert("location", location.parse().expect("a URL"));
            reply.headers_mut().insert("retry-after", "7".parse().expect("a number"));
            reply
        })
        .await;

        let answer = post(&config(&hook.url())).await;

        let expected = match status {
            200..=299 => Answer::Taken(Said::Body(Bytes::new())),
            408 | 425 | 429 | 300..=399 | 500.. => {
                Answer::Later { trouble: Trouble::Status(status), after: Some(Duration::from_secs(7)) }
            }
            _ => Answer::Never(status),
        };
        assert_eq!(answer, expected, "{status}");
    }
    assert!(elsewhere.got().is_empty(), "no redirect was followed");
}

#[tokio::test]
async fn silence_and_refusal_are_told_apart_and_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("bound");
    let mut config = config(&format!("http://{address}/"));
    config.timeout_ms = 100;
    let started = Instant::now();
    assert_eq!(post(&config).await, later(Trouble::Timeout));
    assert!(started.elapsed() < Duration::from_secs(1));

    drop(silent);
    let Answer::Later { trouble: Trouble::Unreachable(why), .. } = post(&config).await else { panic!("it is refused") };
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn an_answer_may_be_large_slow_or_cut_without_the_messages_being_sent_again() {
    let hook = Hook::start(|_, _| reply(200, &"x".repeat(1_000))).await;
    let mut bounded = config(&hook.url());
    bounded.answer_bytes = 999;
    assert_eq!(post(&bounded).await, Answer::Taken(Said::TooMuch));
    bounded.answer_bytes = 1_000;
    assert!(matches!(post(&bounded).await, Answer::Taken(Said::Body(body)) if body.len() == 1_000));

    let slow = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut config = config(&format!("http://{}/", slow.local_addr().expect("bound")));
    config.timeout_ms = 200;
    let server = tokio::spawn(async move {
        let (mut stream, _) = slow.accept().await.expect("a connection");
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{").await.expect("the head");
        std::future::pending::<()>().await;
    });
    assert_eq!(post(&config).await, Answer::Taken(Said::Broken));
    server.abort();
}

#[tokio::test]
async fn a_connection_cut_before_the_answer_is_tried_again() {
    let rude = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let config = config(&format!("http://{}/", rude.local_addr().expect("bound")));
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = rude.accept().await.expect("a connection");
            let mut head = [0; 16];
            let _ = stream.read(&mut head).await;
        }
    });

    assert_eq!(post(&config).await, later(Trouble::Broken));
    server.abort();
}

#[tokio::test]
async fn without_leave_loopback_is_not_called() {
    let hook = Hook::start(|_, _| reply(200, "")).await;
    let mut config = config(&format!("http://localhost:{}/", hook.address.port()));
    config.allow_private = false;

    let Answer::Later { trouble: Trouble::Unreachable(why), .. } = post(&config).await else { panic!("is refused") };

    assert!(why.contains("loopback") && why.contains("allow_private"), "{why}");
    assert!(hook.got().is_empty());
}

#[tokio::test]
async fn a_certificate_must_come_from_the_authorities_of_the_sink() {
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
    let mut config = config(&format!("https://localhost:{port}/"));

    let stranger = post(&config).await;
    config.ca = ca.display().to_string();
    let trusted = post(&config).await;

    assert!(matches!(stranger, Answer::Later { trouble: Trouble::Unreachable(_), .. }), "{stranger:?}");
    assert_eq!(trusted, Answer::Taken(Said::Body(Bytes::new())));
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
    assert_eq!(url.shown(), "https://example.org/hook");
}

//! The publisher against an API that takes, refuses, and ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use clap::Parser as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tidegate_bench::publish::{Options, run};
use tokio::net::TcpListener;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn options(api: SocketAddr, line: &str) -> Options {
    let words = format!("publish --api http://{api} {line}");
    Line::try_parse_from(words.split_ascii_whitespace()).expect("parses").options
}

#[test]
fn each_publisher_numbers_its_messages_without_holes() {
    let (address, pushes, _runtime) = api(Vec::new());

    let published =
        run(&options(address, "--rate 10000 --count 101 --connections 2 --batch 5 --to room:red")).expect("ran");

    let pushes = pushes.lock().expect("nobody panicked").clone();
    for expected in &published.expected {
        let of = |message: &serde_json::Value| message["p"] == expected.publisher;
        let messages = pushes.iter().flat_map(|push| push["messages"].as_array().cloned().unwrap_or_default());
        let numbers: Vec<_> = messages.filter(of).map(|message| message["n"].as_u64()).collect();
        assert_eq!(numbers, (0..u64::from(expected.count)).map(Some).collect::<Vec<_>>());
        assert_eq!((expected.refused, expected.to.as_str()), (0, "room:red"));
    }
    assert_eq!(published.expected.iter().map(|expected| expected.count).sum::<u32>(), 101);
    assert!(pushes.iter().all(|push| push["to"] == serde_json::json!({"room": "red"})));
    assert_eq!((published.accepted, published.unanswered), (published.pushes, 0));
}

#[test]
fn messages_carry_the_time_they_were_due() {
    let (address, pushes, _runtime) = api(Vec::new());

    let published = run(&options(address, "--rate 1000 --count 10 --size 200")).expect("ran");

    let pushes = pushes.lock().expect("nobody panicked");
    let due: Vec<_> = pushes.iter().filter_map(|push| push["messages"][0]["t"].as_u64()).collect();
    let expected: Vec<_> = (0..10).map(|n| published.started_ns + n * 1_000_000).collect();
    assert_eq!(due, expected);
    assert_eq!(pushes[0]["messages"][0].to_string().len(), 200);
}

#[test]
fn refusals_are_counted_by_status_and_excuse_their_messages() {
    let (address, _pushes, _runtime) = api(vec![202, 503, 202, 429, 503]);

    let published = run(&options(address, "--rate 1000 --count 20 --batch 2")).expect("ran");

    assert_eq!(published.accepted, 7);
    assert_eq!(published.refused.into_iter().collect::<Vec<_>>(), [(429, 1), (503, 2)]);
    assert_eq!((published.expected[0].count, published.expected[0].refused), (20, 6));
}

#[test]
fn an_api_that_is_not_there_is_an_error() {
    let free = tidegate_bench::sockets::free_address().expect("an address");

    assert!(run(&options(free, "--count 1")).is_err());
}

/// An HTTP server that answers every request from `answers`, then 202 with an empty receipt.
fn api(answers: Vec<u16>) -> (SocketAddr, Arc<Mutex<Vec<serde_json::Value>>>, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let pushes: Arc<Mutex<Vec<serde_json::Value>>> = Arc::default();
    let (answers, taken) = (Arc::new(Mutex::new(answers.into_iter())), Arc::clone(&pushes));
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answers, taken) = (Arc::clone(&answers), Arc::clone(&taken));
            let serve = service_fn(move |request: Request<Incoming>| {
                let (answers, taken) = (Arc::clone(&answers), Arc::clone(&taken));
                async move {
                    let body = request.into_body().collect().await?.to_bytes();
                    taken
                        .lock()
                        .expect("nobody panics")
                        .push(serde_json::from_slice(&body).expect("publishers send JSON"));
                    let status = answers.lock().expect("nobody panics").next().unwrap_or(202);
                    let body = Full::new(Bytes::from_static(b"{\"matched\":0}"));
                    Ok::<_, hyper::Error>(Response::builder().status(status).body(body).expect("a response"))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
        }
    });
    (address, pushes, runtime)
}

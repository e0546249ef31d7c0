//! What a TLS client costs the gateway beside a plain one: resident memory at rest, and processor time of a handshake and of a
//! delivery, each as the slope between two sizes, so that what a process costs anyway falls out. A measurement, not a check:
//! `cargo test --release --test tls_cost -- --ignored --nocapture`, on a machine with nothing else to do.

mod support;

use std::net::SocketAddr;

use serde_json::json;
use support::tls::{self, Authority};
use support::{Client, PATIENCE, Server, until};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Clients of the smaller and of the larger measurement. A TLS client takes three files of the server.
const SIZES: [usize; 2] = [500, 3_500];
const PUSHES: u64 = 40;
const MESSAGE_BYTES: usize = 1_000;

/// Of one size.
#[derive(Debug)]
struct Cost {
    handshakes_s: f64,
    rss: f64,
    deliveries_s: f64,
}

#[tokio::test]
#[ignore = "a measurement of half a minute"]
async fn what_a_tls_client_costs() {
    let authority = Authority::new("cost");
    let issued = authority.issue("server", &["localhost"]);
    let files = [("TIDEGATE_GATEWAY__TLS__CERT", &*issued.cert), ("TIDEGATE_GATEWAY__TLS__KEY", &*issued.key)];
    println!("a client more: KiB resident, µs of a handshake, µs of a delivery of {MESSAGE_BYTES} bytes");
    for (name, connector, settings) in [("plain", None, &[][..]), ("TLS", Some(authority.connector()), &files[..])] {
        let [small, large] = [cost(SIZES[0], &connector, settings).await, cost(SIZES[1], &connector, settings).await];

        let more = (SIZES[1] - SIZES[0]) as f64;
        let slope = |of: fn(&Cost) -> f64| (of(&large) - of(&small)) / more;
        let delivery = slope(|c| c.deliveries_s) / PUSHES as f64;
        println!(
            "{name:6} {:8.2} {:8.1} {:8.2}",
            slope(|c| c.rss) / 1024.0,
            slope(|c| c.handshakes_s) * 1e6,
            delivery * 1e6
        );
    }
}

async fn cost(clients: usize, connector: &Option<TlsConnector>, settings: &[(&str, &str)]) -> Cost {
    let server = Server::serve(settings).await;
    let address = server.clients();
    let mut connected = Vec::with_capacity(clients);
    let began = server.cpu().as_secs_f64();
    for _ in 0..clients / 50 {
        let mut group = JoinSet::new();
        for _ in 0..50 {
            group.spawn(connect(address, connector.clone()));
        }
        connected.extend(group.join_all().await);
    }
    let handshakes_s = server.cpu().as_secs_f64() - began;
    let rss = server.rss() as f64;

    let mut api = server.connect_api().await;
    let message = "x".repeat(MESSAGE_BYTES);
    let began = server.cpu().as_secs_f64();
    for _ in 0..PUSHES {
        api.push(json!({"to": {"all": true}, "message": message, "lane": "urgent"})).await;
    }
    let due = PUSHES * clients as u64;
    until("every delivery", 6 * PATIENCE, async || {
        (server.metrics().await.sum("tidegate_gateway_messages_written_total") == due).then_some(())
    })
    .await;
    for client in &mut connected {
        client.items(PUSHES as usize).await;
    }
    Cost { handshakes_s, rss, deliveries_s: server.cpu().as_secs_f64() - began }
}

async fn connect(address: SocketAddr, connector: Option<TlsConnector>) -> Client {
    match connector {
        None => Client::connect(address).await,
        Some(connector) => tls::client(&connector, address, "/ws").await,
    }
}

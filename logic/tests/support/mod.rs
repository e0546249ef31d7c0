//! What the tests of a logic node stand on: a gateway that speaks the backplane over real HTTP/2, an HTTP client, and a
//! node with short deadlines. No mock: everything goes over sockets.

// Each test binary uses its part.
#![allow(dead_code)]

pub mod client;
pub mod gateway;

use tidegate_logic::{Extras, GatewayLink, Logic, LogicConfig};

#[allow(unused_imports)]
pub use client::{Reply, call, delete, get, post};
pub use gateway::FakeGateway;

/// A configuration on a free port with deadlines a test can wait for.
pub fn config() -> LogicConfig {
    let mut config = LogicConfig { api: "127.0.0.1:0".parse().expect("address"), ..LogicConfig::default() };
    config.backplane.hold_ms = 200;
    config
}

/// A node linked to these gateways, which have sent their snapshots.
pub async fn node(gateways: &[&FakeGateway]) -> Logic {
    node_with(config(), gateways).await
}

/// As [`node`], with a configuration.
pub async fn node_with(config: LogicConfig, gateways: &[&FakeGateway]) -> Logic {
    let links = gateways.iter().map(|g| GatewayLink::Dial(g.url())).collect();
    let logic = Logic::start(config, links, Extras::default()).await.expect("start");
    until(|| async { get(&logic, "/readyz").await.json["missing"].as_array().is_some_and(Vec::is_empty) }).await;
    logic
}

/// Polls until something is so; five seconds are forever.
pub async fn until<F: Future<Output = bool>>(is_so: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "this should have come about within 5 s");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

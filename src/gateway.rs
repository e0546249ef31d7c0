//! `tidegate gateway`: the tier that holds the connections, as a process of its own.
//! Starts what the gateway crate offers, says where it listens, and leaves by draining.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::{Gateway, GatewayConfig, StartError};

use crate::config::exposure::{Role, notice};
use crate::failure::{self, Failure};
use crate::process::{self, Signals};
use crate::reload::Reloads;

/// Runs until a signal.
pub fn run(mut reloads: Reloads) -> Result<ExitCode, Failure> {
    process::raise_open_files();
    process::run(async {
        let mut signals = Signals::listen()?;
        let config = reloads.config();
        let gateway = start(&config.gateway).await?;
        let backplane = gateway.serve_backplane().await.map_err(failure)?;
        let ops = gateway.serve_ops(reloads.metrics()).await.map_err(failure)?;
        let status = format!(
            "clients {}, backplane {backplane} (HTTP/2{}), ops http://{ops}; {}",
            client_url(&gateway),
            if config.gateway.backplane_tls.is_on() { ", mutual TLS" } else { "" },
            notice(config, Role::Gateway)
        );
        tracing::info!("{status}");
        // For systemd ready means that a logic node can link, which units may order after this one; for clients and load
        // balancers it means that one has (`/readyz`).
        process::ready(&format!("waits for a logic node; {status}"));
        let gateway = Arc::new(gateway);
        tokio::spawn({
            let gateway = Arc::clone(&gateway);
            async move {
                gateway.told().await;
                tracing::info!("ready: a logic node is linked");
                process::status(&status);
            }
        });
        let signal = tokio::select! {
            signal = signals.end(|| reloads.again(&|new| reload(&gateway, &new.gateway))) => signal,
            () = gateway.delisted() => "off the list of every logic node",
        };
        signals.then(signal, longest_drain(&reloads.config().gateway), gateway.drain()).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Where clients connect.
pub fn client_url(gateway: &Gateway) -> String {
    let scheme = if gateway.is_tls() { "wss" } else { "ws" };
    format!("{scheme}://{}/ws", gateway.listen_addr())
}

/// Starts a gateway.
pub async fn start(config: &GatewayConfig) -> Result<Gateway, Failure> {
    Gateway::start(config.clone()).await.map_err(failure)
}

/// Puts a configuration in force; the error says what is wrong with it.
fn reload(gateway: &Gateway, config: &GatewayConfig) -> Result<(), Vec<String>> {
    // All of it or nothing: certificates, which cannot fail once they are read, come last.
    let certificates = gateway.renewal()?;
    gateway.reload(config).map_err(|error| vec![error.to_string()])?;
    certificates.apply();
    Ok(())
}

/// Whose fault it is, in a sentence that names the key.
fn failure(error: StartError) -> Failure {
    match error {
        StartError::Config(problem) => Failure::Usage(vec![problem]),
        StartError::Bind { address, what, error } => failure::cannot_listen(what, address, &error).into(),
        StartError::System(error) => anyhow::Error::new(error).context("the gateway cannot start").into(),
    }
}

/// What draining may take: the delay, the longest spread, and a margin for the last closes.
pub fn longest_drain(config: &GatewayConfig) -> Duration {
    let spread_ms = config.drain.spread_ms.max(config.drain.spread_max_ms);
    Duration::from_millis(u64::from(config.drain.delay_ms) + u64::from(spread_ms)) + Duration::from_secs(10)
}

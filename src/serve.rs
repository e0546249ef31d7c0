//! `tidegate serve`: both tiers in one process, speaking the backplane over an in-memory pipe.
//! The same code as in two processes, less the TCP between them; nothing here decides anything about pushes.

use std::process::ExitCode;
use std::sync::Arc;

use tidegate_gateway::{AuthMode, DrainConfig, Gateway, GatewayConfig};
use tidegate_logic::{Extras, GatewayLink};
use tokio::sync::oneshot;

use crate::cli::Serve;
use crate::config::Config;
use crate::config::exposure::{Role, notice};
use crate::demo::{self, DemoOptions};
use crate::failure::Failure;
use crate::process::{self, Signals};
use crate::reload::Reloads;
use crate::{gateway, logic};

/// Runs until a signal.
pub fn run(mut reloads: Reloads, args: Serve) -> Result<ExitCode, Failure> {
    process::raise_open_files();
    process::run(async {
        let mut signals = Signals::listen()?;
        let config = reloads.config();
        if args.demo && config.logic.tls.is_on() {
            return Err(Failure::Usage(vec![
                "--demo calls the push API over plain HTTP: leave logic.tls out, or run the demo against another node"
                    .into(),
            ]));
        }
        let gateway = gateway::start(&gateway_of(config)).await?;
        let link = pipe(&gateway);
        let gateway = Arc::new(gateway);
        let logic = logic::start(&config.logic, vec![link], extras(&gateway, &reloads, args.demo)).await?;
        let api = logic.api_addr();
        // Nobody is let in before; the link is in this process, so it takes some milliseconds.
        let early = tokio::select! {
            () = gateway.told() => None,
            signal = signals.end(|| ()) => Some(signal),
        };
        let protection = notice(config, Role::Serve);
        let (clients, calls) = (gateway::client_url(&gateway), logic::api_url(&logic));
        let status = format!("clients {clients}, push API {calls} (a page at /); {protection}");
        tracing::info!("{status}");
        process::ready(&status);

        let (demo_stop, demo_stopped) = oneshot::channel::<()>();
        if args.demo {
            let options = DemoOptions { speed: args.speed, key: args.demo_key };
            tokio::spawn(demo::run(api, options, async { drop(demo_stopped.await) }));
        }
        let both = |new: &Config| {
            // Both tiers or none: what may fail comes before what cannot.
            let certificates = (gateway.renewal()?, logic.renewal()?);
            logic.check(&new.logic)?;
            gateway.reload(&new.gateway).map_err(|error| vec![error.to_string()])?;
            logic.reload(&new.logic)?;
            certificates.0.apply();
            certificates.1.apply();
            Ok(())
        };
        let signal = match early {
            Some(signal) => signal,
            None => signals.end(|| reloads.again(&both)).await,
        };
        let config = reloads.config();
        let takes_at_most = gateway::longest_drain(&config.gateway) + logic::longest_shutdown(&config.logic);
        let leave = async {
            drop(demo_stop);
            gateway.drain().await;
            logic.shutdown().await;
        };
        signals.then(signal, takes_at_most, leave).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// The gateway's part. A hook of the logic tier beside it is known before the first client comes, so nobody slips in before it.
/// On loopback and without a word on it in the configuration a drain closes everyone at once: closes are spread for the sake of
/// other gateways, and there are none.
fn gateway_of(config: &Config) -> GatewayConfig {
    let mut gateway = config.gateway.clone();
    gateway.hook.required |= config.logic.hook.is_on();
    if gateway.listen.ip().is_loopback() && gateway.drain == DrainConfig::default() {
        gateway.drain = DrainConfig { spread_ms: 0, spread_max_ms: 0, ..gateway.drain };
    }
    gateway
}

/// The backplane without a socket: each dial gives the other end to the gateway.
fn pipe(gateway: &Gateway) -> GatewayLink {
    let dial = gateway.pipe();
    GatewayLink::Pipe(Box::new(move || {
        let stream = dial();
        Box::pin(async move { Ok(Box::new(stream) as _) })
    }))
}

/// What the API shows of the gateway beside it and of the process: metrics, and to the page the gateway's address.
fn extras(gateway: &Arc<Gateway>, reloads: &Reloads, is_demo: bool) -> Extras {
    let gateway_url = Some(gateway::client_url(gateway));
    let gateway_wants_tokens = Some(reloads.config().gateway.auth.mode == AuthMode::Jwt);
    let (gateway, process) = (Arc::clone(gateway), reloads.metrics());
    let metrics = move |out: &mut String| {
        gateway.metrics_text(out);
        process(out);
    };
    Extras { metrics: Some(Arc::new(metrics)), gateway_url, gateway_wants_tokens, is_demo }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_in_the_same_process_is_asked_about_the_first_client_too() {
        let mut config = Config::default();
        assert!(!gateway_of(&config).hook.required, "without a hook nobody could come in");

        config.logic.hook.url = "https://hook.example/".into();
        assert!(gateway_of(&config).hook.required);
        config.logic.hook.url.clear();
        config.gateway.hook.required = true;
        assert!(gateway_of(&config).hook.required, "another logic node may have one");
    }

    #[test]
    fn closes_are_spread_unless_nobody_else_could_be_hurt() {
        let spread = |listen: &str, spread_ms: Option<u32>| {
            let mut config = Config::default();
            config.gateway.listen = listen.parse().expect("an address");
            config.gateway.drain.spread_ms = spread_ms.unwrap_or(config.gateway.drain.spread_ms);
            gateway_of(&config).drain.spread_ms
        };

        assert_eq!(spread("127.0.0.1:8000", None), 0);
        assert_eq!(spread("127.0.0.1:8000", Some(700)), 700);
        assert_eq!(spread("0.0.0.0:8000", None), DrainConfig::default().spread_ms);
    }
}

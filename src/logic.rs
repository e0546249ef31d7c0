//! `tidegate logic`: the tier that answers the push API, as a process of its own.
//! Dials the gateways it was told of.

use std::process::ExitCode;
use std::time::Duration;

use tidegate_logic::{Extras, GatewayLink, Logic, LogicConfig, StartError};

use crate::config::Config;
use crate::config::exposure::{Role, notice};
use crate::failure::{self, Failure};
use crate::process::{self, Signals};
use crate::reload::Reloads;
use crate::watched::Watched;

/// Runs until a signal.
pub fn run(mut reloads: Reloads) -> Result<ExitCode, Failure> {
    process::raise_open_files();
    process::run(async {
        let mut signals = Signals::listen()?;
        let config = reloads.config();
        let links = Logic::links_of(&config.logic);
        let extras = Extras { metrics: Some(reloads.metrics()), ..Extras::default() };
        let logic = start(&config.logic, links, extras).await?;
        let status = format!(
            "push API {}, gateways: {}; {}",
            api_url(&logic),
            config.logic.gateways.len(),
            notice(config, Role::Logic)
        );
        tracing::info!("{status}");
        process::ready(&status);
        let reload = |new: &Config| {
            // All of it or nothing: certificates, which cannot fail once they are read, come last.
            let certificates = logic.renewal()?;
            logic.reload(&new.logic)?;
            certificates.apply();
            Ok(())
        };
        let mut file = Watched::new(&reloads.config().logic.gateways_file);
        let signal = loop {
            tokio::select! {
                signal = signals.hup_or_end() => match signal {
                    Some(signal) => break signal,
                    None => reloads.again(&reload),
                },
                () = file.changed() => {
                    if !reloads.gateways_again(&|urls| logic.link(urls)) {
                        file.refuse();
                    }
                }
            }
            file.follow(&reloads.config().logic.gateways_file);
        };
        signals.then(signal, longest_shutdown(&reloads.config().logic), logic.shutdown()).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Where services call.
pub fn api_url(logic: &Logic) -> String {
    let scheme = if logic.is_tls() { "https" } else { "http" };
    format!("{scheme}://{}", logic.api_addr())
}

/// Starts a logic node.
pub async fn start(config: &LogicConfig, links: Vec<GatewayLink>, extras: Extras) -> Result<Logic, Failure> {
    Logic::start(config.clone(), links, extras).await.map_err(failure)
}

/// Whose fault it is, in a sentence that names the key.
fn failure(error: StartError) -> Failure {
    match error {
        StartError::Config(problems) => Failure::Usage(problems),
        StartError::TooManyGateways(_) => Failure::Usage(vec![format!("logic.gateways: {error}")]),
        StartError::Upstream(problem) => anyhow::anyhow!(problem).into(),
        StartError::Listen { address, error } => failure::cannot_listen("push API", address, &error).into(),
    }
}

/// What a shutdown may take: the requests in flight, and a margin.
pub fn longest_shutdown(config: &LogicConfig) -> Duration {
    Duration::from_millis(u64::from(config.http.shutdown_ms)) + Duration::from_secs(5)
}

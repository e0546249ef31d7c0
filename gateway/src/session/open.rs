//! What clients may do that prove nothing: everything where only this machine reaches the gateway, and what
//! `gateway.open` grants where others do.
//! Invariant: it concerns connections without claims alone.

use std::net::SocketAddr;

use super::grant::{Act, Grant};
use crate::config::{Freedom, GatewayConfig, OpenGrantConfig};

/// The rights of connections without claims.
#[derive(Debug, Default)]
pub struct Open {
    /// None: everything.
    grant: Option<Grant>,
    takes_no_names: bool,
}

impl Open {
    /// As configured.
    #[must_use]
    pub fn of(config: &GatewayConfig) -> Self {
        let is_free = match config.open.free {
            Freedom::Loopback => !is_exposed(config.listen),
            Freedom::Always => true,
            Freedom::Never => false,
        };
        if is_free {
            return Self::default();
        }
        // A hook that has to be asked says yes to names too.
        let takes_no_names = !(config.open.names || config.hook.required);
        Self { grant: Some(grant_of(&config.open.grant)), takes_no_names }
    }

    /// Whether a client's word is enough for its name.
    #[must_use]
    pub fn takes_names(&self) -> bool {
        !self.takes_no_names
    }

    /// The whole grant, for those who get claims without a token.
    #[must_use]
    pub fn grant(&self) -> Grant {
        self.grant.clone().unwrap_or_else(Grant::everything)
    }

    /// Whether that may be done with what has this name.
    #[must_use]
    pub fn allows(&self, act: Act, user: Option<&str>, name: &str) -> bool {
        self.grant.as_ref().is_none_or(|grant| grant.allows(act, user, name))
    }
}

/// What is configured; too much of it, which the configuration's `problems` name, is left out.
fn grant_of(config: &OpenGrantConfig) -> Grant {
    let lists = [
        (Act::Join, &config.rooms),
        (Act::Speak, &config.speak),
        (Act::See, &config.presence),
        (Act::List, &config.members),
        (Act::Whisper, &config.users),
        (Act::Route, &config.routes),
    ];
    let mut grant = Grant::default();
    for (act, patterns) in lists {
        let _ = grant.add(act, patterns);
    }
    grant
}

/// Whether a listener at this address can be reached from other machines.
#[must_use]
pub fn is_exposed(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str, change: impl FnOnce(&mut GatewayConfig)) -> Open {
        let mut config = GatewayConfig { listen: address.parse().expect("a literal"), ..GatewayConfig::default() };
        change(&mut config);
        Open::of(&config)
    }

    #[test]
    fn on_loopback_everything_goes_and_elsewhere_rooms_are_joined_and_nothing_is_said() {
        let free = at("127.0.0.1:8000", |_| {});
        let exposed = at("0.0.0.0:8000", |_| {});

        for act in Act::ALL {
            assert!(free.allows(act, Some("admin"), "lobby"));
            assert_eq!(exposed.allows(act, None, "lobby"), matches!(act, Act::Join | Act::See), "{act:?}");
        }
        assert!(free.takes_names() && !exposed.takes_names());
    }

    #[test]
    fn the_configuration_says_otherwise_where_that_is_meant() {
        let free = at("0.0.0.0:8000", |c| c.open.free = Freedom::Always);
        let proxied = at("[::ffff:127.0.0.1]:8000", |c| c.open.free = Freedom::Never);
        let named = at("[::]:8000", |c| {
            c.open.names = true;
            c.open.grant.speak = vec!["chat:*".into(), "dm:{sub}".into()];
        });
        let asked = at("[::]:8000", |c| c.hook.required = true);

        assert!(free.takes_names() && free.allows(Act::Whisper, None, "ann"));
        assert!(!proxied.takes_names() && !proxied.allows(Act::Speak, None, "lobby"));
        assert!(named.takes_names() && named.allows(Act::Speak, Some("ann"), "dm:ann"));
        assert!(!named.allows(Act::Speak, None, "dm:ann") && !named.allows(Act::Speak, None, "lobby"));
        assert!(asked.takes_names() && !asked.allows(Act::Speak, Some("ann"), "lobby"));
    }
}

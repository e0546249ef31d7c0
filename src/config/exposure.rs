//! What may be reached from other machines, and what has to be set first.
//! The rule: an address that is not loopback needs what protects it; without, the process does not start (exit code
//! 2) and the sentence says what to set. On loopback nothing is needed, so that the first start has no hurdle.
//! Does not bind and does not check keys: it reads the configuration alone.

use std::net::SocketAddr;

use tidegate_gateway::{AuthMode, Freedom, OpenConfig, is_exposed};

use super::Config;

/// Which listeners a command opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Both tiers; the backplane is in memory and health is served by the API.
    Serve,
    Gateway,
    Logic,
    /// `config check`: whatever any command would refuse.
    Any,
}

impl Role {
    pub const fn has_clients(self) -> bool {
        !matches!(self, Self::Logic)
    }

    pub const fn has_api(self) -> bool {
        !matches!(self, Self::Gateway)
    }

    const fn has_backplane(self) -> bool {
        matches!(self, Self::Gateway | Self::Any)
    }
}

/// Why this configuration must not start; empty when all is well.
pub fn refusals(config: &Config, role: Role) -> Vec<String> {
    let gateway = &config.gateway;
    let mut out = Vec::new();
    let are_clients_known = gateway.auth.mode != AuthMode::None;
    if role.has_clients() && is_open(gateway.listen) && !are_clients_known && !config.auth.allow_open {
        out.push(format!(
            "gateway.listen = {} can be reached from other machines, where {}: set gateway.auth.mode = \"jwt\" and keys, or \
             auth.allow_open = true if that is meant, or listen on 127.0.0.1 behind a proxy that knows its users",
            gateway.listen,
            risk(&gateway.open)
        ));
    }
    if role.has_api() && is_open(config.logic.api) && config.logic.keys.is_empty() {
        out.push(format!(
            "logic.api = {} can be reached from other machines and would take pushes from anyone: set logic.keys, or \
             keep the API on 127.0.0.1",
            config.logic.api
        ));
    }
    if role.has_backplane() && is_open(gateway.backplane) && !is_backplane_proven(config) {
        out.push(format!(
            "gateway.backplane = {} can be reached from other machines and would take pushes from anyone: set \
             gateway.backplane_tls (cert, key and ca, and the same for logic), or gateway.backplane_secret (TIDEGATE_GATEWAY__BACKPLANE_SECRET_FILE names a file that holds it) and the \
             same logic.backplane_secret, or keep the backplane on 127.0.0.1",
            gateway.backplane
        ));
    }
    if role.has_backplane() && is_open(gateway.ops) && !config.auth.allow_open_ops {
        out.push(format!(
            "gateway.ops = {} shows health and metrics to other machines and has no keys: scrape it on 127.0.0.1 with \
             an agent, or set auth.allow_open_ops = true if the network around it is yours",
            gateway.ops
        ));
    }
    out
}

/// What strangers may do to each other where nobody proves who they are.
fn risk(open: &OpenConfig) -> String {
    if open.free == Freedom::Always {
        return "anyone may take any name, admin's too, read every room and SEND to everyone in your service's place \
                (gateway.open.free = \"always\")"
            .into();
    }
    let grant = &open.grant;
    let mut may = Vec::new();
    if open.names {
        may.push("take any name, admin's too, and get what is pushed to that user");
    }
    if !grant.rooms.is_empty() {
        may.push("join and read the rooms of gateway.open.grant.rooms, which by default are all");
    }
    if !(grant.speak.is_empty() && grant.users.is_empty() && grant.routes.is_empty()) {
        may.push("SEND where gateway.open.grant lets them");
    }
    if may.is_empty() { "anyone may connect without a token".into() } else { format!("anyone may {}", may.join(", ")) }
}

/// How protected this is, for the line at start: who can reach it, and what each who comes has to show.
pub fn notice(config: &Config, role: Role) -> String {
    let open = (role.has_clients() && is_open(config.gateway.listen))
        || (role.has_api() && is_open(config.logic.api))
        || (role.has_backplane() && (is_open(config.gateway.backplane) || is_open(config.gateway.ops)));
    let mut words = vec![if open { "reachable from other machines" } else { "loopback only" }];
    if role.has_clients() {
        let are_known = config.gateway.auth.mode != AuthMode::None;
        words.push(if are_known { "clients need tokens" } else { "clients need no tokens" });
    }
    if role.has_api() {
        words.push(if config.logic.keys.is_empty() { "the API needs no keys" } else { "the API needs keys" });
    }
    if role.has_backplane() {
        words.push(if is_backplane_proven(config) { "logic has to prove itself" } else { "logic need prove nothing" });
    }
    words.join(", ")
}

/// Whether logic nodes must prove that they belong to the fleet.
fn is_backplane_proven(config: &Config) -> bool {
    !config.gateway.backplane_secret.is_empty() || config.gateway.backplane_tls.is_on()
}

fn is_open(address: SocketAddr) -> bool {
    is_exposed(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(port: u16) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], port))
    }

    #[test]
    fn defaults_are_refused_nowhere() {
        for role in [Role::Serve, Role::Gateway, Role::Logic, Role::Any] {
            assert_eq!(refusals(&Config::default(), role), Vec::<String>::new());
        }

        let said = notice(&Config::default(), Role::Serve);
        assert_eq!(said, "loopback only, clients need no tokens, the API needs no keys");
    }

    #[test]
    fn each_open_address_is_refused_until_what_protects_it_is_set() {
        let mut config = Config::default();
        config.gateway.listen = open(8000);
        config.logic.api = open(8001);
        config.gateway.backplane = open(8002);
        config.gateway.ops = open(8003);

        let refused = refusals(&config, Role::Any);
        config.auth.allow_open = true;
        config.auth.allow_open_ops = true;
        config.gateway.backplane_secret = "s".into();
        let left = refusals(&config, Role::Any);

        assert_eq!(refused.len(), 4);
        for (problem, remedy) in
            refused.iter().zip(["auth.allow_open = true", "logic.keys", "backplane_secret", "allow_open_ops"])
        {
            assert!(problem.contains(remedy), "{problem} does not name {remedy}");
        }
        assert_eq!(left.len(), 1, "the API still has no keys: {left:?}");
    }

    #[test]
    fn the_refusal_of_an_open_listener_says_what_strangers_could_do() {
        let mut config = Config::default();
        config.gateway.listen = open(8000);
        let said = |config: &Config| refusals(config, Role::Gateway).concat();

        let by_default = said(&config);
        config.gateway.open.names = true;
        config.gateway.open.grant.speak = vec!["chat:*".into()];
        let more = said(&config);
        config.gateway.open.free = Freedom::Always;
        let all = said(&config);

        assert!(by_default.contains("join and read the rooms") && !by_default.contains("SEND"), "{by_default}");
        assert!(!by_default.contains("any name"), "{by_default}");
        assert!(more.contains("take any name, admin's too") && more.contains("SEND where"), "{more}");
        assert!(all.contains("any name") && all.contains("SEND to everyone"), "{all}");
    }

    #[test]
    fn clients_with_tokens_may_come_from_other_machines() {
        let mut config = Config::default();
        config.gateway.listen = open(8000);
        config.gateway.auth.mode = AuthMode::Jwt;

        assert_eq!(refusals(&config, Role::Serve), Vec::<String>::new());
        let said = notice(&config, Role::Gateway);
        assert_eq!(said, "reachable from other machines, clients need tokens, logic need prove nothing");
        assert!(notice(&config, Role::Serve).contains("clients need tokens, the API needs no keys"));
    }

    #[test]
    fn certificates_protect_the_backplane_as_a_secret_does() {
        let mut config = Config::default();
        config.gateway.backplane = open(8002);
        assert!(refusals(&config, Role::Gateway)[0].contains("gateway.backplane_tls"));

        config.gateway.backplane_tls.cert = "gateway.crt".into();

        assert_eq!(refusals(&config, Role::Gateway), Vec::<String>::new());
        let said = notice(&config, Role::Gateway);
        assert_eq!(said, "reachable from other machines, clients need no tokens, logic has to prove itself");
    }

    #[test]
    fn a_command_is_refused_only_for_listeners_it_opens() {
        let mut config = Config::default();
        config.gateway.backplane = open(8002);

        assert!(refusals(&config, Role::Serve).is_empty());
        assert!(refusals(&config, Role::Logic).is_empty());
        assert_eq!(refusals(&config, Role::Gateway).len(), 1);
    }

    #[test]
    fn a_mapped_loopback_address_is_loopback() {
        assert!(!is_open("[::ffff:127.0.0.1]:1".parse().expect("a literal")));
        assert!(!is_open("[::1]:1".parse().expect("a literal")));
        assert!(is_open("[::]:1".parse().expect("a literal")));
    }
}

//! `[gateway.proxy]`: whose word about a client's address is taken.

use serde::{Deserialize, Serialize};
use tidegate_protocol::proxy::Networks;

/// `[gateway.proxy]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// Networks of the proxies in front: `10.0.0.0/8`, `127.0.0.1`.
    pub trusted: Vec<String>,
    /// Whether those proxies begin each connection with a PROXY protocol header.
    pub protocol: ProxyProtocol,
    /// Whether their `X-Forwarded-For` names the client.
    pub forwarded: bool,
}

/// The header before the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// None is expected, and none is taken.
    #[default]
    Off,
    /// Version 1 or 2, from every trusted peer and from no other.
    V1V2,
}

impl ProxyConfig {
    pub(super) fn problems(&self, out: &mut Vec<String>) {
        if let Err(error) = Networks::parse(&self.trusted) {
            out.push(format!("gateway.proxy.trusted: {error}"));
        }
        if self.trusted.is_empty() && (self.forwarded || self.protocol == ProxyProtocol::V1V2) {
            let key = if self.forwarded { "forwarded" } else { "protocol" };
            out.push(format!(
                "gateway.proxy.{key} is set, but gateway.proxy.trusted names no proxy: list their networks, such as \
                 \"10.0.0.0/8\""
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contradiction_is_named() {
        let problems = |trusted: &[&str], protocol, forwarded| {
            let trusted = trusted.iter().map(|&t| t.to_owned()).collect();
            let mut out = Vec::new();
            ProxyConfig { trusted, protocol, forwarded }.problems(&mut out);
            out.join("; ")
        };

        assert_eq!(problems(&[], ProxyProtocol::Off, false), "");
        assert_eq!(problems(&["127.0.0.1", "10.0.0.0/8"], ProxyProtocol::V1V2, true), "");
        assert!(problems(&[], ProxyProtocol::V1V2, false).contains("gateway.proxy.protocol is set"));
        assert!(problems(&[], ProxyProtocol::Off, true).contains("gateway.proxy.forwarded is set"));
        assert!(
            problems(&["proxy.local"], ProxyProtocol::Off, true).contains("gateway.proxy.trusted: \"proxy.local\"")
        );
        assert!(problems(&["0.0.0.0/0"], ProxyProtocol::Off, true).contains("everyone"));
    }
}

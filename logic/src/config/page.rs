//! `[logic.page]`: what the page at `/` is told.

use serde::{Deserialize, Serialize};

/// `[logic.page]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageConfig {
    /// Where browsers reach the gateways: `wss://push.example.com/ws`; empty: the page works it out from its own address.
    pub ws_url: String,
}

impl PageConfig {
    pub(super) fn problems(&self, out: &mut Vec<String>) {
        let url = &self.ws_url;
        if url.is_empty() {
            return;
        }
        let uri = url.parse::<http::Uri>().ok();
        let is_good = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("ws" | "wss")) && uri.host().is_some_and(|host| !host.is_empty())
        });
        if !is_good || url.contains('#') {
            out.push(format!("logic.page.ws_url: write an address like wss://push.example.com/ws, not {url:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_gateways_is_a_websockets_or_empty() {
        let problems = |url: &str| {
            let mut out = Vec::new();
            PageConfig { ws_url: url.into() }.problems(&mut out);
            out.len()
        };

        assert_eq!(["", "ws://127.0.0.1:8000/ws", "wss://push.example.com/ws"].map(problems), [0, 0, 0]);
        assert_eq!(["https://a/ws", "push.example.com", "/ws", "wss://", "wss://a/ws#x"].map(problems), [1; 5]);
    }
}

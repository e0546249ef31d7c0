//! What only the binary knows, and a node shows.

use crate::metrics::MetricsText;

/// What only the binary knows.
#[derive(Clone, Default)]
pub struct Extras {
    /// In `serve`: the gateway's metrics.
    pub metrics: Option<MetricsText>,
    /// In `serve`: where the gateway listens (`ws://…/ws`), perhaps on every address.
    pub gateway_url: Option<String>,
    /// In `serve`: whether that gateway wants tokens.
    pub gateway_wants_tokens: Option<bool>,
    /// Whether `serve --demo` fills rooms that the page can offer.
    pub is_demo: bool,
}

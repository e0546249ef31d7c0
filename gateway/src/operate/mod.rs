//! What an operator sees of a running gateway: its metrics, and the listener that serves them with its health.

pub(crate) mod metrics;
pub(crate) mod ops;

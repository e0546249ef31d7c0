//! Whether new clients should be sent to a gateway.

use std::sync::Arc;

use crate::accept::front::Front;

/// What readiness is judged by.
#[derive(Debug)]
pub(crate) struct Health {
    pub front: Arc<Front>,
    /// How long what clients say waits for a logic node.
    pub wait_ms: u32,
}

impl Health {
    /// Why new clients should not be sent here.
    pub fn missing(&self) -> Option<String> {
        let Front { capacity, lifecycle, uplink, .. } = &*self.front;
        if lifecycle.is_draining() {
            return Some("draining".into());
        }
        if capacity.population.connections() >= capacity.population.connections_max {
            return Some("gateway.connections_max reached".into());
        }
        if self.front.awaits_logic() {
            return Some(
                "no logic node has said yet what it wants to hear; logic nodes dial this gateway's backplane".into(),
            );
        }
        // Logic nodes may be away for a moment. What clients say waits for them so long, and so does this.
        let alone = uplink.wants.alone_for()?;
        let is_long = alone.as_millis() >= u128::from(self.wait_ms);
        is_long.then(|| format!("no logic node is linked for {} s: pushes do not reach clients here", alone.as_secs()))
    }
}

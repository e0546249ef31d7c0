//! What is counted of presence over all gateways.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics.
#[derive(Default)]
pub struct PresenceMetrics {
    pub rooms: Gauge,
    pub frames: Counter,
    pub skipped: Counter,
}

impl PresenceMetrics {
    /// Names them.
    pub fn register(&self, r: &mut Registry) {
        r.register(
            "tidegate_logic_presence_rooms",
            "Rooms whose members wait to be told (logic.presence.rooms_max)",
            self.rooms.clone(),
        );
        r.register("tidegate_logic_presence_frames", "PRESENCE frames, one a room", self.frames.clone());
        r.register(
            "tidegate_logic_presence_skipped",
            "Tallies of rooms beyond presence.rooms_max",
            self.skipped.clone(),
        );
    }
}

//! What became of a push, as the publisher sees it: the gateways' receipts added up, under one id.
//! Knows nothing of HTTP. Invariant: a gateway is either counted in `sent` or named in `failed`.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_protocol::records;
use utoipa::ToSchema;

/// Sum of the gateways' receipts; what the API answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Receipt {
    /// ULID: sorts by time.
    pub id: String,
    /// How far it got.
    pub gateways: Gateways,
    /// Connections it was for.
    pub matched: u64,
    /// Connections it was queued for.
    pub queued: u64,
    /// Connections it was refused for, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// With `wait: "written"`: what became of it in time.
    #[serde(flatten)]
    #[schema(ignore)]
    pub written: Option<Written>,
}

/// Which gateways took a push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Reach)]
pub struct Gateways {
    /// How many took it.
    pub sent: usize,
    /// Those that did not, or did not say so in time.
    pub failed: Vec<Failed>,
}

/// A gateway that did not take a push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Failed {
    /// Its backplane address.
    pub gateway: String,
    /// Why, as one word.
    pub reason: &'static str,
}

/// What became of a push within the publisher's `timeout_ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Written {
    /// Connections whose share the kernel took whole.
    pub written: u64,
    /// Connections whose share still waits.
    pub pending: u64,
    /// Whether the time was over before every share had its fate.
    pub timed_out: bool,
}

impl Receipt {
    /// A receipt of nothing yet.
    #[must_use]
    pub fn new(id: String) -> Self {
        Self { id, gateways: Gateways::default(), matched: 0, queued: 0, dropped: BTreeMap::new(), written: None }
    }

    /// Memory it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let failed = self.gateways.failed.iter().map(|failed| size_of::<Failed>() + failed.gateway.len());
        // A node of the map has room for eleven.
        let dropped = self.dropped.keys().map(|reason| 11 * size_of::<(String, u64)>() + reason.len());
        size_of::<Self>() + self.id.len() + failed.sum::<usize>() + dropped.sum::<usize>()
    }

    /// Counts what one gateway took.
    pub fn add(&mut self, part: &records::Receipt) {
        self.gateways.sent += 1;
        self.matched += part.matched;
        self.queued += part.queued;
        self.add_dropped(&part.dropped);
    }

    /// Names a gateway that did not take it.
    pub fn fail(&mut self, gateway: String, reason: &'static str) {
        self.gateways.failed.push(Failed { gateway, reason });
    }

    /// Counts what was refused or, later, thrown away.
    pub fn add_dropped(&mut self, dropped: &[records::Dropped]) {
        for d in dropped {
            *self.dropped.entry(d.reason.clone()).or_default() += d.count;
        }
    }
}

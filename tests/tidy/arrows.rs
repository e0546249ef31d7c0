//! The floors of each crate: its modules from the lowest up, each with the modules of its crate that it may use. What the modules
//! are says `docs/architecture.md`; how the lists are held says `floors.rs`.

use super::floors::{Crate, Floor};

/// The crates whose modules have floors.
pub const CRATES: &[Crate] = &[
    Crate { folder: "gateway/src", floors: GATEWAY_ARROWS, still_broken: GATEWAY_STILL_BROKEN },
    Crate { folder: "logic/src", floors: LOGIC_ARROWS, still_broken: &[] },
];

const GATEWAY_ARROWS: &[Floor] = &[
    ("clock", &[]),
    ("key", &[]),
    ("poll", &[]),
    ("budget", &[]),
    ("writer", &[]),
    ("counters", &[]),
    ("config", &[]),
    ("session", &["clock", "config"]),
    ("topic", &["clock", "counters", "key", "session"]),
    ("rooms", &["clock", "config", "key", "session", "topic"]),
    ("bucket", &["clock", "counters", "key", "session", "topic", "writer"]),
    ("deliver", &["bucket", "clock", "config", "counters", "key", "topic", "writer"]),
    ("uplink", &["clock", "config", "key"]),
    (
        "connection",
        &[
            "bucket", "budget", "clock", "config", "counters", "key", "poll", "rooms", "session", "topic", "uplink",
            "writer",
        ],
    ),
    ("accept", &["budget", "clock", "config", "connection", "counters", "key", "poll", "session", "uplink"]),
    (
        "backplane",
        &["bucket", "clock", "connection", "counters", "deliver", "key", "rooms", "session", "topic", "uplink"],
    ),
    (
        "operate",
        &["accept", "backplane", "bucket", "clock", "connection", "counters", "deliver", "rooms", "session", "uplink"],
    ),
    (
        "gateway",
        &[
            "accept",
            "backplane",
            "bucket",
            "budget",
            "clock",
            "config",
            "connection",
            "counters",
            "deliver",
            "key",
            "operate",
            "rooms",
            "session",
            "topic",
            "uplink",
            "writer",
        ],
    ),
    (
        "memory",
        &[
            "bucket",
            "clock",
            "config",
            "connection",
            "counters",
            "deliver",
            "key",
            "rooms",
            "session",
            "topic",
            "writer",
        ],
    ),
];

const GATEWAY_STILL_BROKEN: &[(&str, &str)] = &[
    ("session", "gateway"),
    ("connection", "gateway"),
    ("accept", "gateway"),
    ("backplane", "writer"),
    ("backplane", "gateway"),
    ("operate", "gateway"),
];

const LOGIC_ARROWS: &[Floor] = &[
    ("clock", &[]),
    ("metrics", &[]),
    ("problem", &[]),
    ("http_client", &[]),
    ("json", &["problem"]),
    ("config", &["http_client"]),
    ("settings", &["config"]),
    ("fleet", &["clock", "config", "metrics", "problem"]),
    ("push", &["config", "fleet", "json", "metrics", "problem", "settings"]),
    ("keys", &["config", "problem", "push"]),
    ("agents", &["config", "fleet", "metrics", "problem", "push"]),
    ("presence", &["config", "fleet", "metrics"]),
    ("devices", &["fleet"]),
    ("blocklist", &["clock", "fleet"]),
    ("hook", &["config", "fleet", "http_client", "metrics"]),
    ("upstream", &["clock", "config", "fleet", "http_client", "json", "metrics", "problem", "push", "settings"]),
    (
        "inbound",
        &[
            "agents", "config", "devices", "fleet", "hook", "metrics", "presence", "problem", "push", "settings",
            "upstream",
        ],
    ),
    (
        "api",
        &[
            "agents",
            "blocklist",
            "clock",
            "config",
            "fleet",
            "json",
            "keys",
            "metrics",
            "problem",
            "push",
            "settings",
            "upstream",
        ],
    ),
    ("judge", &["config", "hook", "http_client", "upstream"]),
    (
        "logic",
        &[
            "agents",
            "api",
            "blocklist",
            "config",
            "devices",
            "fleet",
            "hook",
            "http_client",
            "inbound",
            "judge",
            "keys",
            "metrics",
            "presence",
            "push",
            "settings",
            "upstream",
        ],
    ),
];

//! The floors of each crate: its modules from the lowest up, each with the modules of its crate that it may use. What the modules
//! are says `docs/architecture.md`; how the lists are held says `floors.rs`.

use super::floors::{Crate, Floor};

/// The crates whose modules have floors.
pub const CRATES: &[Crate] =
    &[Crate { folder: "gateway/src", floors: GATEWAY_ARROWS, still_broken: GATEWAY_STILL_BROKEN }];

const GATEWAY_ARROWS: &[Floor] = &[
    ("clock", &[]),
    ("poll", &[]),
    ("budget", &[]),
    ("writer", &[]),
    ("counters", &[]),
    ("config", &[]),
    ("session", &["clock", "config"]),
    ("topic", &["clock", "counters", "session"]),
    ("rooms", &["clock", "config", "session", "topic"]),
    ("bucket", &["clock", "counters", "session", "topic", "writer"]),
    ("deliver", &["bucket", "clock", "config", "counters", "topic", "writer"]),
    ("uplink", &["clock", "config"]),
    (
        "connection",
        &["bucket", "budget", "clock", "config", "counters", "poll", "rooms", "session", "topic", "uplink", "writer"],
    ),
    ("accept", &["budget", "clock", "config", "connection", "counters", "poll", "session", "uplink"]),
    ("backplane", &["bucket", "clock", "connection", "counters", "deliver", "rooms", "session", "topic", "uplink"]),
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
        &["bucket", "clock", "config", "connection", "counters", "deliver", "rooms", "session", "topic", "writer"],
    ),
];

const GATEWAY_STILL_BROKEN: &[(&str, &str)] = &[
    ("config", "session"),
    ("config", "connection"),
    ("session", "gateway"),
    ("topic", "bucket"),
    ("bucket", "deliver"),
    ("uplink", "bucket"),
    ("uplink", "connection"),
    ("uplink", "gateway"),
    ("connection", "accept"),
    ("connection", "backplane"),
    ("connection", "gateway"),
    ("accept", "operate"),
    ("accept", "gateway"),
    ("backplane", "accept"),
    ("backplane", "writer"),
    ("backplane", "operate"),
    ("backplane", "gateway"),
    ("operate", "gateway"),
];

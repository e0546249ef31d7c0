//! The calls about single connections.

use http::Method;
use serde_json::{Value, json};

use super::{Call, Topic};
use crate::api::closing::{self, Closed};
use crate::api::lists::{self, Connection, Connections};
use crate::api::openapi::{Describe, schemas};
use crate::config::Scope;
use crate::problem::rules;

/// Connections.
pub static TOPIC: Topic = Topic {
    name: "connections",
    about: "One connection is one WebSocket. Lists ask every gateway; those that did not answer are named in `missing`.",
    calls: &[
        Call {
            name: "connections",
            method: Method::GET,
            path: "/v1/connections",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| {
                Box::pin(async move { lists::connections(&asked.api.fleet, asked.limits(), asked.query(), None).await })
            },
            describe: describe_list,
        },
        Call {
            name: "connection",
            method: Method::GET,
            path: "/v1/connections/{id}",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| Box::pin(async move { lists::one_connection(&asked.api.fleet, asked.param("id")).await }),
            describe: describe_one,
        },
        Call {
            name: "close_connection",
            method: Method::DELETE,
            path: "/v1/connections/{id}",
            needs: Some(Scope::Admin),
            is_probe: false,
            run: |asked| {
                Box::pin(
                    async move { closing::close_connection(&asked.api.fleet, asked.param("id"), asked.query()).await },
                )
            },
            describe: describe_close,
        },
    ],
};

/// A connection as lists show it.
pub fn example() -> Value {
    json!({"id": schemas::CONNECTION, "gateway": "local", "user": "alice", "platform": "web", "rooms": ["lobby"],
        "address": "127.0.0.1:39040", "age_ms": 2_063, "since_ms": 1_795_258_206_694_u64, "idle_ms": 12, "pending_bytes": 0})
}

/// A page of connections.
pub fn page() -> Value {
    json!({"connections": [example()], "missing": []})
}

fn describe_list(call: &mut Describe<'_>) {
    call.summary("List connections")
        .text("What comes or goes while the list is walked may or may not be shown; what stays is shown once.")
        .query("user", schemas::name("alice"), "Only those of this user.")
        .query("room", schemas::name("lobby"), "Only those in this room.")
        .query("platform", schemas::platform(), "Only those of this platform.")
        .paged()
        .answers::<Connections>(200, "A page of connections.", page());
}

fn describe_one(call: &mut Describe<'_>) {
    call.summary("One connection")
        .in_path("id", schemas::connection(), "Its id, as HELLO and the lists give it.")
        .answers::<Connection>(200, "The connection as it is now.", example())
        .refuses(&[rules::NO_SUCH_CONNECTION, rules::NO_GATEWAY, rules::QUEUES_FULL, rules::GATEWAY_LOST]);
}

fn describe_close(call: &mut Describe<'_>) {
    call.summary("Close a connection")
        .in_path("id", schemas::connection(), "Its id, as HELLO and the lists give it.")
        .closing()
        .answers::<Closed>(200, "It is closed.", json!({"closed": 1, "gateways": {"sent": 1, "failed": []}}))
        .refuses(&[rules::NO_SUCH_CONNECTION, rules::NO_GATEWAY, rules::QUEUES_FULL, rules::GATEWAY_LOST]);
}

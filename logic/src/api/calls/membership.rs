//! The calls that put users into rooms and out of them, close rooms and block users.

use http::Method;
use serde_json::json;
use tidegate_protocol::limits::BLOCK_REASON_BYTES_MAX;

use super::{Call, Topic};
use crate::api::membership::{self, BlockList, Blocked, Moved, SECONDS_MAX};
use crate::api::openapi::{Describe, JSON, schemas};
use crate::config::Scope;
use crate::problem::rules;

/// Memberships and blocks.
pub static TOPIC: Topic = Topic {
    name: "membership",
    about: "Rooms from the server side. A membership is a connection's: it ends with it, and a user who comes back is put in anew.",
    calls: &[
        Call {
            name: "put_member",
            method: Method::PUT,
            path: "/v1/rooms/{room}/members/{user}",
            needs: Some(Scope::Admin),
            is_probe: false,
            run: |asked| {
                Box::pin(async move {
                    membership::move_user(&asked.api.fleet, asked.name("room")?, asked.name("user")?, true).await
                })
            },
            describe: describe_put,
        },
        Call {
            name: "remove_member",
            method: Method::DELETE,
            path: "/v1/rooms/{room}/members/{user}",
            needs: Some(Scope::Admin),
            is_probe: false,
            run: |asked| {
                Box::pin(async move {
                    membership::move_user(&asked.api.fleet, asked.name("room")?, asked.name("user")?, false).await
                })
            },
            describe: describe_remove,
        },
        Call {
            name: "close_room",
            method: Method::DELETE,
            path: "/v1/rooms/{room}",
            needs: Some(Scope::Admin),
            is_probe: false,
            run: |asked| Box::pin(async move { membership::close_room(&asked.api.fleet, asked.name("room")?).await }),
            describe: describe_close,
        },
        Call {
            name: "block_user",
            method: Method::PUT,
            path: "/v1/users/{user}/block",
            needs: Some(Scope::Admin),
            is_probe: false,
            run: |asked| {
                Box::pin(async move {
                    let (fleet, blocklist, user) = (&asked.api.fleet, &asked.api.blocklist, asked.name("user")?);
                    membership::block(fleet, blocklist, user, &asked.head.headers, asked.body).await
                })
            },
            describe: describe_block,
        },
        Call {
            name: "user_blocks",
            method: Method::GET,
            path: "/v1/users/{user}/block",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| Box::pin(async move { Ok(membership::blocks_of(&asked.api.blocklist, &asked.name("user")?)) }),
            describe: describe_user_blocks,
        },
        Call {
            name: "unblock_user",
            method: Method::DELETE,
            path: "/v1/users/{user}/block",
            needs: Some(Scope::Admin),
            is_probe: false,
            run: |asked| {
                Box::pin(async move {
                    membership::unblock(&asked.api.fleet, &asked.api.blocklist, asked.name("user")?, asked.query())
                        .await
                })
            },
            describe: describe_unblock,
        },
        Call {
            name: "blocks",
            method: Method::GET,
            path: "/v1/blocks",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| {
                Box::pin(async move { membership::blocks(&asked.api.blocklist, asked.limits(), asked.query()) })
            },
            describe: describe_blocks,
        },
    ],
};

fn moved() -> serde_json::Value {
    json!({"moved": 2, "unmoved": 0, "refused": 0, "gateways": {"sent": 1, "failed": []}})
}

fn describe_put(call: &mut Describe<'_>) {
    call.summary("Put all connections of a user into a room")
        .text("Each hears JOINED without an `id`. A user who is not here is `\"moved\": 0`.")
        .room_in_path()
        .user_in_path()
        .answers::<Moved>(200, "Whom it met.", moved())
        .refuses(&[rules::NO_GATEWAY, rules::QUEUES_FULL, rules::GATEWAY_LOST]);
}

fn describe_remove(call: &mut Describe<'_>) {
    call.summary("Take all connections of a user out of a room")
        .text("Each hears LEFT with the reason `kicked`. They may join again; to prevent that, block the user from the room.")
        .room_in_path()
        .user_in_path()
        .answers::<Moved>(200, "Whom it met.", moved())
        .refuses(&[rules::NO_GATEWAY, rules::QUEUES_FULL, rules::GATEWAY_LOST]);
}

fn describe_close(call: &mut Describe<'_>) {
    call.summary("Close a room")
        .text("All members hear LEFT with the reason `closed`. Who joins while it is being closed may stay.")
        .room_in_path()
        .answers::<Moved>(200, "Whom it met.", moved())
        .refuses(&[rules::NO_GATEWAY, rules::QUEUES_FULL, rules::GATEWAY_LOST]);
}

fn blocked() -> serde_json::Value {
    json!({"user": "alice", "until_ms": 1_700_000_060_000_u64, "closed": 1, "moved": 0,
        "gateways": {"sent": 1, "failed": []}})
}

fn describe_block(call: &mut Describe<'_>) {
    let seconds = json!({"type": "integer", "minimum": 1, "maximum": SECONDS_MAX});
    let reason = json!({"type": "string", "maxLength": BLOCK_REASON_BYTES_MAX, "x-max-bytes": BLOCK_REASON_BYTES_MAX});
    let schema = json!({"type": "object", "required": ["seconds"], "additionalProperties": false,
        "properties": {"seconds": seconds, "room": schemas::name("lobby"), "reason": reason}});
    call.summary("Block a user for a time")
        .text(
            "Everywhere: their connections are closed with 3505 and no gateway lets them in. With `room`: they are taken out of \
             it and may not join it. A gateway that cannot be reached is told as soon as it is back.",
        )
        .user_in_path()
        .body(
            JSON,
            schema,
            &[("everywhere", json!({"seconds": 3_600})), ("a room", json!({"seconds": 60, "room": "lobby"}))],
        )
        .answers::<Blocked>(200, "It is in force.", blocked());
}

fn describe_unblock(call: &mut Describe<'_>) {
    call.summary("Lift a block")
        .text("One that does not exist is lifted already.")
        .user_in_path()
        .query("room", schemas::name("lobby"), "The block from this room; without, the one from everything.")
        .answers::<Blocked>(200, "It is lifted.", blocked());
}

fn list() -> serde_json::Value {
    json!({"blocks": [{"user": "alice", "room": "lobby", "until_ms": 1_700_000_060_000_u64,
        "since_ms": 1_700_000_000_000_u64, "reason": "spam"}]})
}

fn describe_user_blocks(call: &mut Describe<'_>) {
    call.summary("The blocks of a user").user_in_path().answers::<BlockList>(200, "Those in force.", list());
}

fn describe_blocks(call: &mut Describe<'_>) {
    call.summary("List blocks")
        .text("By user. A user's blocks stay together, so a page may be a little longer than `limit`.")
        .paged()
        .answers::<BlockList>(200, "Those in force.", list());
}

//! The calls about who is here.

use http::Method;
use serde_json::json;

use super::{Call, Topic};
use crate::api::openapi::{Describe, JSON, schemas};
use crate::api::presence::{self, FoundUsers, Presence, USERS_MAX, UserRooms};
use crate::config::Scope;
use crate::problem::rules;

/// Presence.
pub static TOPIC: Topic = Topic {
    name: "presence",
    about: "Who is here, without asking the gateways: what they have told is at most a second old.",
    calls: &[
        Call {
            name: "presence",
            method: Method::GET,
            path: "/v1/presence",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| Box::pin(async move { Ok(presence::presence(&asked.api.fleet)) }),
            describe: describe_presence,
        },
        Call {
            name: "query_users",
            method: Method::POST,
            path: "/v1/users/query",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| {
                Box::pin(async move { presence::users(&asked.api.fleet, &asked.head.headers, asked.body).await })
            },
            describe: describe_users,
        },
        Call {
            name: "user_rooms",
            method: Method::GET,
            path: "/v1/users/{user}/rooms",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| {
                Box::pin(async move {
                    Ok(presence::user_rooms(&asked.api.fleet, asked.limits(), asked.name("user")?).await)
                })
            },
            describe: describe_rooms,
        },
    ],
};

fn describe_presence(call: &mut Describe<'_>) {
    call.summary("How many are here, in the fleet and at each gateway")
        .text("`users` of the fleet are different users; one who is at two gateways counts at each of them.")
        .answers::<Presence>(
            200,
            "The counts.",
            json!({"online": 2, "users": 1, "rooms": 1, "platforms": {"web": 2}, "gateways":
                [{"gateway": "local", "online": 2, "users": 1, "rooms": 1, "platforms": {"web": 2}}], "missing": []}),
        );
}

fn describe_users(call: &mut Describe<'_>) {
    let users = json!({"type": "array", "maxItems": USERS_MAX, "items": schemas::name("alice")});
    let schema = json!({"type": "object", "required": ["users"], "properties": {"users": users},
        "additionalProperties": false});
    call.summary("Whether users are online, many at once")
        .text("When one who is not was last seen is remembered in memory for a bounded number of users.")
        .body(JSON, schema, &[("two", json!({"users": ["alice", "bob"]}))])
        .answers::<FoundUsers>(
            200,
            "The users, in the order of the question.",
            json!({"users": [{"user": "alice", "online": true},
                {"user": "bob", "online": false, "last_seen_ms": 1_700_000_000_000_u64}], "missing": []}),
        )
        .refuses(&[rules::TOO_MANY_TARGETS]);
}

fn describe_rooms(call: &mut Describe<'_>) {
    call.summary("The rooms a user is in").user_in_path().answers::<UserRooms>(
        200,
        "The rooms, by name.",
        json!({"user": "alice", "rooms": [{"room": "lobby", "connections": 2}], "is_cut": false, "missing": []}),
    );
}

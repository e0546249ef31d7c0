//! The calls about rooms.

use http::Method;
use serde_json::json;

use super::{Call, Topic, connections};
use crate::api::lists::{self, Connections, RoomDetail, Rooms};
use crate::api::openapi::{Describe, schemas};
use crate::config::Scope;

/// Rooms.
pub static TOPIC: Topic = Topic {
    name: "rooms",
    about: "A room exists while someone is in it. One that nobody has heard of is no error: nobody is there.",
    calls: &[
        Call {
            name: "rooms",
            method: Method::GET,
            path: "/v1/rooms",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| Box::pin(async move { lists::rooms(&asked.api.fleet, asked.limits(), asked.query()).await }),
            describe: describe_rooms,
        },
        Call {
            name: "room",
            method: Method::GET,
            path: "/v1/rooms/{room}",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| {
                Box::pin(
                    async move { Ok(lists::one_room(&asked.api.fleet, asked.limits(), asked.name("room")?).await) },
                )
            },
            describe: describe_room,
        },
        Call {
            name: "members",
            method: Method::GET,
            path: "/v1/rooms/{room}/members",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| {
                Box::pin(async move {
                    lists::connections(&asked.api.fleet, asked.limits(), asked.query(), Some(asked.name("room")?)).await
                })
            },
            describe: describe_members,
        },
    ],
};

fn describe_rooms(call: &mut Describe<'_>) {
    call.summary("List rooms with members")
        .text("Sorted by name.")
        .query("prefix", schemas::name("lobby"), "Only rooms whose names begin so.")
        .paged()
        .answers::<Rooms>(200, "A page of rooms.", json!({"rooms": [{"room": "lobby", "online": 1}], "missing": []}));
}

fn describe_room(call: &mut Describe<'_>) {
    call.summary("One room: members, users, numbering").room_in_path().answers::<RoomDetail>(
        200,
        "The room as it is now.",
        json!({"room": "lobby", "online": 1, "users_online": 1, "users": ["alice"], "is_users_cut": false,
            "gateways": [{"gateway": "local", "online": 1, "users_online": 1, "epoch": "1a1fdb96e89-4", "seq": 3}], "missing": []}),
    );
}

fn describe_members(call: &mut Describe<'_>) {
    call.summary("The connections in a room")
        .room_in_path()
        .query("user", schemas::name("alice"), "Only those of this user.")
        .query("platform", schemas::platform(), "Only those of this platform.")
        .paged()
        .answers::<Connections>(200, "A page of connections.", connections::page());
}

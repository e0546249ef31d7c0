//! The calls about users.

use http::Method;
use serde_json::json;

use super::{Call, Topic, connections};
use crate::api::closing::{self, Closed};
use crate::api::lists::{self, User};
use crate::api::openapi::Describe;
use crate::config::Scope;
use crate::problem::rules;

/// Users.
pub static TOPIC: Topic = Topic {
    name: "users",
    about: "A user is a name that connections share. One that nobody has heard of is no error: they are not online.",
    calls: &[
        Call {
            name: "user",
            method: Method::GET,
            path: "/v1/users/{user}",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| {
                Box::pin(async move { Ok(lists::user(&asked.api.fleet, asked.limits(), asked.name("user")?).await) })
            },
            describe: describe_user,
        },
        Call {
            name: "close_user",
            method: Method::DELETE,
            path: "/v1/users/{user}/connections",
            needs: Some(Scope::Admin),
            is_probe: false,
            run: |asked| {
                Box::pin(async move { closing::close_user(&asked.api.fleet, asked.name("user")?, asked.query()).await })
            },
            describe: describe_close,
        },
    ],
};

fn describe_user(call: &mut Describe<'_>) {
    call.summary("Whether a user is online, and where").user_in_path().answers::<User>(
        200,
        "The user as they are now.",
        json!({"user": "alice", "online": true, "connections": [connections::example()], "platforms": {"web": 1},
            "is_cut": false, "missing": []}),
    );
}

fn describe_close(call: &mut Describe<'_>) {
    call.summary("Close all connections of a user")
        .text("A user without connections is `\"closed\": 0`.")
        .user_in_path()
        .closing()
        .answers::<Closed>(200, "How many were closed.", json!({"closed": 1, "gateways": {"sent": 1, "failed": []}}))
        .refuses(&[rules::NO_GATEWAY, rules::QUEUES_FULL, rules::GATEWAY_LOST]);
}

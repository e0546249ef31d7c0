//! The calls about agents: commands whose HTTP answer is the agent's reply, and who there is.

use http::Method;
use serde_json::{Value, json};

use super::{Call, Topic};
use crate::agents::documents::{Answered, Line};
use crate::agents::registry::Target;
use crate::api::agents::{self, Agents};
use crate::api::command;
use crate::api::openapi::{Describe, JSON, schemas};
use crate::config::Scope;
use crate::problem::rules;

/// Agents.
pub static TOPIC: Topic = Topic {
    name: "agents",
    about: "An agent is a connection that answers commands. A command's HTTP answer is the agent's reply.",
    calls: &[
        Call {
            name: "agent_command",
            method: Method::POST,
            path: "/v1/agents/{user}/command",
            needs: Some(Scope::Push),
            is_probe: false,
            run: |asked| {
                Box::pin(async move {
                    let user = asked.name("user")?;
                    command::post(asked, Target::User(user)).await
                })
            },
            describe: describe_user,
        },
        Call {
            name: "room_command",
            method: Method::POST,
            path: "/v1/rooms/{room}/command",
            needs: Some(Scope::Push),
            is_probe: false,
            run: |asked| {
                Box::pin(async move {
                    let room = asked.name("room")?;
                    command::post(asked, Target::Room(room)).await
                })
            },
            describe: describe_room,
        },
        Call {
            name: "agents",
            method: Method::GET,
            path: "/v1/agents",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| {
                Box::pin(async move {
                    agents::list(&asked.api.fleet, &asked.api.agents.config, asked.limits(), asked.query()).await
                })
            },
            describe: describe_list,
        },
        Call {
            name: "agents_text",
            method: Method::GET,
            path: "/agents",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| {
                Box::pin(async move { agents::text(&asked.api.fleet, &asked.api.agents.config, asked.query()).await })
            },
            describe: describe_text,
        },
    ],
};

fn answer() -> Value {
    json!({"id": "1f3a6c0de8b24f57-2a-9d1c33aa04e7b86f", "took_ms": 3,
        "reply": {"from": {"user": "robot-7", "connection": schemas::CONNECTION}, "data": {"pong": true}}})
}

fn describe_user(call: &mut Describe<'_>) {
    let examples = [
        ("ping", json!({"command": "ping"})),
        ("once", json!({"command": "exec:backup", "timeout_ms": 100, "idempotency": "backup-2026-11-25"})),
        ("all", json!({"command": "info", "data": {"brief": true}, "expect": "all", "timeout_ms": 100})),
        ("waiting", json!({"command": "ping", "wait_for_agent": true, "timeout_ms": 100})),
    ];
    call.summary("Send a command to a user's connections and get the reply").user_in_path().body(
        JSON,
        schemas::reference("AgentCommand"),
        &examples,
    );
    describe_command(call);
}

fn describe_room(call: &mut Describe<'_>) {
    let examples = [
        ("first", json!({"command": "ping", "timeout_ms": 100})),
        ("all", json!({"command": "info", "expect": "all", "timeout_ms": 100})),
    ];
    call.summary("Send a command to the members of a room and get their replies").room_in_path().body(
        JSON,
        schemas::reference("RoomCommand"),
        &examples,
    );
    describe_command(call);
}

fn describe_command(call: &mut Describe<'_>) {
    call.text(
        "The answer is the first reply. With `expect: \"all\"` or `Accept: application/x-ndjson` it is NDJSON: each reply \
         as it comes, then a summary. A user that reconnects while its command waits is sent it again under the same id. \
         With `idempotency`, a repeat within `logic.agents.keys_ms` from the same caller does nothing and gets the first \
         answer, also while the first is still on its way; the key stands for exactly this target and body.",
    )
    .answers::<Answered>(200, "The reply, or replies.", answer())
    .answers_lines::<Line>(200, "With `expect: \"all\"` or when the caller accepts NDJSON.")
    .refuses(&[
        rules::BAD_NUMBER,
        rules::LONE_SURROGATE,
        rules::MESSAGE_TOO_LARGE,
        rules::NOBODY_THERE,
        rules::AGENT_ERROR,
        rules::COMMAND_TIMEOUT,
        rules::IDEMPOTENCY_CONFLICT,
        rules::FIRST_FAILED,
        rules::NO_GATEWAY,
        rules::QUEUES_FULL,
        rules::GATEWAY_LOST,
    ]);
}

fn describe_list(call: &mut Describe<'_>) {
    let agent = json!({"id": schemas::CONNECTION, "user": "robot-7", "address": "10.0.0.9:39040",
        "since_ms": 1_795_258_206_694_u64, "gateway": "local"});
    call.summary("List the agents")
        .text("The connections of the platform `logic.agents.platform`.")
        .paged()
        .answers::<Agents>(200, "A page of agents.", json!({"agents": [agent], "missing": []}));
}

fn describe_text(call: &mut Describe<'_>) {
    let text = json!({"type": "string"});
    call.summary("The agents as plain text, for a browser")
        .query("id", schemas::name("robot-7"), "Only this one: a connection's id or a user's name.")
        .answers_as(200, "text/plain", text, "A line for each agent; of one, a line for each thing known.", None)
        .refuses(&[rules::NO_SUCH_AGENT, rules::NO_GATEWAY]);
}

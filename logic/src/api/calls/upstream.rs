//! The calls about what goes upstream.

use http::Method;
use serde_json::{Value, json};

use super::{Call, Topic};
use crate::api::openapi::Describe;
use crate::api::upstream::{self, DeadLetters, ID_CHARACTERS_MAX, Tended, UpstreamState};
use crate::config::Scope;
use crate::problem::rules;
use crate::upstream::Deed;

/// Business services.
pub static TOPIC: Topic = Topic {
    name: "upstream",
    about: "What clients say to business services: how far each sink is behind, and the messages that it never took.",
    calls: &[
        Call {
            name: "upstream",
            method: Method::GET,
            path: "/v1/upstream",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| Box::pin(async move { Ok(upstream::state(&asked.api.upstream)) }),
            describe: describe_state,
        },
        Call {
            name: "dead_letters",
            method: Method::GET,
            path: "/v1/upstream/dead",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| {
                Box::pin(async move { upstream::dead(&asked.api.upstream, asked.limits(), asked.query()).await })
            },
            describe: describe_dead,
        },
        Call {
            name: "retry_dead_letters",
            method: Method::POST,
            path: "/v1/upstream/dead/retry",
            needs: Some(Scope::Admin),
            is_probe: false,
            run: |asked| Box::pin(async move { upstream::tend(&asked.api.upstream, asked.query(), Deed::Retry).await }),
            describe: describe_retry,
        },
        Call {
            name: "delete_dead_letters",
            method: Method::DELETE,
            path: "/v1/upstream/dead",
            needs: Some(Scope::Admin),
            is_probe: false,
            run: |asked| {
                Box::pin(async move { upstream::tend(&asked.api.upstream, asked.query(), Deed::Forget).await })
            },
            describe: describe_delete,
        },
    ],
};

fn sink_name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-z0-9_-]+$"})
}

fn describe_state(call: &mut Describe<'_>) {
    call.summary("Every sink: what waits, how long, and what went wrong last").answers::<UpstreamState>(
        200,
        "The sinks and routes in the configuration's order.",
        json!({"sinks": [{"sink": "robots", "url": "http://127.0.0.1:9000/", "events": ["connected"],
            "spool": {"messages": 2, "bytes": 412, "bytes_max": 268_435_456},
            "dead": {"messages": 0, "bytes": 0, "bytes_max": 67_108_864}, "lag_ms": 340,
            "trouble": {"what": "status 503", "since_ms": 1_796_054_400_000_u64}}],
            "routes": [{"pattern": "robot/*", "sink": "robots"}]}),
    );
}

fn describe_dead(call: &mut Describe<'_>) {
    call.summary("List dead letters")
        .text("Messages that a sink refused for good, or did not take in time. Oldest first, sink by sink.")
        .query("sink", sink_name(), "Only those of this sink.")
        .paged()
        .answers::<DeadLetters>(
            200,
            "A page of dead letters.",
            json!({"dead": [{"sink": "robots", "reason": "status 400", "attempts": 1, "taken_ms": 1_796_054_400_000_u64,
                "died_ms": 1_796_054_400_020_u64, "message": {"id": "01KB0Z0Z0Z0Z0Z0Z0Z0Z0Z0Z0Z", "kind": "message",
                "route": "robot/say", "user": "alice", "time_ms": 1_796_054_399_990_u64, "data": {"text": "hi"}}}]}),
        )
        .refuses(&[rules::NO_SUCH_SINK, rules::SPOOL_FAILED]);
}

fn describe_retry(call: &mut Describe<'_>) {
    call.summary("Send dead letters again")
        .text("They go behind all messages that wait; for which the spool has no room stay dead letters.")
        .query("sink", sink_name(), "Only those of this sink.")
        .query("id", json!({"type": "string", "maxLength": ID_CHARACTERS_MAX}), "Only the message with this id.")
        .answers::<Tended>(200, "How many are on their way again.", json!({"done": 1, "left": 0}))
        .refuses(&[rules::NO_SUCH_SINK, rules::SPOOL_FAILED]);
}

fn describe_delete(call: &mut Describe<'_>) {
    call.summary("Delete dead letters")
        .text("For good. Without `id` every one, without `sink` those of every sink.")
        .query("sink", sink_name(), "Only those of this sink.")
        .query("id", json!({"type": "string", "maxLength": ID_CHARACTERS_MAX}), "Only the message with this id.")
        .answers::<Tended>(200, "How many are gone.", json!({"done": 1, "left": 0}))
        .refuses(&[rules::NO_SUCH_SINK, rules::SPOOL_FAILED]);
}

//! The calls that push.

use http::Method;
use serde_json::{Value, json};

use super::{Call, Topic};
use crate::api::batch::{self, Item, Receipts};
use crate::api::openapi::{Describe, JSON, schemas};
use crate::api::{go_push, push};
use crate::config::Scope;
use crate::problem::{Rules, rules};
use crate::push::receipt::Receipt;

const FORM: &str = "application/x-www-form-urlencoded";

/// Pushing.
pub static TOPIC: Topic = Topic {
    name: "push",
    about: "Messages to everyone, to rooms, to users or to connections; the answer is a receipt.",
    calls: &[
        Call {
            name: "push",
            method: Method::POST,
            path: "/v1/push",
            needs: Some(Scope::Push),
            is_probe: false,
            run: |asked| {
                Box::pin(
                    async move { push::one(&asked.api.engine, asked.caller, &asked.head.headers, asked.body).await },
                )
            },
            describe: describe_push,
        },
        Call {
            name: "push_batch",
            method: Method::POST,
            path: "/v1/push/batch",
            needs: Some(Scope::Push),
            is_probe: false,
            run: |asked| {
                Box::pin(async move {
                    let (engine, metrics) = (&asked.api.engine, &asked.api.door.metrics);
                    batch::many(engine, metrics, asked.caller, &asked.head.headers, asked.body).await
                })
            },
            describe: describe_batch,
        },
        Call {
            name: "go_push_all",
            method: Method::POST,
            path: "/push/all",
            needs: Some(Scope::Push),
            is_probe: false,
            run: |asked| {
                Box::pin(
                    async move { go_push::all(&asked.api.engine, asked.caller, &asked.head.headers, asked.body).await },
                )
            },
            describe: describe_form_all,
        },
        Call {
            name: "go_push_room",
            method: Method::POST,
            path: "/push/room",
            needs: Some(Scope::Push),
            is_probe: false,
            run: |asked| {
                Box::pin(async move {
                    go_push::room(&asked.api.engine, asked.caller, &asked.head.headers, asked.body).await
                })
            },
            describe: describe_form_room,
        },
    ],
};

/// What a push can be refused for beyond its JSON.
const PUSH: &[Rules] = &[
    rules::TARGET_NOT_ALLOWED,
    rules::BAD_NUMBER,
    rules::LONE_SURROGATE,
    rules::TOO_MANY_MESSAGES,
    rules::TOO_MANY_TARGETS,
    rules::MESSAGE_TOO_LARGE,
    rules::NO_GATEWAY,
    rules::QUEUES_FULL,
    rules::GATEWAY_LOST,
];

fn receipt() -> Value {
    json!({"id": "01M7YVMMAYPEAZJFFEVP9NQ3XB", "gateways": {"sent": 1, "failed": []}, "matched": 1, "queued": 1,
        "dropped": {}})
}

fn written() -> Value {
    json!({"id": "01M7YVMMAYPEAZJFFEVP9NQ3XB", "gateways": {"sent": 1, "failed": []}, "matched": 1, "queued": 1,
        "dropped": {}, "written": 1, "pending": 0, "timed_out": false})
}

fn describe_push(call: &mut Describe<'_>) {
    call.summary("Push messages to targets")
        .text(
            "The receipt comes as soon as every gateway that has one of the targets has queued the messages or failed \
             to; with `wait: \"written\"`, once the kernel has taken them or `timeout_ms` is over. A push to nobody is \
             done: `matched` is 0. With `dedupe`, a repeat within `logic.dedupe.window_ms` from the same caller does \
             nothing and gets the first receipt.",
        )
        .body(
            JSON,
            schemas::reference("Push"),
            &[
                ("room", json!({"to": {"room": "lobby"}, "messages": [{"text": "hello"}]})),
                ("written", json!({"to": {"user": "alice"}, "message": "hi", "wait": "written", "timeout_ms": 100})),
                (
                    "narrowed",
                    json!({"to": {"all": true, "platform": ["ios", "android"], "except": {"users": ["alice"]}},
                        "message": {"text": "update, please"}, "lane": "bulk", "ttl_ms": 60_000}),
                ),
            ],
        )
        .answers_written(200, "With `wait: \"written\"`: what became of it in time.", written())
        .answers::<Receipt>(202, "It is on its way.", receipt())
        .refuses(PUSH)
        .refuses(&[rules::FIRST_FAILED]);
}

fn describe_batch(call: &mut Describe<'_>) {
    let one = json!({"to": {"room": "lobby"}, "message": 1});
    call.summary("Many pushes in one request")
        .text(
            "One JSON document, or NDJSON with one push a line, which is read and pushed as it arrives. The answer has, \
             in order, a receipt or a problem for each push (with `wait: \"written\"`, a receipt has the members of \
             `Written`, too): one bad push fails alone. If an NDJSON body breaks off or \
             passes a limit, what came before has been pushed and the last line says why there is no more.",
        )
        .body(JSON, schemas::reference("PushBatch"), &[("two", json!({"pushes": [one, one]}))])
        .body("application/x-ndjson", schemas::lines("Push"), &[("two", json!(format!("{one}\n{one}\n")))])
        .answers::<Receipts>(202, "A receipt or a problem for each push.", json!({"receipts": [receipt()]}))
        .answers_lines::<Item>(202, "The same as NDJSON, when the body was NDJSON.")
        .refuses(&[rules::TOO_MANY_PUSHES, rules::LINE_TOO_LARGE]);
}

fn describe_form_all(call: &mut Describe<'_>) {
    call.summary("go-push: push to everyone").body(
        FORM,
        schemas::go_push(&[]),
        &[("two", json!({"items": "[{\"msg\": \"hi\"},{\"msg\": \"bye\"}]"}))],
    );
    describe_form(call);
}

fn describe_form_room(call: &mut Describe<'_>) {
    let example = json!({"room": "default", "items": "[{\"msg\": \"hi\"},{\"msg\": \"bye\"}]"});
    call.summary("go-push: push to a room")
        .body(FORM, schemas::go_push(&[("room", schemas::name("default"))]), &[("two", example)])
        .refuses(&[rules::BAD_PARAMETER]);
    describe_form(call);
}

fn describe_form(call: &mut Describe<'_>) {
    call.text("The same walk and the same receipt as `POST /v1/push`. `items` is a JSON list of messages, as text.")
        .answers::<Receipt>(202, "It is on its way.", receipt())
        .refuses(PUSH)
        .refuses(&[rules::BAD_FORM, rules::UNKNOWN_PARAMETER])
        .refuses(&[rules::BAD_JSON, rules::JSON_TOO_DEEP, rules::WRONG_TYPE, rules::BAD_VALUE]);
}

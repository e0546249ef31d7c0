//! The calls of operators and their machines: probes, metrics, gateways, figures.

use http::Method;
use serde_json::{Value, json};

use super::{Call, Topic};
use crate::api::openapi::Describe;
use crate::api::operate::{self, Gateways, Readiness, Stats};
use crate::config::Scope;

/// For operators.
pub static TOPIC: Topic = Topic {
    name: "operate",
    about: "Probes, figures and metrics for operators. None of them asks a gateway, so a slow one never slows them.",
    calls: &[
        Call {
            name: "gateways",
            method: Method::GET,
            path: "/v1/gateways",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| Box::pin(async move { Ok(operate::gateways(&asked.api.fleet)) }),
            describe: describe_gateways,
        },
        Call {
            name: "stats",
            method: Method::GET,
            path: "/v1/stats",
            needs: Some(Scope::Read),
            is_probe: false,
            run: |asked| Box::pin(async move { Ok(operate::stats(&asked.api.fleet)) }),
            describe: describe_stats,
        },
        Call {
            name: "health",
            method: Method::GET,
            path: "/healthz",
            needs: None,
            is_probe: true,
            run: |_| Box::pin(async { Ok(operate::health()) }),
            describe: describe_health,
        },
        Call {
            name: "readiness",
            method: Method::GET,
            path: "/readyz",
            needs: None,
            is_probe: true,
            run: |asked| Box::pin(async move { Ok(operate::readiness(&asked.api.fleet, asked.api.door.is_leaving())) }),
            describe: describe_readiness,
        },
        Call {
            name: "metrics",
            method: Method::GET,
            path: "/metrics",
            needs: Some(Scope::Read),
            is_probe: true,
            run: |asked| Box::pin(async move { Ok(operate::metrics(&asked.api.scrape, &asked.head.headers)) }),
            describe: describe_metrics,
        },
    ],
};

fn gateway() -> Value {
    json!({"gateway": "local", "state": "up", "is_known": true, "epoch": 1_796_054_400_000_u64, "name": "gw-1",
        "version": "0.1.0", "is_draining": false, "is_leaving": false, "queue": {"pushes": 0, "bytes": 0}, "connections": 1,
        "connections_max": 19_616, "rooms": 1, "users": 1,
        "messages": {"queued": 62, "written": 62, "dropped": 0, "pending": 0},
        "frames": {"encoded": 40, "written": 62}, "window_ms": 20})
}

fn describe_gateways(call: &mut Describe<'_>) {
    call.summary("Every gateway and its link").answers::<Gateways>(
        200,
        "The gateways in the configuration's order.",
        json!({"gateways": [gateway()]}),
    );
}

fn describe_stats(call: &mut Describe<'_>) {
    call.summary("Totals over the gateways")
        .text("Figures are at most about `logic.backplane.hold_ms` old. A gateway that is down counts nothing.")
        .answers::<Stats>(
            200,
            "The totals, and each gateway.",
            json!({"connections": 1, "connections_max": 19_616, "rooms": 1, "users": 1,
                "messages": {"queued": 62, "written": 62, "dropped": 0, "pending": 0},
                "frames": {"encoded": 40, "written": 62}, "window_ms": 20, "deliveries": 62, "gateways": [gateway()]}),
        );
}

fn describe_health(call: &mut Describe<'_>) {
    call.summary("Is the process alive?").answers_as(
        200,
        "text/plain; charset=utf-8",
        json!({"type": "string", "const": "ok\n"}),
        "It is.",
        Some(json!("ok\n")),
    );
}

fn describe_readiness(call: &mut Describe<'_>) {
    call.summary("Can this node do its job?")
        .text("Ready while at least one gateway is linked, known, told who is blocked and not leaving, and the node itself stays.")
        .answers::<Readiness>(200, "It can.", json!({"ready": true, "missing": []}))
        .answers::<Readiness>(
            503,
            "It cannot; `missing` says why.",
            json!({"ready": false, "missing": ["gateway 127.0.0.1:8012: connecting"]}),
        );
}

fn describe_metrics(call: &mut Describe<'_>) {
    call.summary("Metrics")
        .text(
            "For Prometheus, in OpenMetrics where `Accept` prefers it and in Prometheus' text format otherwise; in one process \
             with a gateway, its metrics too.",
        )
        .answers_as(
            200,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            json!({"type": "string"}),
            "The metrics.",
            Some(json!("# EOF\n")),
        )
        .answers_as(
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            json!({"type": "string"}),
            "The metrics.",
            Some(json!("tidegate_logic_connections 1\n")),
        );
}

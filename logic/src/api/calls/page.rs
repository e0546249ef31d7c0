//! The calls behind the page in the browser, and the document that describes all calls.

use http::Method;
use serde_json::json;

use super::{Call, Topic};
use crate::api::console::{self, Settings};
use crate::api::openapi::{self, Describe};
use crate::problem::rules;

/// The page.
pub static TOPIC: Topic = Topic {
    name: "page",
    about: "The page for people, and this document.",
    calls: &[
        Call {
            name: "page",
            method: Method::GET,
            path: "/",
            needs: None,
            is_probe: false,
            run: |_| Box::pin(async { console::file("/") }),
            describe: describe_page,
        },
        Call {
            name: "page_file",
            method: Method::GET,
            path: "/console/{file}",
            needs: None,
            is_probe: false,
            run: |asked| Box::pin(async move { console::file(&format!("/console/{}", asked.param("file"))) }),
            describe: describe_file,
        },
        Call {
            name: "settings",
            method: Method::GET,
            path: "/console/config.json",
            needs: None,
            is_probe: false,
            run: |asked| {
                Box::pin(async move { Ok(console::settings(&asked.api.page, !asked.api.keys.now().is_open())) })
            },
            describe: describe_settings,
        },
        Call {
            name: "openapi",
            method: Method::GET,
            path: "/openapi.json",
            needs: None,
            is_probe: false,
            run: |asked| Box::pin(async move { Ok(openapi::answer(&asked.api.page)) }),
            describe: describe_document,
        },
    ],
};

fn describe_page(call: &mut Describe<'_>) {
    call.summary("The page")
        .text("Joins rooms, pushes, chats and shows figures from a browser. Its scripts come from this server only.")
        .answers_as(200, "text/html; charset=utf-8", json!({"type": "string"}), "The page.", None);
}

fn describe_file(call: &mut Describe<'_>) {
    let files: Vec<&str> = crate::api::console::assets::files().collect();
    call.summary("A file of the page")
        .in_path("file", json!({"type": "string", "enum": files}), "Its name.")
        .answers_as(200, "text/javascript; charset=utf-8", json!({"type": "string"}), "A script.", None)
        .answers_as(200, "text/css; charset=utf-8", json!({"type": "string"}), "A style.", None)
        .answers_as(200, "image/svg+xml", json!({"type": "string"}), "An image.", None)
        .refuses(&[rules::NO_SUCH_PATH]);
}

fn describe_settings(call: &mut Describe<'_>) {
    call.summary("What the page has to know of this server").answers::<Settings<'_>>(
        200,
        "The settings. No secret is among them.",
        json!({"ws_url": null, "gateway_url": "ws://127.0.0.1:8000/ws", "wants_token": false, "wants_key": false, "version": "0.1.0",
            "demo": false}),
    );
}

fn describe_document(call: &mut Describe<'_>) {
    call.summary("This document").text("OpenAPI 3.1. The limits in it are those of the node that answers.").answers_as(
        200,
        "application/json",
        json!({"type": "object"}),
        "The document.",
        None,
    );
}

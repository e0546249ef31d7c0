//! The console over HTTP: the embedded files of [`super::console::assets`] under a strict policy, and one document of settings.
//! The page gets no secret and no data; what it shows comes from the API and the WebSocket, under their rules.

pub mod assets;

use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::Page;
use super::console::assets::asset;
use super::response::{Answer, json, with_type};
use crate::problem::Refusal;

/// The page may load its own files, and talk to this server and to WebSockets. Nothing inline. Images may come from elsewhere,
/// because people show them to one another: by https only, and (see below) without telling where from they are asked for.
const POLICY: &str = "default-src 'self'; img-src 'self' https: data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// What the page has to know.
#[derive(Serialize, ToSchema)]
pub struct Settings<'a> {
    /// Where the page connects, as the operator says (`logic.page.ws_url`); null: it works it out from its own address.
    ws_url: Option<&'a str>,
    /// Where the gateway in the same process listens, which behind a proxy is not where browsers reach it; null: there is none.
    gateway_url: Option<&'a str>,
    /// Whether the gateways want tokens; null: not known here.
    wants_token: Option<bool>,
    /// Whether this API wants a key.
    wants_key: bool,
    /// Of the server.
    version: &'static str,
    /// Whether the demo's rooms are there to be joined.
    demo: bool,
}

/// `GET /` and `GET /console/{file}`.
pub fn file(path: &str) -> Result<Answer, Refusal> {
    let asset = asset(path).ok_or(Refusal::NoSuchPath)?;
    let mut answer = with_type(StatusCode::OK, asset.media_type, asset.body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(answer)
}

/// `GET /console/config.json`.
pub fn settings(page: &Page, wants_key: bool) -> Answer {
    let settings = Settings {
        ws_url: Some(page.config.ws_url.as_str()).filter(|url| !url.is_empty()),
        gateway_url: page.extras.gateway_url.as_deref(),
        wants_token: page.extras.gateway_wants_tokens,
        wants_key,
        version: env!("CARGO_PKG_VERSION"),
        demo: page.extras.is_demo,
    };
    json(StatusCode::OK, &settings)
}

//! `ws`, the WebSocket library most Node.js servers are built on: a frame is a message, everybody gets it.
//! How its server is started stands in `peers`.

use super::Dialect;
use super::content::{Content, bare};
use super::form::Form;

#[derive(Debug)]
pub struct Ws;

impl Dialect for Ws {
    fn name(&self) -> &'static str {
        "ws"
    }

    fn is_open_at_once(&self) -> bool {
        true
    }

    fn join(&self, _rooms: &[String]) -> Option<Vec<u8>> {
        None
    }

    fn parse(&self, payload: &[u8]) -> Content {
        bare(payload)
    }

    fn form(&self) -> Form {
        Form::Post("/pub")
    }
}

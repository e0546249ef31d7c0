//! nchan, nginx's publish-subscribe module: its clients subscribe by the upgrade request; a frame is a message.
//! How it is started stands in `peers`.

use super::Dialect;
use super::content::{Content, bare};
use super::form::Form;

#[derive(Debug)]
pub struct Nchan;

impl Dialect for Nchan {
    fn name(&self) -> &'static str {
        "nchan"
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

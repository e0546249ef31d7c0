//! The dialects that clients may speak: the protocol's JSON, and older ones where the configuration has them understood. A dialect
//! reads a message ([`Dialects::read`]) and words the answer to it ([`ReplyTo::answer`]); what a message leads to is not its matter.
//! A new one is a file here, an arm of [`Asked`] for what it alone has, and one of [`ReplyTo`].
//! Invariant: a message that is of the protocol is read by no other dialect.

mod json;
mod module_action;
mod user_data;

use bytes::Bytes;
use tidegate_protocol::compat::{Bare, Called};
use tidegate_protocol::message::{self, BadRequest, Request};
use tidegate_protocol::records::answer::Outcome;
use tidegate_protocol::ws;

pub use self::json::Expects;
use crate::config::CompatConfig;

/// The dialects that are understood here.
#[derive(Clone, Debug)]
pub struct Dialects(CompatConfig);

/// What a client has said.
#[derive(Debug)]
pub enum Asked<'a> {
    /// A request of the protocol.
    Json(Request<'a>),
    /// `{"Module":…,"Action":…}`.
    ModuleAction(Called<'a>),
    /// `{"user_id":…,"data":…}`: messages for one user.
    UserData(Bare<'a>),
}

impl Dialects {
    /// As configured. The protocol is always understood.
    #[must_use]
    pub fn of(config: &CompatConfig) -> Self {
        Self(config.clone())
    }

    /// Reads a message. Whatever is not of the protocol is looked at by the others.
    ///
    /// # Errors
    /// What is wrong with it as a request of the protocol, and its `id` as far as it has one.
    pub fn read<'a>(&self, text: &'a str) -> Result<Asked<'a>, (Option<&'a str>, BadRequest)> {
        let error = match message::parse(text) {
            Ok(request) => return Ok(Asked::Json(request)),
            Err(error @ (_, BadRequest::BadJson(_))) => error,
            Err(error) => return Err(error),
        };
        let module_action =
            || self.0.module_action.then(|| module_action::read(text)).flatten().map(Asked::ModuleAction);
        let user_data = || self.0.user_data.then(|| user_data::read(text)).flatten().map(Asked::UserData);
        module_action().or_else(user_data).ok_or(error)
    }
}

/// How the answer to a message is worded, kept while it is awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// In the protocol's JSON.
    Json {
        /// The request's `id`, as written.
        id: Option<Box<str>>,
        /// Which reply the client expects.
        expects: Expects,
    },
    /// As a Module/Action message.
    ModuleAction {
        /// The module that was called.
        module: Box<str>,
        /// The action.
        action: Box<str>,
    },
}

impl ReplyTo {
    /// The whole frame of the answer to what was carried up; none: no usable answer came.
    #[must_use]
    pub fn answer(&self, outcome: Option<&Outcome>) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Json { id, expects } => json::answer(&mut out, id.as_deref(), *expects, outcome),
            Self::ModuleAction { module, action } => module_action::answer(&mut out, module, action, outcome),
        }
        ws::frame(ws::OpCode::Text, &out)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_protocol::records::{Declined, Sent};

    use super::*;

    fn dialects(module_action: bool, user_data: bool) -> Dialects {
        Dialects(CompatConfig { module_action, user_data })
    }

    #[test]
    fn a_message_is_read_by_the_protocol_first_and_by_what_is_configured_then() {
        let called = r#"{"Module":"robot","Action":"Heartbeat","Data":{}}"#;
        let bare = r#"{"user_id":7,"data":"hi"}"#;
        assert!(matches!(dialects(true, true).read(r#"{"type":"PING"}"#), Ok(Asked::Json(_))));
        assert!(matches!(dialects(true, true).read(called), Ok(Asked::ModuleAction(_))));
        assert!(matches!(dialects(true, true).read(bare), Ok(Asked::UserData(_))));
        for (dialects, text) in [(dialects(false, true), called), (dialects(true, false), bare)] {
            assert!(matches!(dialects.read(text), Err((_, BadRequest::BadJson(_)))), "{text}");
        }
        let unknown = dialects(true, true).read(r#"{"type":"JUMP","id":1}"#);
        assert!(matches!(unknown, Err((Some("1"), _))), "of the protocol, and of no other: {unknown:?}");
    }

    fn text(reply_to: &ReplyTo, outcome: Option<&Outcome>) -> String {
        String::from_utf8(ws::payload(&reply_to.answer(outcome)).to_vec()).expect("JSON")
    }

    #[test]
    fn an_answer_is_worded_in_the_dialect_of_the_question() {
        let json = ReplyTo::Json { id: Some("5".into()), expects: Expects::Sent };
        let called = ReplyTo::ModuleAction { module: "robot".into(), action: "Move".into() };
        let sent = Outcome::Sent(Sent { id: "m".into(), time_ms: 9 });
        let refused =
            Outcome::Refused(Declined { code: "rate".into(), message: "slower".into(), ..Declined::default() });

        assert!(text(&json, Some(&sent)).starts_with(r#"{"type":"SENT","id":5"#), "{}", text(&json, Some(&sent)));
        assert!(text(&json, Some(&refused)).contains(r#""code":"rate""#));
        assert!(text(&json, None).contains("no usable answer"));
        assert!(text(&called, Some(&sent)).contains("robot"), "{}", text(&called, Some(&sent)));
        assert!(text(&called, Some(&refused)).contains("429"), "{}", text(&called, Some(&refused)));
        assert!(text(&called, None).contains("503"));
    }
}

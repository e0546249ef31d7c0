//! Two older dialects, understood where the configuration says so, and translated into requests of ours:
//! `{"Module":"robot","Action":"Login","Data":{"PlatId":"1","UserId":"abc"}}` and a bare `{"user_id":2,"data":"haha"}`.
//! Only reads and writes text; who may do what is the gateway's business. Invariant: a message with a `type` is ours and
//! never read here.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{self, present, write_string};
use crate::limits::{JSON_DEPTH_MAX, is_valid_name, is_valid_platform};

/// What stands for data that is not there.
const NULL: &str = "null";

/// A Module/Action message.
#[derive(Debug, PartialEq, Eq)]
pub struct Called<'a> {
    /// Such as `robot`.
    pub module: Cow<'a, str>,
    /// Such as `Login`.
    pub action: Cow<'a, str>,
    /// What it asks for.
    pub wish: Wish<'a>,
}

/// What a Module/Action message asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish<'a> {
    /// `Login`: names the user and the platform.
    Login {
        /// `UserId`.
        user: Cow<'a, str>,
        /// `PlatId`, as it is; the platform of that name.
        platform: Option<Cow<'a, str>>,
    },
    /// `Login` that names nobody.
    BadLogin,
    /// `HeartBeat` or `Ping`: an answer is a sign of life for both.
    Alive,
    /// Anything else: for the business service behind the route `module/action`.
    Upstream {
        /// The route.
        route: String,
        /// `Data` as written.
        data: &'a str,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow, default, deserialize_with = "present")]
    kind: Option<&'a RawValue>,
    #[serde(rename = "Module", borrow)]
    module: Cow<'a, str>,
    #[serde(rename = "Action", borrow)]
    action: Cow<'a, str>,
    #[serde(rename = "Data", borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Login<'a> {
    #[serde(rename = "UserId", borrow)]
    user: &'a RawValue,
    #[serde(rename = "PlatId", borrow, default)]
    platform: Option<&'a RawValue>,
}

/// Reads a Module/Action message; none when it is something else.
#[must_use]
pub fn called(text: &str) -> Option<Called<'_>> {
    json::check(text.as_bytes(), JSON_DEPTH_MAX).ok()?;
    let Envelope { kind: None, module, action, data } = json::from_str(text).ok()? else { return None };
    let data = data.map_or(NULL, RawValue::get);
    let wish = match action.as_ref() {
        "Login" => login(data).unwrap_or(Wish::BadLogin),
        "HeartBeat" | "Ping" => Wish::Alive,
        _ => Wish::Upstream { route: format!("{module}/{action}"), data },
    };
    Some(Called { module, action, wish })
}

fn login(data: &str) -> Option<Wish<'_>> {
    let login: Login<'_> = json::from_str(data).ok()?;
    let user = scalar(login.user.get()).filter(|user| is_valid_name(user))?;
    let platform = match login.platform.map(RawValue::get) {
        None | Some(NULL) => None,
        Some(text) => Some(scalar(text).filter(|platform| is_valid_platform(platform))?),
    };
    Some(Wish::Login { user, platform })
}

/// A string's text, or a whole number as it is written.
fn scalar(text: &str) -> Option<Cow<'_, str>> {
    if text.starts_with('"') {
        return json::from_str::<Cow<'_, str>>(text).ok();
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(Cow::Borrowed(text))
}

/// The answer to a Module/Action message. `code` 0 is success; `Msg` is for people.
pub fn answer(out: &mut Vec<u8>, module: &str, action: &str, code: u16, message: &str) {
    out.extend_from_slice(br#"{"Module":"#);
    write_string(out, module);
    out.extend_from_slice(br#","Action":"#);
    write_string(out, action);
    out.extend_from_slice(format!(r#","Code":{code},"Msg":"#).as_bytes());
    write_string(out, message);
    out.push(b'}');
}

/// A bare message for a user.
#[derive(Debug, PartialEq, Eq)]
pub struct Bare<'a> {
    /// For whom.
    pub user: Cow<'a, str>,
    /// A JSON value as written.
    pub data: &'a str,
}

#[derive(Deserialize)]
struct BareEnvelope<'a> {
    #[serde(rename = "type", borrow, default, deserialize_with = "present")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: &'a RawValue,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Reads a bare `{"user_id":2,"data":…}`; none when it is something else.
#[must_use]
pub fn bare(text: &str) -> Option<Bare<'_>> {
    json::check(text.as_bytes(), JSON_DEPTH_MAX).ok()?;
    let BareEnvelope { kind: None, user_id, data } = json::from_str(text).ok()? else { return None };
    let user = scalar(user_id.get()).filter(|user| is_valid_name(user))?;
    Some(Bare { user, data: data.get() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_names_the_user_and_the_platform() {
        fn wish(text: &str) -> Option<Wish<'_>> {
            called(text).map(|called| called.wish)
        }
        let named = |user: &'static str, platform: Option<&'static str>| {
            Some(Wish::Login { user: user.into(), platform: platform.map(Into::into) })
        };

        let login = r#"{"Module":"robot","Action":"Login","Data":{"PlatId":"1","UserId":"abc"}}"#;
        assert_eq!(wish(login), named("abc", Some("1")));
        assert_eq!(wish(r#"{"Module":"m","Action":"Login","Data":{"PlatId":1,"UserId":7}}"#), named("7", Some("1")));
        assert_eq!(wish(r#"{"Module":"m","Action":"Login","Data":{"UserId":"a"}}"#), named("a", None));
        for bad in
            ["{}", "null", r#"{"UserId":""}"#, r#"{"UserId":1.5}"#, r#"{"UserId":"a","PlatId":"A b"}"#, r#"["a",null]"#]
        {
            let text = format!(r#"{{"Module":"m","Action":"Login","Data":{bad}}}"#);
            assert_eq!(wish(&text), Some(Wish::BadLogin), "{bad}");
        }
    }

    #[test]
    fn other_actions_go_upstream_as_module_and_action() {
        let text = r#"{"Module":"robot","Action":"Say","Data":{"x": 1}}"#;
        let upstream = Wish::Upstream { route: "robot/Say".into(), data: r#"{"x": 1}"# };
        assert_eq!(called(text), Some(Called { module: "robot".into(), action: "Say".into(), wish: upstream }));
        assert_eq!(called(r#"{"Module":"robot","Action":"HeartBeat"}"#).map(|c| c.wish), Some(Wish::Alive));
    }

    #[test]
    fn what_has_a_type_or_another_shape_is_not_of_these_dialects() {
        for text in [
            r#"{"type":"PING","Module":"a","Action":"b"}"#,
            r#"{"type":null,"Module":"a","Action":"b"}"#,
            r#"{"Module":"a"}"#,
            r#"{"Module":1,"Action":"b"}"#,
            r#"["a","b",null]"#,
            r#"[null,"a","b",null]"#,
            r#"{"Module":"a","Action":"b","Data":1e999}"#,
            r#"{"Module":"a","Action":"b","Data":"\ud800"}"#,
            "[]",
            "{",
        ] {
            assert_eq!(called(text), None, "{text}");
        }
        for text in [r#"{"type":"x","user_id":1,"data":1}"#, r#"{"user_id":1}"#, r#"{"user_id":true,"data":1}"#, "1"] {
            assert_eq!(bare(text), None, "{text}");
        }
        for text in [
            r#"[null,1,1]"#,
            r#"{"type":null,"user_id":1,"data":1}"#,
            r#"{"user_id":1,"data":1e999}"#,
            r#"{"user_id":1,"data":{"\ud800":1}}"#,
        ] {
            assert_eq!(bare(text), None, "{text}");
        }
        let deep = format!(r#"{{"user_id":1,"data":{}{}}}"#, "[".repeat(100), "]".repeat(100));
        assert_eq!(bare(&deep), None);
    }

    #[test]
    fn a_bare_message_is_for_its_user() {
        assert_eq!(bare(r#"{"user_id":2,"data":"haha"}"#), Some(Bare { user: "2".into(), data: r#""haha""# }));
        assert_eq!(bare(r#"{"data":[1],"user_id":"b"}"#), Some(Bare { user: "b".into(), data: "[1]" }));
    }

    #[test]
    fn answers_are_json() {
        let mut out = Vec::new();
        answer(&mut out, "ro\"bot", "Login", 0, "ok");
        let json: serde_json::Value = json::from_slice(&out).expect("JSON");
        assert_eq!((&json["Module"], &json["Code"]), (&"ro\"bot".into(), &0.into()));
    }
}

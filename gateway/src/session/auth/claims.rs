//! What a token says, read strictly: each claim has its form, and a token with a claim of another form is refused whole
//! rather than understood in part. Rule C-4 lists the claims.
//! One of the parts of [`super`]; times and names are checked here, signatures are not.

use std::fmt;

use serde_json::value::RawValue;
use tidegate_protocol::limits::{PATTERN_BYTES_MAX, PATTERNS_MAX, is_valid_name, is_valid_platform};

use super::error::TokenError;
use super::object::{Object, seconds, text, texts};
use crate::config::AuthConfig;
use crate::session::{Act, Attributes, Grant};

/// How far ahead the times of a token may lie: ten years. Milliseconds read as seconds lie fifty thousand years ahead, and the
/// connection's clock would end them in 2106.
pub const AHEAD_S_MAX: u32 = 3_653 * 86_400;
/// Longest device name, in bytes.
const DEVICE_BYTES_MAX: usize = 128;

/// What a verified token says of its bearer.
#[derive(Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: the user.
    pub user: Box<str>,
    /// `exp` in Unix seconds.
    pub expires_s: u32,
    /// `plat`.
    pub platform: Option<Box<str>>,
    /// `dev`.
    pub device: Option<Box<str>>,
    /// `attrs`.
    pub attributes: Attributes,
    /// `rooms`, `speak`, `presence`, `members`, `users`, `routes`.
    pub grant: Grant,
    /// `join`: rooms it is in from the start.
    pub join: Vec<Box<str>>,
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claims {{ user: {:?}, expires_s: {}, … }}", self.user, self.expires_s)
    }
}

/// What is checked of a token's claims beside their form.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    audience: String,
    issuer: String,
    leeway_s: u32,
}

impl Expected {
    pub(super) fn of(config: &AuthConfig) -> Self {
        Self { audience: config.audience.clone(), issuer: config.issuer.clone(), leeway_s: config.leeway_s }
    }

    pub(super) fn leeway_s(&self) -> u32 {
        self.leeway_s
    }

    /// Reads a payload whose signature has been verified.
    pub(super) fn read(&self, payload: &Object<'_>, now_s: u64) -> Result<Claims, TokenError> {
        let expires_s = self.check_times(payload, now_s)?;
        self.check_parties(payload)?;
        let user = required(
            payload,
            "sub",
            "sub (the user) is needed: a string of 1 to 128 bytes without control characters",
        )?;
        let user = is_valid_name(&user).then_some(user);
        let user = user.ok_or(TokenError::Claims("sub must be 1 to 128 bytes of UTF-8 without control characters"))?;
        let platform = optional(payload, "plat", "plat must be a string of 1 to 32 of a-z, 0-9, _ and -")?;
        if platform.as_ref().is_some_and(|p| !is_valid_platform(p)) {
            return Err(TokenError::Claims("plat must be 1 to 32 of a-z, 0-9, _ and -"));
        }
        let device = optional(payload, "dev", "dev must be a string of 1 to 128 bytes")?;
        if device
            .as_ref()
            .is_some_and(|d| d.is_empty() || d.len() > DEVICE_BYTES_MAX || d.chars().any(char::is_control))
        {
            return Err(TokenError::Claims("dev must be 1 to 128 bytes without control characters"));
        }
        let join = join(payload, &user)?;
        let (attributes, grant) = (attributes(payload)?, grant(payload)?);
        Ok(Claims { user, expires_s, platform, device, attributes, grant, join })
    }

    /// `exp`, which every token must have, `nbf` and `iat`; gives `exp`.
    fn check_times(&self, payload: &Object<'_>, now_s: u64) -> Result<u32, TokenError> {
        const EXP: TokenError = TokenError::Claims("exp is needed: a number of seconds since 1970");
        let (now_s, leeway_s) = (now_s as f64, f64::from(self.leeway_s));
        let exp = payload.find("exp").and_then(seconds).ok_or(EXP)?;
        let nbf = match payload.find("nbf") {
            None => 0.0,
            Some(nbf) => seconds(nbf).ok_or(TokenError::Claims("nbf must be a number of seconds since 1970"))?,
        };
        let iat = payload.find("iat").and_then(seconds).unwrap_or_default();
        let ahead = [
            (exp, "exp lies more than ten years ahead: it is a number of seconds since 1970, not milliseconds"),
            (nbf, "nbf lies more than ten years ahead: it is a number of seconds since 1970, not milliseconds"),
            (iat, "iat lies more than ten years ahead: it is a number of seconds since 1970, not milliseconds"),
        ];
        if let Some((_, what)) = ahead.into_iter().find(|(time, _)| *time > now_s + f64::from(AHEAD_S_MAX)) {
            return Err(TokenError::Claims(what));
        }
        if exp + leeway_s <= now_s {
            return Err(TokenError::Expired);
        }
        if nbf - leeway_s > now_s {
            return Err(TokenError::NotYet);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float's `as` ends at the bounds"
        )]
        // 0 would mean never.
        Ok((exp as u32).max(1))
    }

    fn check_parties(&self, payload: &Object<'_>) -> Result<(), TokenError> {
        if !self.audience.is_empty() {
            let is_named = |aud: &RawValue| match text(aud) {
                Some(one) => one == self.audience.as_str(),
                None => texts(aud).is_some_and(|all| all.iter().any(|one| *one == self.audience.as_str())),
            };
            if !payload.find("aud").is_some_and(is_named) {
                return Err(TokenError::Audience);
            }
        }
        if !self.issuer.is_empty() && payload.find("iss").and_then(text).is_none_or(|iss| iss != self.issuer.as_str()) {
            return Err(TokenError::Issuer);
        }
        Ok(())
    }
}

fn optional(payload: &Object<'_>, name: &str, form: &'static str) -> Result<Option<Box<str>>, TokenError> {
    let Some(value) = payload.find(name) else { return Ok(None) };
    text(value).map(|text| Some(text.into())).ok_or(TokenError::Claims(form))
}

fn required(payload: &Object<'_>, name: &str, form: &'static str) -> Result<Box<str>, TokenError> {
    optional(payload, name, form)?.ok_or(TokenError::Claims(form))
}

fn attributes(payload: &Object<'_>) -> Result<Attributes, TokenError> {
    const FORM: TokenError =
        TokenError::Claims("attrs must be an object of strings: at most 16, names and values together at most 1 KiB");
    let Some(value) = payload.find("attrs") else { return Ok(Attributes::default()) };
    let members = Object::parse(value.get().as_bytes()).ok_or(FORM)?.into_members();
    let pairs = members.into_iter().map(|(name, value)| Some((name, text(value)?))).collect::<Option<Vec<_>>>();
    Attributes::of(&pairs.ok_or(FORM)?).ok_or(FORM)
}

fn grant(payload: &Object<'_>) -> Result<Grant, TokenError> {
    const FORM: TokenError = TokenError::Claims(
        "rooms, speak, presence, members, users and routes must be lists of at most 32 patterns of at most 128 bytes",
    );
    let mut grant = Grant::default();
    for act in Act::ALL {
        let claim = match (payload.find(act.claim()), act) {
            (Some(value), _) => Some(value),
            // Who may come into a room may see how many are there, unless the token says otherwise.
            (None, Act::See) => payload.find(Act::Join.claim()),
            (None, _) => None,
        };
        let Some(value) = claim else { continue };
        let patterns = texts(value).ok_or(FORM)?;
        if !grant.add(act, &patterns) {
            return Err(FORM);
        }
    }
    Ok(grant)
}

fn join(payload: &Object<'_>, user: &str) -> Result<Vec<Box<str>>, TokenError> {
    const FORM: TokenError =
        TokenError::Claims("join must be a list of at most 32 rooms, each 1 to 128 bytes, {sub} for the user's name");
    let Some(value) = payload.find("join") else { return Ok(Vec::new()) };
    let rooms = texts(value).filter(|rooms| rooms.len() <= PATTERNS_MAX).ok_or(FORM)?;
    let room = |room: &str| {
        let name = (room.len() <= PATTERN_BYTES_MAX).then(|| room.replace("{sub}", user))?;
        is_valid_name(&name).then(|| name.into_boxed_str())
    };
    rooms.iter().map(|name| room(name)).collect::<Option<Vec<_>>>().ok_or(FORM)
}

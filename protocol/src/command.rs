//! COMMAND: what a business service asks of an agent, and the id by which its REPLY finds the way back (rule S-3).
//! The id names the logic node that waits, so that a gateway can hand the reply to that one, and holds 64 random bits, so that
//! nobody can answer a command that did not get it. What a reply may be is the logic tier's business.

use std::fmt;
use std::str::FromStr;

use crate::reply::write_string;

/// Three numbers of 16 hexadecimal digits.
const TEXT_LEN: usize = 48;

/// Which command.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommandId {
    /// The logic process that waits for the reply.
    pub logic: u64,
    /// Its how-manieth command.
    pub number: u64,
    /// From the system's random source: who does not know it cannot reply.
    pub secret: u64,
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}{:016x}", self.logic, self.number, self.secret)
    }
}

/// Without the secret, so that no log has it.
impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandId({:016x}-{})", self.logic, self.number)
    }
}

/// Text that is no command id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a command id is {TEXT_LEN} hexadecimal digits, as COMMAND gives it")]
pub struct CommandIdError;

impl FromStr for CommandId {
    type Err = CommandIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `from_str_radix` would take a sign.
        if text.len() != TEXT_LEN || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(CommandIdError);
        }
        let part = |i: usize| u64::from_str_radix(&text[16 * i..16 * (i + 1)], 16).map_err(|_| CommandIdError);
        Ok(Self { logic: part(0)?, number: part(1)?, secret: part(2)? })
    }
}

/// The whole message. `data` is a JSON value.
#[must_use]
pub fn message(id: CommandId, command: &str, data: &str, deadline_ms: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(command.len() + data.len() + 160);
    out.extend_from_slice(format!(r#"{{"type":"COMMAND","id":"{id}","data":{{"command":"#).as_bytes());
    write_string(&mut out, command);
    out.extend_from_slice(br#","data":"#);
    out.extend_from_slice(data.as_bytes());
    out.extend_from_slice(format!(r#","deadline_ms":{deadline_ms}}}}}"#).as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: CommandId = CommandId { logic: 0xfedc_ba98_7654_3210, number: 7, secret: u64::MAX };

    #[test]
    fn text_of_an_id_reads_back_and_its_debug_text_keeps_the_secret() {
        let text = ID.to_string();

        assert_eq!(text.parse(), Ok(ID));
        assert!(!format!("{ID:?}").contains("ffff"), "{ID:?}");
        for bad in ["", "7", &text[1..], &text.to_uppercase(), &text.replacen("fedc", "+edc", 1), &"é".repeat(24)] {
            assert_eq!(bad.parse::<CommandId>(), Err(CommandIdError), "{bad}");
        }
    }

    /// Rule S-3.
    #[test]
    fn a_command_is_json_with_its_id_name_data_and_deadline() {
        let text = message(ID, "say \"hi\"", r#"{"a": 1}"#, 5_000);

        let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!((&json["type"], &json["id"]), (&"COMMAND".into(), &ID.to_string().into()));
        let data = serde_json::json!({"command": "say \"hi\"", "data": {"a": 1}, "deadline_ms": 5000});
        assert_eq!(json["data"], data);
    }
}

//! COMMAND: what a business service asks of an agent (rule S-3). It goes out as a ready-made message of a push record.
//! Its id is a [`CommandId`]; what a reply may be is the logic tier's business.

use crate::ids::CommandId;
use crate::json::write_string;

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

    /// Rule S-3.
    #[test]
    fn a_command_is_json_with_its_id_name_data_and_deadline() {
        let id = CommandId { logic: u64::MAX, number: 7, secret: 1 };

        let text = message(id, "say \"hi\"", r#"{"a": 1}"#, 5_000);

        let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!((&json["type"], &json["id"]), (&"COMMAND".into(), &id.to_string().into()));
        let data = serde_json::json!({"command": "say \"hi\"", "data": {"a": 1}, "deadline_ms": 5000});
        assert_eq!(json["data"], data);
    }
}

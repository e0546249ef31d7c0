//! What is known of a command that has no good answer. Plain values; `agents` fills them in.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// What is known of a command that has no good answer: the member `command` of the problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CommandKnown)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// Connections it was sent to.
    pub delivered: u64,
    /// Whether someone of its target is connected now.
    pub connected: bool,
    /// How long it took.
    pub took_ms: u64,
    /// The agent's error.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_written")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub reply: Option<String>,
}

fn as_written<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let raw = text.as_deref().and_then(|text| tidegate_protocol::json::from_str::<&RawValue>(text).ok());
    raw.serialize(serializer)
}

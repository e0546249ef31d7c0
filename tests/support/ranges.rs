//! What one client saw of a room's numbering: pushed ranges, gaps, and whether they add up (rules M-2 and M-3).

use serde_json::Value;

/// Ranges in the order they came; checks that numbers only grow and that nothing is skipped in silence.
#[derive(Debug)]
pub struct Ranges {
    /// Whose numbering; what is for others is passed over.
    room: String,
    /// Last number accounted for.
    last: u64,
    /// Messages received.
    pub received: u64,
    /// Messages named by gaps.
    pub missing: u64,
    /// GAP frames.
    pub gaps: u64,
}

impl Ranges {
    /// Numbers after the one that this part of a JOINED states.
    pub fn after(joined: &Value) -> Self {
        let room = joined["room"].as_str().expect("JOINED names the room (rule R-1)").to_owned();
        let last = joined["seq"].as_u64().expect("JOINED says where the numbering stands (rule R-1)");
        Self { room, last, received: 0, missing: 0, gaps: 0 }
    }

    /// The last number accounted for.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Takes one text of the server's; says whether it was about this room.
    pub fn take(&mut self, text: &str) -> bool {
        let start = &text[..text.floor_char_boundary(120)];
        let Some(Numbers { room, from, to, is_gap }) = numbers(text) else { return false };
        if room != self.room {
            return false;
        }
        assert_eq!(from, self.last + 1, "nothing is skipped or repeated (rule M-2): {start}");
        assert!(to >= from, "a range grows: {start}");
        self.last = to;
        if is_gap {
            self.missing += to + 1 - from;
            self.gaps += 1;
        } else {
            self.received += to + 1 - from;
        }
        true
    }
}

/// What a PUSH or GAP of a room says of its numbers.
struct Numbers {
    room: String,
    from: u64,
    to: u64,
    is_gap: bool,
}

/// Reads them without parsing the items: a slow client's texts are megabytes.
fn numbers(text: &str) -> Option<Numbers> {
    let is_gap = text.starts_with(r#"{"type":"GAP""#);
    let head = match text.find(r#","items":["#) {
        Some(items) if !is_gap => format!("{}}}}}", &text[..items]),
        _ if is_gap => text.to_owned(),
        _ => return None,
    };
    let message: Value = serde_json::from_str(&head).ok()?;
    let data = &message["data"];
    let (from, to) = if is_gap { (&data["from"], &data["to"]) } else { (&data["seq"][0], &data["seq"][1]) };
    Some(Numbers { room: data["room"].as_str()?.to_owned(), from: from.as_u64()?, to: to.as_u64()?, is_gap })
}

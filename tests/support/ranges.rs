//! What one client saw of a room's numbering: pushed ranges, gaps, and whether they add up (rules M-2 and M-3).

use serde_json::Value;

/// Ranges in the order they came; checks that numbers only grow and that nothing is skipped in silence.
#[derive(Debug, Default)]
pub struct Ranges {
    /// Last number accounted for.
    last: Option<u64>,
    /// Messages received.
    pub received: u64,
    /// Messages named by gaps.
    pub missing: u64,
    /// GAP frames.
    pub gaps: u64,
}

impl Ranges {
    /// Numbers after `seq`, as JOINED states it.
    pub fn after(seq: u64) -> Self {
        Self { last: Some(seq), ..Self::default() }
    }

    /// The last number accounted for.
    pub fn last(&self) -> u64 {
        self.last.unwrap_or_default()
    }

    /// Takes one text of the server's; says whether it was a PUSH or GAP with numbers.
    pub fn take(&mut self, text: &str) -> bool {
        let Some((from, to)) = numbers(text) else { return false };
        if let Some(last) = self.last {
            assert_eq!(from, last + 1, "after {last} comes {}, not {}", last + 1, &text[..text.len().min(120)]);
        }
        assert!(to >= from, "a range grows: {}", &text[..text.len().min(120)]);
        self.last = Some(to);
        if text.starts_with(r#"{"type":"GAP""#) {
            self.missing += to + 1 - from;
            self.gaps += 1;
        } else {
            self.received += to + 1 - from;
        }
        true
    }
}

/// `seq` of a PUSH or `from`, `to` of a GAP, without parsing the items: a slow test's texts are megabytes.
pub fn numbers(text: &str) -> Option<(u64, u64)> {
    if text.starts_with(r#"{"type":"GAP""#) {
        let gap: Value = serde_json::from_str(text).ok()?;
        return Some((gap["data"]["from"].as_u64()?, gap["data"]["to"].as_u64()?));
    }
    let head = &text[..text.find(r#""items":["#)?];
    let numbers = &head[head.find(r#""seq":["#)? + 7..];
    let (first, last) = numbers[..numbers.find(']')?].split_once(',')?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

//! What one server message means to the checker: parsed once per distinct message, applied to every client.
//! Knows nothing of clients (see `ledger`) or of bytes on sockets (see `assembly`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::message::Stamp;

#[derive(Debug, PartialEq)]
pub enum Content {
    Push(Push),
    Gap(Gap),
    /// How to space attempts to come back.
    Hello(Advice),
    /// A close is near; come back after a delay between these two, in milliseconds.
    Goaway(u64, u64),
    /// Rooms that were refused.
    Joined(Vec<String>),
    /// The server asks, in its own words, whether the client lives.
    Probe,
    /// Nothing a client acts upon.
    Aside,
    /// Any other type, by name.
    Other(String),
    /// Not a message of the protocol: why.
    Invalid(String),
}

/// Messages of one frame.
#[derive(Debug, Default, PartialEq)]
pub struct Push {
    pub room: Option<Box<str>>,
    /// First and last number within the room.
    pub seq: Option<(u64, u64)>,
    /// Per publisher, in order: unbroken ascending runs. A frame in order has one per publisher.
    pub runs: Vec<Run>,
    /// When each message was due, for the latency of sampled clients.
    pub intended_ns: Vec<u64>,
    /// Items that no publisher of this harness sent.
    pub foreign: u32,
    /// The same frame also asks whether the client lives.
    pub probes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub publisher: u32,
    pub first: u32,
    pub last: u32,
}

/// HELLO's `reconnect`: first and longest delay, and the part of each that is left to chance.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Advice {
    pub base_ms: f64,
    pub max_ms: f64,
    pub jitter: f64,
}

/// What a client does whose server says nothing: the protocol's defaults.
impl Default for Advice {
    fn default() -> Self {
        Self { base_ms: 500.0, max_ms: 20_000.0, jitter: 0.5 }
    }
}

/// What the server says is missing.
#[derive(Debug, PartialEq, Eq)]
pub struct Gap {
    pub room: Option<Box<str>>,
    pub from: u64,
    pub to: u64,
    pub reason: Box<str>,
}

impl Push {
    /// Adds the messages of a frame in their order.
    pub fn gather<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) {
        // Index of each publisher's open run.
        let mut open: BTreeMap<u32, usize> = BTreeMap::new();
        for message in messages {
            let Ok(stamp) = serde_json::from_slice::<Stamp>(message) else {
                self.foreign += 1;
                continue;
            };
            self.intended_ns.push(stamp.intended_ns);
            match open.get(&stamp.publisher).and_then(|index| self.runs.get_mut(*index)) {
                Some(run) if run.last.checked_add(1) == Some(stamp.sequence) => run.last = stamp.sequence,
                _ => {
                    open.insert(stamp.publisher, self.runs.len());
                    self.runs.push(Run { publisher: stamp.publisher, first: stamp.sequence, last: stamp.sequence });
                }
            }
        }
    }

    pub fn messages(&self) -> u32 {
        self.intended_ns.len() as u32 + self.foreign
    }
}

impl Gap {
    pub fn messages(&self) -> u64 {
        (self.to + 1).saturating_sub(self.from)
    }
}

/// A frame's messages. What no publisher of ours sent would count as a delivery, so it is named instead.
pub fn messages<'m>(messages: impl Iterator<Item = &'m [u8]>, probes: bool) -> Content {
    let mut push = Push { probes, ..Push::default() };
    push.gather(messages);
    if push.foreign > 0 { Content::Other("a message that nobody sent".to_owned()) } else { Content::Push(push) }
}

/// A frame that is one message and nothing else.
pub fn bare(payload: &[u8]) -> Content {
    messages(std::iter::once(payload), false)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PushData<'a> {
    #[serde(borrow)]
    room: Option<Cow<'a, str>>,
    seq: Option<(u64, u64)>,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct GapData {
    room: Option<Box<str>>,
    from: u64,
    to: u64,
    reason: Box<str>,
}

#[derive(Deserialize)]
struct HelloData {
    #[serde(default)]
    reconnect: Advice,
}

#[derive(Deserialize)]
struct GoawayData {
    reconnect_after_ms: (u64, u64),
}

#[derive(Deserialize)]
struct JoinedData {
    rooms: Vec<JoinedRoom>,
}

#[derive(Deserialize)]
struct JoinedRoom {
    room: String,
    error: Option<serde::de::IgnoredAny>,
}

impl Content {
    pub fn parse(payload: &[u8]) -> Self {
        Self::try_parse(payload).unwrap_or_else(|error| Self::Invalid(error.to_string()))
    }

    fn try_parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        let envelope: Envelope = serde_json::from_slice(payload)?;
        let data = envelope.data.map_or("{}", RawValue::get);
        Ok(match &*envelope.kind {
            "PUSH" => match parse_push(data)? {
                Ok(push) => Self::Push(push),
                Err(fault) => Self::Invalid(fault),
            },
            "GAP" => {
                let GapData { room, from, to, reason } = serde_json::from_str(data)?;
                Self::Gap(Gap { room, from, to, reason })
            }
            "HELLO" => Self::Hello(serde_json::from_str::<HelloData>(data)?.reconnect),
            "GOAWAY" => {
                let (from, to) = serde_json::from_str::<GoawayData>(data)?.reconnect_after_ms;
                Self::Goaway(from, to)
            }
            "JOINED" => {
                let joined: JoinedData = serde_json::from_str(data)?;
                Self::Joined(joined.rooms.into_iter().filter(|r| r.error.is_some()).map(|r| r.room).collect())
            }
            other => Self::Other(other.to_owned()),
        })
    }
}

fn parse_push(data: &str) -> Result<Result<Push, String>, serde_json::Error> {
    let data: PushData = serde_json::from_str(data)?;
    let mut push = Push { room: data.room.map(|room| room.into()), seq: data.seq, ..Push::default() };
    push.gather(data.items.iter().map(|item| item.get().as_bytes()));
    let messages = u64::from(push.messages());
    Ok(match push.seq {
        Some((first, last)) if (last + 1).checked_sub(first) != Some(messages) => {
            Err(format!("seq [{first},{last}] does not fit {messages} items"))
        }
        _ => Ok(push),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(items: &str) -> Push {
        match Content::parse(format!(r#"{{"type":"PUSH","data":{{"items":[{items}]}}}}"#).as_bytes()) {
            Content::Push(push) => push,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_in_order_are_one_run_per_publisher() {
        let push = push(r#"{"p":1,"n":4,"t":9},{"p":2,"n":0,"t":9},{"p":1,"n":5,"t":9},{"hello":"world"},7"#);

        let expected = [Run { publisher: 1, first: 4, last: 5 }, Run { publisher: 2, first: 0, last: 0 }];
        assert_eq!(push.runs, expected);
        assert_eq!((push.messages(), push.foreign), (5, 2));
    }

    #[test]
    fn a_message_out_of_order_breaks_the_run() {
        let push = push(r#"{"p":1,"n":4,"t":9},{"p":1,"n":6,"t":9},{"p":1,"n":5,"t":9}"#);

        assert_eq!(push.runs.len(), 3);
    }

    #[test]
    fn a_gap_counts_both_its_ends() {
        let wire = br#"{"type":"GAP","data":{"room":"r","from":5,"to":7,"reason":"slow"}}"#;

        let Content::Gap(gap) = Content::parse(wire) else { panic!("not a gap") };

        assert_eq!((gap.messages(), &*gap.reason, gap.room.as_deref()), (3, "slow", Some("r")));
    }

    #[test]
    fn numbers_that_do_not_fit_the_items_are_invalid() {
        let wire = br#"{"type":"PUSH","data":{"room":"r","epoch":1,"seq":[5,7],"items":[1,2]}}"#;

        assert!(matches!(Content::parse(wire), Content::Invalid(_)));
    }

    #[test]
    fn what_the_server_says_of_coming_back_is_read() {
        let hello = br#"{"type":"HELLO","data":{"reconnect":{"base_ms":500,"max_ms":20000,"jitter":0.50}}}"#;
        let goaway = br#"{"type":"GOAWAY","data":{"reason":"draining","reconnect_after_ms":[0,3000]}}"#;

        let advice = Advice { base_ms: 500.0, max_ms: 20_000.0, jitter: 0.5 };
        assert_eq!(Content::parse(hello), Content::Hello(advice));
        assert_eq!(Content::parse(goaway), Content::Goaway(0, 3_000));
    }

    #[test]
    fn a_refused_room_is_named() {
        let wire = br#"{"type":"JOINED","id":1,"data":{"rooms":[{"room":"a"},{"room":"b","error":{"code":"limit"}}]}}"#;

        assert_eq!(Content::parse(wire), Content::Joined(vec!["b".to_owned()]));
    }
}

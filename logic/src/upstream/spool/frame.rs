//! How messages, dead letters and the stock lie in a spool: each carries its own mark, length and checksum, so that it can be
//! judged, and found in a file that nothing else can be read of (ADR 28). Pure. Invariant: no line holds a mark, since lines
//! are UTF-8 and the first byte of a mark never occurs in that.

use bytes::Bytes;

/// Begins every frame, before its kind.
pub const MARK: [u8; 3] = [0xff, 0xfe, b'T'];
/// Mark and kind, checksum, length of the rest.
pub const HEAD: usize = 12;
/// What a message's frame has before its line.
pub const MESSAGE_HEAD: usize = HEAD + NAME + 12;
/// Era and number, which every kind begins with.
const NAME: usize = 12;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number in the spool.
    pub number: u64,
    /// Decides its lane.
    pub shard: u32,
    /// When it was accepted, Unix milliseconds.
    pub taken_ms: u64,
    /// Without its end.
    pub line: Bytes,
}

/// A message nobody could deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// The message.
    pub message: Stored,
    /// When it was given up, Unix milliseconds.
    pub died_ms: u64,
    /// How often it was sent in vain.
    pub attempts: u32,
    /// Why, in a word or two.
    pub reason: String,
}

/// What a spool holds, as of a commit: tells which of the frames in a damaged file still count, and how many are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// Commits so far.
    pub commits: u64,
    /// Grows with each start: of two frames with one number that of the later era counts.
    pub era: u32,
    /// Frames of messages from before it are leftovers.
    pub era_min: u32,
    /// The next number that nobody has.
    pub next: u64,
    /// Messages.
    pub waiting: u64,
    /// Dead letters.
    pub dead: u64,
    /// For each lane the number up to which its messages are delivered or given up.
    pub done: Vec<u64>,
}

/// What a frame can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Message(Stored),
    /// A dead letter.
    Dead(Dead),
    /// The stock; its number is that of the commit.
    Stock(Stock),
}

/// What is in a frame, as a byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// See [`Frame::Message`].
    Message = 1,
    /// See [`Frame::Dead`].
    Dead = 2,
    /// See [`Frame::Stock`].
    Stock = 3,
}

/// The frame of a message.
#[must_use]
pub fn of_message(message: &Stored, era: u32) -> Vec<u8> {
    let mut out = begin(Kind::Message, era, message.number, 12 + message.line.len());
    out.extend(message.shard.to_le_bytes());
    out.extend(message.taken_ms.to_le_bytes());
    out.extend(&message.line);
    seal(out)
}

/// The frame of a dead letter.
#[must_use]
pub fn of_dead(dead: &Dead, era: u32) -> Vec<u8> {
    let reason = &dead.reason.as_bytes()[..dead.reason.len().min(255)];
    let mut out = begin(Kind::Dead, era, dead.message.number, 25 + reason.len() + dead.message.line.len());
    dead_body(dead, reason, &mut out);
    seal(out)
}

fn dead_body(dead: &Dead, reason: &[u8], out: &mut Vec<u8>) {
    out.extend(dead.message.shard.to_le_bytes());
    out.extend(dead.message.taken_ms.to_le_bytes());
    out.extend(dead.died_ms.to_le_bytes());
    out.extend(dead.attempts.to_le_bytes());
    out.push(u8::try_from(reason.len()).unwrap_or(u8::MAX));
    out.extend(reason);
    out.extend(&dead.message.line);
}

/// The frame of the stock.
#[must_use]
pub fn of_stock(stock: &Stock) -> Vec<u8> {
    let mut out = begin(Kind::Stock, stock.era, stock.commits, 28 + 8 * stock.done.len());
    out.extend(stock.era_min.to_le_bytes());
    for n in [stock.next, stock.waiting, stock.dead].iter().chain(&stock.done) {
        out.extend(n.to_le_bytes());
    }
    seal(out)
}

fn begin(kind: Kind, era: u32, number: u64, size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + NAME + size);
    out.extend(MARK);
    out.push(kind as u8);
    // Checksum and length, filled in by `seal`.
    out.extend([0; 8]);
    out.extend(era.to_le_bytes());
    out.extend(number.to_le_bytes());
    out
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(out.len() - HEAD).unwrap_or(u32::MAX);
    out[8..HEAD].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(out[3], &out[8..]);
    out[4..8].copy_from_slice(&sum.to_le_bytes());
    out
}

fn checksum(kind: u8, rest: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&[kind]);
    sum.update(rest);
    sum.finalize()
}

/// Length of the frame that begins here, if its head is one; its checksum is for [`read`].
#[must_use]
pub fn length(head: &[u8]) -> Option<usize> {
    let is_marked = head.starts_with(&MARK);
    let rest: [u8; 4] = head.get(8..HEAD)?.try_into().ok()?;
    is_marked.then(|| HEAD.saturating_add(usize::try_from(u32::from_le_bytes(rest)).unwrap_or(usize::MAX)))
}

/// Reads a whole frame, with its era; none when anything in it is not as it was written.
#[must_use]
pub fn read(frame: &[u8]) -> Option<(u32, Frame)> {
    let sum: [u8; 4] = frame.get(4..8)?.try_into().ok()?;
    if length(frame)? != frame.len() || checksum(frame[3], &frame[8..]) != u32::from_le_bytes(sum) {
        return None;
    }
    let (era, rest) = frame.get(HEAD..)?.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (era, number) = (u32::from_le_bytes(*era), u64::from_le_bytes(*number));
    let read = match frame[3] {
        1 => Frame::Message(old_message(number, rest)?),
        2 => Frame::Dead(old_dead(number, rest)?),
        3 => Frame::Stock(stock(era, number, rest)?),
        _ => return None,
    };
    Some((era, read))
}

/// A message as it lay in spools without frames, which is also how it lies in one.
pub fn old_message(number: u64, value: &[u8]) -> Option<Stored> {
    let (shard, rest) = value.split_first_chunk()?;
    let (taken_ms, line) = rest.split_first_chunk()?;
    Some(Stored {
        number,
        shard: u32::from_le_bytes(*shard),
        taken_ms: u64::from_le_bytes(*taken_ms),
        line: Bytes::copy_from_slice(line),
    })
}

/// A dead letter likewise.
pub fn old_dead(number: u64, value: &[u8]) -> Option<Dead> {
    let (shard, rest) = value.split_first_chunk()?;
    let (taken_ms, rest) = rest.split_first_chunk()?;
    let (died_ms, rest) = rest.split_first_chunk()?;
    let (attempts, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first()?;
    let (reason, line) = rest.split_at_checked(usize::from(*length))?;
    Some(Dead {
        message: Stored {
            number,
            shard: u32::from_le_bytes(*shard),
            taken_ms: u64::from_le_bytes(*taken_ms),
            line: Bytes::copy_from_slice(line),
        },
        died_ms: u64::from_le_bytes(*died_ms),
        attempts: u32::from_le_bytes(*attempts),
        reason: String::from_utf8_lossy(reason).into_owned(),
    })
}

fn stock(era: u32, commits: u64, rest: &[u8]) -> Option<Stock> {
    let (era_min, rest) = rest.split_first_chunk()?;
    let (numbers, rest) = rest.as_chunks::<8>();
    let [next, waiting, dead, done @ ..] = numbers else { return None };
    let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    rest.is_empty().then(|| Stock {
        commits,
        era,
        era_min: u32::from_le_bytes(*era_min),
        next: number(next),
        waiting: number(waiting),
        dead: number(dead),
        done: done.iter().map(number).collect(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Values as the releases before frames wrote them.
    pub fn old(dead: &Dead) -> (Vec<u8>, Vec<u8>) {
        let message = &dead.message;
        let first = [&message.shard.to_le_bytes()[..], &message.taken_ms.to_le_bytes(), &message.line].concat();
        let mut second = Vec::new();
        dead_body(dead, dead.reason.as_bytes(), &mut second);
        (first, second)
    }

    #[test]
    fn a_frame_is_read_as_it_was_written_and_not_at_all_when_any_bit_of_it_is_another() {
        let message = Stored { number: 7, shard: 3, taken_ms: 99, line: Bytes::from_static(b"{\"id\":\"x\"}") };
        let dead = Dead { message: message.clone(), died_ms: 5, attempts: 2, reason: "status 400".into() };
        let stock = Stock { commits: 9, era: 4, era_min: 2, next: 8, waiting: 1, dead: 0, done: vec![1, 2] };
        let all = [
            (of_message(&message, 4), Frame::Message(message)),
            (of_dead(&dead, 4), Frame::Dead(dead)),
            (of_stock(&stock), Frame::Stock(stock)),
        ];
        for (bytes, frame) in all {
            assert_eq!((length(&bytes), read(&bytes)), (Some(bytes.len()), Some((4, frame))));
            for bit in 0..bytes.len() * 8 {
                let mut broken = bytes.clone();
                broken[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(read(&broken), None, "bit {bit}");
            }
            assert!((0..bytes.len()).all(|end| read(&bytes[..end]).is_none()));
        }
    }
}

//! What each start does to a spool before anything else: it begins an era, takes over what a release without frames has left,
//! puts messages into this start's lanes, and counts. One transaction. Invariant: no message changes its place within its user's.

use redb::{Database, ReadableTable as _, TableDefinition, WriteTransaction};

use super::frame::{self, Stock};
use super::{Found, LETTERS, LetterTable, MESSAGES, MessageTable, STOCK, lane_of, letter, message, newest, put_stock};

/// Spools without frames: (lane, number) → shard, time, line; number → shard, times, attempts, reason, line.
pub(super) const OLD_MESSAGES: TableDefinition<'_, (u16, u64), &[u8]> = TableDefinition::new("spool");
pub(super) const OLD_LETTERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead");
pub(super) const OLD_META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Begins this start's era: takes over spools without frames, puts messages of before into this start's lanes, and counts.
///
/// # Errors
/// What the disk says.
pub fn take_stock(database: &Database, lanes: u16) -> Result<(Stock, Found), redb::Error> {
    let transaction = database.begin_write()?;
    let mut found = Found { lanes: vec![(0, 0); usize::from(lanes)], ..Found::default() };
    let mut table = transaction.open_table(STOCK)?;
    let mut stock = newest(&table)?.unwrap_or_else(|| Stock { next: 1, ..Stock::default() });
    (stock.commits, stock.era) = (stock.commits + 1, stock.era + 1);
    {
        let mut messages = transaction.open_table(MESSAGES)?;
        let mut letters = transaction.open_table(LETTERS)?;
        if stock.done.len() != usize::from(lanes) {
            // Where they were delivered up to says nothing about other lanes.
            (stock.done, stock.era_min) = (vec![0; usize::from(lanes)], stock.era);
            relane(&mut messages, lanes, stock.era)?;
        }
        adopt(&transaction, &mut messages, &mut letters, &mut stock)?;
        for entry in messages.iter()? {
            let (key, value) = entry?;
            let (lane, number) = key.value();
            let Some(message) = message(number, value.value()) else { continue };
            found.waiting.add(&message);
            *found.waiting_of.entry(message.shard).or_default() += message.weight();
            if let Some((count, last)) = found.lanes.get_mut(usize::from(lane)) {
                *count += 1;
                *last = number;
            }
        }
        for entry in letters.iter()? {
            let (key, value) = entry?;
            if let Some(dead) = letter(key.value(), value.value()) {
                found.dead.add(&dead.message);
                found.graves.push(dead.grave());
            }
        }
    }
    (stock.waiting, stock.dead, found.next) = (found.waiting.messages, found.dead.messages, stock.next);
    put_stock(&mut table, &stock)?;
    drop(table);
    transaction.commit()?;
    Ok((stock, found))
}

/// Messages and letters of a release before frames, behind all others: their numbers may be taken.
fn adopt(
    transaction: &WriteTransaction,
    messages: &mut MessageTable<'_>,
    letters: &mut LetterTable<'_>,
    stock: &mut Stock,
) -> Result<(), redb::Error> {
    let (lanes, era) = (u16::try_from(stock.done.len()).unwrap_or(u16::MAX), stock.era);
    let mut number = || {
        stock.next += 1;
        stock.next - 1
    };
    let old = transaction.open_table(OLD_MESSAGES)?;
    let keys = old.iter()?.map(|entry| entry.map(|(key, _)| key.value())).collect::<Result<Vec<_>, _>>();
    let mut keys = keys?;
    keys.sort_unstable_by_key(|(_, number)| *number);
    for key in keys {
        let Some(value) = old.get(key)? else { continue };
        let Some(message) = frame::old_message(number(), value.value()) else { continue };
        let key = (lane_of(message.shard, lanes), message.number);
        messages.insert(key, frame::of_message(&message, era).as_slice())?;
    }
    drop(old);
    for entry in transaction.open_table(OLD_LETTERS)?.iter()? {
        let (_, value) = entry?;
        let Some(dead) = frame::old_dead(number(), value.value()) else { continue };
        letters.insert(dead.message.number, frame::of_dead(&dead, era).as_slice())?;
    }
    transaction.delete_table(OLD_MESSAGES)?;
    transaction.delete_table(OLD_LETTERS)?;
    transaction.delete_table(OLD_META)?;
    Ok(())
}

/// The number of lanes has changed: each message goes to the lane it has now, in its order.
fn relane(messages: &mut MessageTable<'_>, lanes: u16, era: u32) -> Result<(), redb::Error> {
    let keys: Vec<(u16, u64)> =
        messages.iter()?.map(|entry| entry.map(|(key, _)| key.value())).collect::<Result<_, _>>()?;
    for key in keys {
        let found = messages.remove(key)?.and_then(|value| message(key.1, value.value()));
        if let Some(message) = found {
            let key = (lane_of(message.shard, lanes), message.number);
            messages.insert(key, frame::of_message(&message, era).as_slice())?;
        }
    }
    Ok(())
}

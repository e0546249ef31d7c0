//! Pages over several gateways: the merge of lists that each gateway sorts by name.
//! Pure. Invariants: a page ends before the first name that some gateway has not told yet; walking the cursors shows
//! every row that was there all the time exactly once.

/// One gateway's page: rows sorted by name, and whether it has more.
pub struct Page {
    /// (name, count), ascending by name.
    pub rows: Vec<(String, u64)>,
    /// Whether rows follow.
    pub has_more: bool,
}

/// Merges pages that all begin after the same name. Counts of one name are added up.
/// Returns at most `limit` rows, and the name to go on after when there are more.
#[must_use]
pub fn merge(pages: Vec<Page>, limit: usize) -> (Vec<(String, u64)>, Option<String>) {
    // Past the last row of an unfinished page, that gateway may have names we have not seen.
    let horizon = pages.iter().filter(|p| p.has_more).filter_map(|p| p.rows.last()).map(|r| r.0.clone()).min();
    let mut rows: Vec<(String, u64)> = pages.into_iter().flat_map(|p| p.rows).collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.dedup_by(|later, kept| {
        let is_same = later.0 == kept.0;
        if is_same {
            kept.1 += later.1;
        }
        is_same
    });
    let mut is_cut = horizon.is_some();
    if let Some(horizon) = horizon {
        rows.retain(|row| row.0 <= horizon);
    }
    is_cut |= rows.len() > limit;
    rows.truncate(limit);
    let next = if is_cut { rows.last().map(|row| row.0.clone()) } else { None };
    (rows, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Gateways with any rooms, any page size: walking shows every room once, in order, with its sum.
        #[test]
        fn walking_the_pages_shows_every_name_once(
            gateways in proptest::collection::vec(proptest::collection::btree_map("[a-d]{1,3}", 1u64..5, 0..30), 1..5),
            limit in 1usize..7,
        ) {
            let mut whole: BTreeMap<String, u64> = BTreeMap::new();
            for (name, n) in gateways.iter().flatten() {
                *whole.entry(name.clone()).or_default() += n;
            }
            let (mut walked, mut after) = (Vec::new(), String::new());
            loop {
                let page = |rooms: &BTreeMap<String, u64>| {
                    let mut rows: Vec<_> = rooms.iter().filter(|r| *r.0 > after).map(|r| (r.0.clone(), *r.1)).collect();
                    let has_more = rows.len() > limit;
                    rows.truncate(limit);
                    Page { rows, has_more }
                };
                let (rows, next) = merge(gateways.iter().map(page).collect(), limit);
                prop_assert!(rows.len() <= limit);
                walked.extend(rows);
                match next {
                    Some(name) => after = name,
                    None => break,
                }
            }
            prop_assert_eq!(walked, whole.into_iter().collect::<Vec<_>>());
        }
    }
}

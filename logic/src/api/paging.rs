//! Pages over several gateways: opaque cursors, and the merge of lists that each gateway sorts by name.
//! Pure. Invariants: a page ends before the first name that some gateway has not told yet; walking the cursors shows
//! every row that was there all the time exactly once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::problem::Refusal;

/// Where the next page of connections begins: gateways are walked one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Position of the gateway in the configuration.
    pub gateway: usize,
    /// The gateway epoch that `inner` belongs to.
    pub epoch: u64,
    /// The gateway's own cursor.
    pub inner: String,
}

impl Place {
    /// As the caller sees it.
    #[must_use]
    pub fn encode(&self) -> String {
        encode(&format!("{}:{}:{}", self.gateway, self.epoch, self.inner))
    }

    /// Reads what [`Place::encode`] wrote.
    ///
    /// # Errors
    /// [`Refusal::BadParameter`].
    pub fn decode(cursor: &str) -> Result<Self, Refusal> {
        let text = decode(cursor)?;
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or_else(bad_cursor);
        let (gateway, epoch, inner) = (part()?, part()?, part()?);
        Ok(Self {
            gateway: gateway.parse().map_err(|_| bad_cursor())?,
            epoch: epoch.parse().map_err(|_| bad_cursor())?,
            inner: inner.to_owned(),
        })
    }
}

/// Makes text opaque and safe in a URL.
#[must_use]
pub fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// The reverse of [`encode`].
///
/// # Errors
/// [`Refusal::BadParameter`].
pub fn decode(cursor: &str) -> Result<String, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad_cursor())?;
    // No page makes an empty one: whoever sends it has lost theirs and would walk in circles.
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty()).ok_or_else(bad_cursor)
}

fn bad_cursor() -> Refusal {
    Refusal::BadParameter { name: "cursor", expected: "the cursor of the page before".into() }
}

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

    #[test]
    fn a_place_reads_back_and_nonsense_does_not() {
        let place = Place { gateway: 3, epoch: 1_700_000_000_000, inner: "7:x".into() };

        assert_eq!(Place::decode(&place.encode()), Ok(place));
        for bad in ["", "%", "AAAA", &encode("1:2"), &encode("x:2:")] {
            assert!(Place::decode(bad).is_err(), "{bad}");
        }
        assert!(decode("").is_err());
    }

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

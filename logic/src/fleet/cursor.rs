//! Opaque cursors: where the next page of a list over all gateways begins. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::problem::Refusal;

/// Where the next page of connections begins: gateways are walked one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The gateway's place, or the first one after it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_and_nonsense_does_not() {
        let place = Place { gateway: 3, epoch: 1_700_000_000_000, inner: "7:x".into() };

        assert_eq!(Place::decode(&place.encode()), Ok(place));
        for bad in ["", "%", "AAAA", &encode("1:2"), &encode("x:2:")] {
            assert!(Place::decode(bad).is_err(), "{bad}");
        }
        assert!(decode("").is_err());
    }
}

//! A count in equal parts: clients among threads and processes, messages among publishers.

/// `count` in up to `parts` equal shares, none of them empty.
pub fn shares(count: u64, parts: u64) -> impl Iterator<Item = u64> {
    let parts = parts.clamp(1, count.max(1));
    (0..parts).map(move |part| count / parts + u64::from(part < count % parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_differ_by_at_most_one_and_add_up() {
        assert_eq!(shares(10, 3).collect::<Vec<_>>(), [4, 3, 3]);
        assert_eq!(shares(2, 5).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(shares(0, 2).sum::<u64>(), 0);
    }
}

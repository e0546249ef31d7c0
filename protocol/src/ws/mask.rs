//! Unmasking of client payloads (RFC 6455 section 5.3). Hot path: every inbound byte passes here once.
//! Invariant: masking twice with the same key and offset gives the bytes back.

/// XORs `payload` with `mask` in place; `offset` is how many bytes of the same frame came before `payload`.
///
/// Eight bytes at a time, which the compiler turns into vector instructions without unsafe code.
pub fn unmask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut key = [0u8; 8];
    for (i, k) in key.iter_mut().enumerate() {
        *k = mask[(offset + i) % 4];
    }
    let wide = u64::from_ne_bytes(key);

    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    // A word is two turns of the key, so the tail begins where the key begins.
    for (byte, k) in tail.iter_mut().zip(key) {
        *byte ^= k;
    }
}

#[cfg(test)]
mod tests {
    use super::unmask;

    #[test]
    fn unmasking_is_the_xor_of_the_rfc_at_every_length_and_offset() {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        for len in 0..70 {
            for offset in 0..9 {
                let masked: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
                let expected: Vec<u8> = masked.iter().enumerate().map(|(i, b)| b ^ mask[(i + offset) % 4]).collect();

                let mut payload = masked;
                unmask(&mut payload, mask, offset);

                assert_eq!(payload, expected, "length {len}, offset {offset}");
            }
        }
    }

    /// The example of RFC 6455 section 5.7.
    #[test]
    fn the_masked_hello_of_the_rfc_reads_hello() {
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];

        unmask(&mut payload, [0x37, 0xfa, 0x21, 0x3d], 0);

        assert_eq!(&payload, b"Hello");
    }
}

//! The hash slot of a key, which says which node of a cluster has it:
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>.

const SLOTS: u16 = 16384;

/// The slot of a key, or of the part of it between the first braces.
pub fn of(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(key).as_bytes()) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_slot_is_the_checksum_of_the_key_or_its_hash_tag() {
        assert_eq!(super::crc16(b"123456789"), 0x31c3);
        assert_eq!(super::of("foo"), 12182);
        assert_eq!(super::of("{user1000}.following"), super::of("user1000"));
        assert_ne!(super::of("foo{}{bar}"), super::of("bar"));
    }
}

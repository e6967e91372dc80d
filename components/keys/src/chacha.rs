//! The step that makes XChaCha20 of ChaCha20, which the library does not have:
//! <https://datatracker.ietf.org/doc/html/draft-irtf-cfrg-xchacha-03#section-2.2>.

use zeroize::Zeroizing;

const ROUNDS: usize = 20;

/// A key for ChaCha20 from a key and the first part of a nonce.
pub fn subkey(key: &[u8; 32], nonce: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    let mut state = Zeroizing::new([0_u32; 16]);
    let constant = b"expand 32-byte k";
    let input = constant.iter().chain(key).chain(nonce);
    for (at, byte) in input.enumerate() {
        state[at / 4] |= u32::from(*byte) << (8 * (at % 4));
    }
    for _ in 0..ROUNDS / 2 {
        // Columns, then diagonals.
        for at in 0..4 {
            quarter(&mut state, [at, 4 + at, 8 + at, 12 + at]);
        }
        for at in 0..4 {
            let [b, c, d] = [(at + 1) % 4, (at + 2) % 4, (at + 3) % 4];
            quarter(&mut state, [at, 4 + b, 8 + c, 12 + d]);
        }
    }
    let mut subkey = Zeroizing::new([0; 32]);
    let words = state[..4].iter().chain(&state[12..]);
    for (into, word) in subkey.chunks_exact_mut(4).zip(words) {
        into.copy_from_slice(&word.to_le_bytes());
    }
    subkey
}

fn quarter(state: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    for (to, from, xored, bits) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        state[to] = state[to].wrapping_add(state[from]);
        state[xored] = (state[xored] ^ state[to]).rotate_left(bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of section 2.2.1.
    #[test]
    fn a_subkey_is_that_of_the_draft() {
        let key = std::array::from_fn(|at| at as u8);
        let nonce = [
            0x00, 0x00, 0x00, 0x09, 0x00, 0x00, 0x00, 0x4a, 0x00, 0x00, 0x00, 0x00, 0x31, 0x41,
            0x59, 0x27,
        ];
        let wanted = [
            0x82, 0x41, 0x3b, 0x42, 0x27, 0xb2, 0x7b, 0xfe, 0xd3, 0x0e, 0x42, 0x50, 0x8a, 0x87,
            0x7d, 0x73, 0xa0, 0xf9, 0xe4, 0xd5, 0x8a, 0x74, 0xa8, 0x53, 0xc1, 0x2e, 0xc4, 0x13,
            0x26, 0xd3, 0xec, 0xdc,
        ];
        assert_eq!(*subkey(&key, &nonce), wanted);
    }
}

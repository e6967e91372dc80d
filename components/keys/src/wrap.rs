//! Keys wrapped with AES: <https://www.rfc-editor.org/rfc/rfc3394>.

use aws_lc_rs::cipher::{
    AES_192, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrap as _};
use zeroize::Zeroizing;

use crate::Refusal;

/// Bytes that are worked with at a time.
const BLOCK: usize = 8;
/// By which a wrong key is found.
const INITIAL: [u8; BLOCK] = [0xa6; BLOCK];
const STEPS: u64 = 6;

pub fn wrap(kek: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Refusal> {
    if !plaintext.len().is_multiple_of(BLOCK) || plaintext.len() < 2 * BLOCK {
        return Err(Refusal::Length);
    }
    let mut out = vec![0; plaintext.len() + BLOCK];
    match kek.len() {
        16 => {
            AesKek::new(&AES_128, kek)?.wrap(plaintext, &mut out)?;
        }
        32 => {
            AesKek::new(&AES_256, kek)?.wrap(plaintext, &mut out)?;
        }
        _ => wrap_192(kek, plaintext, &mut out)?,
    }
    Ok(out)
}

pub fn unwrap(kek: &[u8], wrapped: &[u8]) -> Result<Vec<u8>, Refusal> {
    if !wrapped.len().is_multiple_of(BLOCK) || wrapped.len() < 3 * BLOCK {
        return Err(Refusal::Length);
    }
    let mut out = vec![0; wrapped.len() - BLOCK];
    match kek.len() {
        16 => {
            AesKek::new(&AES_128, kek)?.unwrap(wrapped, &mut out)?;
        }
        32 => {
            AesKek::new(&AES_256, kek)?.unwrap(wrapped, &mut out)?;
        }
        _ => unwrap_192(kek, wrapped, &mut out)?,
    }
    Ok(out)
}

/// The library wraps with keys of 128 and 256 bits only.
fn wrap_192(kek: &[u8], plaintext: &[u8], out: &mut [u8]) -> Result<(), Refusal> {
    let aes = EncryptingKey::ecb(UnboundCipherKey::new(&AES_192, kek)?)?;
    out[..BLOCK].copy_from_slice(&INITIAL);
    out[BLOCK..].copy_from_slice(plaintext);
    let blocks = plaintext.len() / BLOCK;
    let mut both = Zeroizing::new([0; 2 * BLOCK]);
    let mut count = 0_u64;
    for _ in 0..STEPS {
        for at in 1..=blocks {
            count += 1;
            both[..BLOCK].copy_from_slice(&out[..BLOCK]);
            both[BLOCK..].copy_from_slice(&out[at * BLOCK..][..BLOCK]);
            aes.less_safe_encrypt(&mut both[..], EncryptionContext::None)?;
            for (byte, of_count) in both.iter_mut().zip(count.to_be_bytes()) {
                *byte ^= of_count;
            }
            out[..BLOCK].copy_from_slice(&both[..BLOCK]);
            out[at * BLOCK..][..BLOCK].copy_from_slice(&both[BLOCK..]);
        }
    }
    Ok(())
}

fn unwrap_192(kek: &[u8], wrapped: &[u8], out: &mut [u8]) -> Result<(), Refusal> {
    let aes = DecryptingKey::ecb(UnboundCipherKey::new(&AES_192, kek)?)?;
    let (first, rest) = wrapped.split_at(BLOCK);
    out.copy_from_slice(rest);
    let blocks = out.len() / BLOCK;
    let mut both = Zeroizing::new([0; 2 * BLOCK]);
    both[..BLOCK].copy_from_slice(first);
    let mut count = STEPS * blocks as u64;
    for _ in 0..STEPS {
        for at in (0..blocks).rev() {
            for (byte, of_count) in both.iter_mut().zip(count.to_be_bytes()) {
                *byte ^= of_count;
            }
            both[BLOCK..].copy_from_slice(&out[at * BLOCK..][..BLOCK]);
            aes.decrypt(&mut both[..], DecryptionContext::None)?;
            out[at * BLOCK..][..BLOCK].copy_from_slice(&both[BLOCK..]);
            count -= 1;
        }
    }
    verify_slices_are_equal(&both[..BLOCK], &INITIAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
        let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
        pairs
            .map(|pair| u8::from_str_radix(&pair, 16).expect("is hex"))
            .collect()
    }

    /// Sections 4.1, 4.2, 4.4 and 4.6.
    #[test]
    fn keys_are_wrapped_as_in_the_rfc() {
        let kek: Vec<u8> = (0..32).collect();
        let key = hex("00112233445566778899AABBCCDDEEFF 0001020304050607 08090A0B0C0D0E0F");
        for (of_kek, of_key, wanted) in [
            (16, 16, "1FA68B0A8112B447 AEF34BD8FB5A7B82 9D3E862371D2CFE5"),
            (24, 16, "96778B25AE6CA435 F92B5B97C050AED2 468AB8A17AD84E5D"),
            (
                24,
                24,
                "031D33264E15D332 68F24EC260743EDC E1C6C7DDEE725A93 6BA814915C6762D2",
            ),
            (
                32,
                32,
                "28C9F404C4B810F4 CBCCB35CFB87F826 3F5786E2D80ED326 CBC7F0E71A99F43B FB988B9B7A02DD21",
            ),
        ] {
            let (kek, key) = (&kek[..of_kek], &key[..of_key]);
            let wrapped = wrap(kek, key).expect("wraps");
            assert_eq!(wrapped, hex(wanted), "{of_kek} {of_key}");
            assert_eq!(unwrap(kek, &wrapped).expect("unwraps"), key);
            for at in 0..wrapped.len() {
                let mut other = wrapped.clone();
                other[at] ^= 1;
                assert_eq!(unwrap(kek, &other), Err(Refusal::Failed), "{at}");
            }
        }
    }

    #[test]
    fn what_has_no_blocks_is_refused() {
        for size in [0, 8, 15, 17] {
            assert_eq!(wrap(&[0; 24], &vec![0; size]), Err(Refusal::Length));
            assert_eq!(unwrap(&[0; 24], &vec![0; size]), Err(Refusal::Length));
        }
    }
}

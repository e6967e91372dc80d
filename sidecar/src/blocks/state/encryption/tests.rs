use outrider_crds::property::SecretKeyRef;
use proptest::prelude::*;

use super::*;

const K16: &str = "000102030405060708090a0b0c0d0e0f";
const K24: &str = "000102030405060708090A0B0C0D0E0F1011121314151617";
const K32: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

fn item(property: &str, secret: &str) -> NameValue {
    NameValue {
        name: property.to_owned(),
        secret_key_ref: SecretKeyRef {
            name: secret.to_owned(),
            ..SecretKeyRef::default()
        },
        ..NameValue::default()
    }
}

/// Keys of a store from slot, secret and value.
fn keys(slots: &[(&str, &str, &str)]) -> Result<Option<Keys>, String> {
    let items: Vec<_> = slots
        .iter()
        .map(|(slot, name, _)| item(slot, name))
        .collect();
    Keys::of(
        "s",
        items.iter().zip(slots.iter().map(|(_, _, value)| *value)),
    )
}

fn one(name: &str, value: &str) -> Keys {
    keys(&[(PRIMARY, name, value)]).unwrap().unwrap()
}

fn rotated() -> Keys {
    keys(&[(PRIMARY, "new", K32), (SECONDARY, "old", K16)])
        .unwrap()
        .unwrap()
}

fn json(text: &str) -> Value {
    Value::Json(Bytes::copy_from_slice(text.as_bytes()))
}

fn stored(keys: &Keys, value: &Value) -> Bytes {
    keys.encrypt(value).unwrap().bytes().clone()
}

fn refusal(keys: &Keys, stored: &[u8]) -> String {
    keys.decrypt(stored).unwrap_err().to_string()
}

#[test]
fn a_value_is_stored_as_base64_and_the_name_of_its_key() {
    let keys = one("secret", K16);
    let value = keys.encrypt(&json("{\"a\":1}")).unwrap();
    assert!(matches!(value, Value::Binary(_)));
    let text = String::from_utf8(value.bytes().to_vec()).unwrap();
    let (sealed, name) = text.split_once("||").unwrap();
    assert_eq!(name, "secret");
    // Nonce, value, tag.
    assert_eq!(STANDARD.decode(sealed).unwrap().len(), 12 + 7 + 16);
    assert_ne!(value, keys.encrypt(&json("{\"a\":1}")).unwrap());
}

/// Test case 3 of the GCM specification: nonce, encrypted text, tag.
#[test]
fn a_value_that_another_program_encrypted_is_read() {
    let key = "feffe9928665731c6d6a8f9467308308";
    let hex = "cafebabefacedbaddecaf88842831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f59854d5c2af327cd64a62cf35abd2ba6fab4";
    let plain = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255";
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    let stored = format!("{}||k", STANDARD.encode(bytes(hex)));
    let read = one("k", key).decrypt(stored.as_bytes()).unwrap();
    assert_eq!(read[..], bytes(plain)[..]);
}

#[test]
fn json_keeps_its_text_and_a_string_loses_its_quotes() {
    let keys = one("k", K24);
    for text in [
        "{\"b\" : [1, \"x\"], \"a\": 12345678901234567890}",
        "null",
        "1.50",
        "[]",
    ] {
        let read = keys.decrypt(&stored(&keys, &json(text))).unwrap();
        assert_eq!(read, text.as_bytes());
    }
    let read = keys.decrypt(&stored(&keys, &json("\"a\\nb\""))).unwrap();
    assert_eq!(&read[..], b"a\nb");
    let bytes = Value::Binary(Bytes::from_static(b"\"a\""));
    let read = keys.decrypt(&stored(&keys, &bytes)).unwrap();
    assert_eq!(&read[..], b"\"a\"");
    assert!(keys.decrypt(b"").unwrap().is_empty());
}

#[test]
fn a_rotated_key_still_reads_and_the_new_one_writes() {
    let before = one("old", K16);
    let old = stored(&before, &json("1"));
    let keys = rotated();
    assert_eq!(&keys.decrypt(&old).unwrap()[..], b"1");
    let new = stored(&keys, &json("2"));
    assert!(new.ends_with(b"||new"));
    assert_eq!(
        refusal(&before, &new),
        "could not decrypt data for state store s: the store has no encryption key new"
    );
}

#[test]
fn both_keys_may_be_in_one_secret() {
    let old = stored(&one("keys", K16), &json("1"));
    let keys = keys(&[(PRIMARY, "keys", K32), (SECONDARY, "keys", K16)]);
    let keys = keys.unwrap().unwrap();
    assert_eq!(&keys.decrypt(&old).unwrap()[..], b"1");
    assert_eq!(&keys.decrypt(&stored(&keys, &json("2"))).unwrap()[..], b"2");
}

#[test]
fn what_was_not_encrypted_by_these_keys_is_refused() {
    let keys = rotated();
    let no_name =
        "could not decrypt data for state store s: encryption key name not found on record";
    assert_eq!(refusal(&keys, b"{\"a\":1}"), no_name);
    assert_eq!(refusal(&keys, b"AAAA||"), no_name);
    let forged = "cipher: message authentication failed";
    assert_eq!(refusal(&keys, b"||new"), forged);
    assert_eq!(refusal(&keys, b"AAAA||old"), forged);
    assert_eq!(
        refusal(&keys, b"{}||old"),
        "could not decrypt data for state store s: the stored value is not base64"
    );
    assert_eq!(
        refusal(&one("new", K16), &stored(&keys, &json("1"))),
        forged
    );
}

#[test]
fn a_key_that_cannot_be_used_is_an_error() {
    let error = |slots: &[(&str, &str, &str)]| keys(slots).err().unwrap();
    let extract = "failed to extract encryption key";
    for (slots, expected) in [
        (
            &[(PRIMARY, "", K16)][..],
            format!("{extract}: secretKeyRef cannot be empty"),
        ),
        (
            &[(PRIMARY, "k", "")],
            format!("{extract}: encryption key cannot be empty"),
        ),
        (
            &[(SECONDARY, "k", K16)],
            format!("{extract}: secondaryEncryptionKey needs a primaryEncryptionKey"),
        ),
        (
            &[(PRIMARY, "a||b", K16)],
            format!("{extract}: its name cannot contain '||'"),
        ),
        (
            &[(PRIMARY, "k", "0g")],
            "encoding/hex: invalid byte: U+0067 'g'".to_owned(),
        ),
        (
            &[(PRIMARY, "k", "00\n")],
            "encoding/hex: invalid byte: U+000A".to_owned(),
        ),
        (
            &[(PRIMARY, "k", "012")],
            "encoding/hex: odd length hex string".to_owned(),
        ),
        (
            &[(PRIMARY, "k", K16), (SECONDARY, "l", "0102")],
            "crypto/aes: invalid key size 2".to_owned(),
        ),
    ] {
        assert_eq!(error(slots), expected);
    }
    let others = keys(&[("PrimaryEncryptionKey", "", "x"), ("url", "", "")]);
    assert!(others.unwrap().is_none());
}

proptest! {
    #[test]
    fn prop_bytes_come_back(plain in prop::collection::vec(any::<u8>(), 1..300)) {
        let keys = rotated();
        let value = Value::Binary(Bytes::from(plain.clone()));
        let read = keys.decrypt(&stored(&keys, &value)).unwrap();
        prop_assert_eq!(&read[..], &plain[..]);
    }

    /// Every bit of a value counts, those of the nonce and the tag too.
    #[test]
    fn prop_a_changed_value_is_refused(
        plain in prop::collection::vec(any::<u8>(), 1..60),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let keys = one("k", K32);
        let stored = stored(&keys, &Value::Binary(Bytes::from(plain)));
        let sealed = stored.strip_suffix(b"||k").unwrap();
        let mut sealed = STANDARD.decode(sealed).unwrap();
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        let changed = format!("{}||k", STANDARD.encode(sealed));
        prop_assert!(keys.decrypt(changed.as_bytes()).is_err());
    }

    #[test]
    fn prop_whatever_is_stored_panics_never(stored in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = rotated().decrypt(&stored);
        let mut named = stored;
        named.extend_from_slice(b"||new");
        let _ = rotated().decrypt(&named);
    }
}

//! The suite for stores of keys.

use outrider_components::crypto::{Crypto, Sealed, With};

/// The names of the keys that a store under test has.
pub struct Names {
    /// A symmetric key of 256 bits.
    pub symmetric: &'static str,
    /// A private RSA key.
    pub rsa: &'static str,
    /// A private key of the curve P-256.
    pub ec: &'static str,
    /// A private Ed25519 key.
    pub ed25519: &'static str,
}

fn with<'a>(key: &'a str, algorithm: &'a str, nonce: &'a [u8]) -> With<'a> {
    With {
        key,
        algorithm,
        nonce,
        associated_data: &[],
    }
}

/// Tests a store.
pub async fn run(store: &dyn Crypto, names: &Names) {
    wraps(store, names).await;
    signs(store, names).await;
    let text = b"a text that is to be hidden";
    for (key, algorithm, nonce) in [
        (names.symmetric, "A256GCM", 12),
        (names.symmetric, "A256CBC", 16),
        (names.symmetric, "XC20P", 24),
        (names.rsa, "RSA-OAEP", 0),
        (names.rsa, "RSA1_5", 0),
    ] {
        let nonce = vec![7; nonce];
        let with = with(key, algorithm, &nonce);
        let sealed = store.encrypt(&with, text).await.expect(algorithm);
        assert_ne!(sealed.data, text, "{algorithm}");
        let opened = store.decrypt(&with, &sealed).await.expect(algorithm);
        assert_eq!(opened, text, "{algorithm}");
        let other = Sealed {
            data: vec![1; 16],
            ..sealed
        };
        let opened = store.decrypt(&with, &other).await;
        assert_ne!(opened.ok().as_deref(), Some(&text[..]), "{algorithm}");
    }
    for (key, algorithm) in [
        ("no such key", "A256GCM"),
        (names.rsa, "A256GCM"),
        (names.symmetric, "RSA-OAEP"),
        (names.symmetric, "ROT13"),
    ] {
        let nonce = [0; 12];
        let refused = store.encrypt(&with(key, algorithm, &nonce), text).await;
        assert!(refused.is_err(), "{key} {algorithm}");
    }
    for name in [names.rsa, names.ec, names.ed25519] {
        let key = store.public_key(name).await.expect(name);
        assert!(
            key.pem.starts_with("-----BEGIN PUBLIC KEY-----\n"),
            "{name}"
        );
        let jwk: serde_json::Value = serde_json::from_str(&key.jwk).expect("is JSON");
        assert!(jwk["kty"].is_string() && jwk.get("d").is_none(), "{jwk}");
    }
    // Of a symmetric key nothing is told.
    assert!(store.public_key(names.symmetric).await.is_err());
    store.close().await.expect("close");
}

/// What documents need.
async fn wraps(store: &dyn Crypto, names: &Names) {
    let key = [9; 32];
    for (name, algorithm) in [(names.symmetric, "A256KW"), (names.rsa, "RSA-OAEP-256")] {
        let with = with(name, algorithm, &[]);
        let mut wrapped = store.wrap_key(&with, &key).await.expect(algorithm);
        let unwrapped = store.unwrap_key(&with, &wrapped).await.expect(algorithm);
        assert_eq!(unwrapped, key, "{algorithm}");
        wrapped.data[5] ^= 1;
        assert!(
            store.unwrap_key(&with, &wrapped).await.is_err(),
            "{algorithm}"
        );
    }
}

async fn signs(store: &dyn Crypto, names: &Names) {
    for (name, algorithm, size) in [
        (names.rsa, "RS256", 32),
        (names.rsa, "PS384", 48),
        (names.ec, "ES256", 32),
        (names.ed25519, "EdDSA", 100),
    ] {
        let with = with(name, algorithm, &[]);
        let digest = vec![3; size];
        let signature = store.sign(&with, &digest).await.expect(algorithm);
        let valid = store.verify(&with, &digest, &signature).await;
        assert!(valid.expect(algorithm), "{algorithm}");
        let other = vec![4; size];
        let valid = store.verify(&with, &other, &signature).await;
        assert!(!valid.expect(algorithm), "{algorithm}");
    }
    let digest = [3; 32];
    for (name, algorithm) in [
        (names.symmetric, "RS256"),
        (names.ec, "ES512"),
        (names.rsa, "HS256"),
    ] {
        let refused = store.sign(&with(name, algorithm, &[]), &digest).await;
        assert!(refused.is_err(), "{name} {algorithm}");
    }
}

//! Keys, signatures and texts that OpenSSL has made.

use aws_lc_rs::digest::{SHA256, SHA384, digest};
use outrider_components::Error;
use proptest::prelude::*;

use crate::{Form, Key, jwk, pem, rsa, sign};

const MESSAGE: &[u8] = b"a message";

macro_rules! fixture {
    ($name:literal) => {
        &include_bytes!(concat!("../fixtures/", $name))[..]
    };
}

fn parse(bytes: &[u8]) -> Result<Key, Error> {
    Key::parse(bytes, Form::Unknown)
}

fn public(bytes: &[u8]) -> String {
    let key = parse(bytes).expect("is a key");
    pem::write("PUBLIC KEY", &key.public_der().expect("has a public half"))
}

#[test]
fn keys_have_many_forms_in_pem() {
    for (wanted, forms) in [
        (
            fixture!("rsa-public.pem"),
            &[
                fixture!("rsa-pkcs8.pem"),
                fixture!("rsa-pkcs1.pem"),
                fixture!("rsa-public.pem"),
                fixture!("rsa-public-pkcs1.pem"),
            ][..],
        ),
        (
            fixture!("p256-public.pem"),
            &[
                fixture!("p256-pkcs8.pem"),
                fixture!("p256-sec1.pem"),
                fixture!("p256-public.pem"),
            ],
        ),
        (
            fixture!("p384-public.pem"),
            &[fixture!("p384-pkcs8.pem"), fixture!("p384-public.pem")],
        ),
        (
            fixture!("p521-public.pem"),
            &[fixture!("p521-pkcs8.pem"), fixture!("p521-public.pem")],
        ),
        (
            fixture!("ed25519-public.pem"),
            &[
                fixture!("ed25519-pkcs8.pem"),
                fixture!("ed25519-public.pem"),
            ],
        ),
    ] {
        for form in forms {
            assert_eq!(public(form).as_bytes(), wanted);
        }
    }
    for unknown in [fixture!("x25519.pem"), fixture!("k256.pem")] {
        let error = parse(unknown).expect_err("is not known");
        assert!(
            error.to_string().contains("no key that is known"),
            "{error}"
        );
    }
}

#[test]
fn a_private_key_serialized_is_the_same_key() {
    for form in [
        fixture!("rsa-pkcs1.pem"),
        fixture!("p256-sec1.pem"),
        fixture!("p521-pkcs8.pem"),
        fixture!("ed25519-pkcs8.pem"),
    ] {
        let key = parse(form).expect("is a key");
        let der = key.serialize().expect("serializes");
        let again = pem::write("PRIVATE KEY", &der);
        assert_eq!(public(again.as_bytes()), public(form));
        let jwk = jwk::public(&key).expect("has a public half");
        assert_eq!(public(jwk.as_bytes()), public(form));
    }
}

#[test]
fn the_bytes_of_a_symmetric_key_may_be_in_base64() {
    for (form, wanted) in [
        (&b"0123456789abcde!"[..], &b"0123456789abcde!"[..]),
        (b"AAECAw==", &[0, 1, 2, 3]),
        (b"AAECAw==\n", &[0, 1, 2, 3]),
        (b"AAECAw", &[0, 1, 2, 3]),
        (b"_-8", &[0xff, 0xef]),
        (b"{sixteen bytes!}", b"{sixteen bytes!}"),
    ] {
        let key = parse(form).expect("is a key");
        assert_eq!(key.symmetric(), Ok(wanted), "{form:?}");
    }
    assert!(parse(b"").is_err());
    assert!(parse(&vec![b'x'; (64 << 10) + 1]).is_err());
    assert!(parse(b"{\"kty\":\"oct\"}").is_err());
}

#[test]
fn signatures_of_others_are_valid() {
    let (short, long) = (digest(&SHA256, MESSAGE), digest(&SHA384, MESSAGE));
    for (key, algorithm, digest, signature) in [
        (
            fixture!("rsa-public.pem"),
            "RS256",
            short.as_ref(),
            fixture!("rs256.sig"),
        ),
        (
            fixture!("rsa-public.pem"),
            "PS256",
            short.as_ref(),
            fixture!("ps256-max.sig"),
        ),
        (
            fixture!("p384-public.pem"),
            "ES384",
            long.as_ref(),
            fixture!("es384.sig"),
        ),
        (
            fixture!("ed25519-public.pem"),
            "EdDSA",
            MESSAGE,
            fixture!("eddsa.sig"),
        ),
    ] {
        let key = parse(key).expect("is a key");
        assert_eq!(
            sign::verify(&key, algorithm, digest, signature),
            Ok(true),
            "{algorithm}"
        );
        let mut other = signature.to_vec();
        other[20] ^= 1;
        assert_eq!(
            sign::verify(&key, algorithm, digest, &other),
            Ok(false),
            "{algorithm}"
        );
    }
}

#[test]
fn texts_that_others_have_encrypted_are_decrypted() {
    let key = parse(fixture!("rsa-pkcs8.pem")).expect("is a key");
    let text = rsa::decrypt(&key, "RSA-OAEP-256", fixture!("oaep256.bin"), &[]);
    assert_eq!(text.as_deref(), Ok(MESSAGE));
    let label = rsa::decrypt(&key, "RSA-OAEP-256", fixture!("oaep256.bin"), b"label");
    assert!(label.is_err());
}

#[test]
fn a_key_is_not_shown() {
    let key = parse(b"{\"kty\":\"oct\",\"kid\":\"k\",\"k\":\"c2VjcmV0\"}").expect("is a key");
    let shown = format!("{key:?}");
    assert!(
        shown.contains("symmetric") && !shown.contains("115"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn prop_no_input_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        form in prop::sample::select(vec![Form::Json, Form::Pem, Form::Unknown]),
    ) {
        let _ = Key::parse(&bytes, form);
        let _ = Key::parse_set(&bytes);
    }

    #[test]
    fn prop_no_change_of_a_key_panics(at in 0_usize..1_700, byte in any::<u8>()) {
        for key in [fixture!("rsa-pkcs8.pem"), fixture!("p256-sec1.pem"), fixture!("ed25519-public.pem")] {
            let mut key = key.to_vec();
            let at = at % key.len();
            key[at] = byte;
            if let Ok(key) = parse(&key) {
                let _ = key.serialize();
                let _ = jwk::public(&key);
            }
        }
    }
}

use futures_util::{FutureExt as _, StreamExt as _, stream};
use outrider_components::crypto::{Crypto as _, Sealed, With};
use outrider_components_keys::{Form, Key, Keys, Local};
use proptest::prelude::*;

use super::segments::{SIZE, TAG};
use super::*;

const WRAPPED: &[u8] = b"the wrapped key";

fn source(bytes: &[u8], piece: usize) -> Source {
    let pieces: Vec<_> = bytes
        .chunks(piece.max(1))
        .map(Bytes::copy_from_slice)
        .collect();
    stream::iter(pieces).map(Ok).boxed()
}

/// Nothing here waits for anything.
fn now<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("does not wait")
}

async fn all(mut document: Document) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(piece) = document.next().await? {
        assert!(piece.len() <= SIZE + TAG, "{}", piece.len());
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// A document, and its key.
fn encrypted(text: &[u8], piece: usize, cipher: &str) -> (Vec<u8>, Vec<u8>) {
    let options = Options::new("k".to_owned(), "rsa", cipher).expect("is valid");
    let key = FileKey::new(options.cipher).expect("a key");
    let document = encrypt(&options, &key, WRAPPED.to_vec(), source(text, piece));
    let document = now(all(document.expect("begins"))).expect("encrypts");
    (document, key.bytes().to_vec())
}

fn decrypted(document: &[u8], piece: usize, key: &[u8]) -> Result<Vec<u8>> {
    let begun = now(begin("", source(document, piece)))?;
    assert_eq!(
        (&*begun.key_name, &begun.manifest.wrapped[..]),
        ("k", WRAPPED)
    );
    now(all(begun.decrypt(key)?))
}

fn header_of(document: &[u8]) -> usize {
    let mut ends = (0..document.len()).filter(|at| document[*at] == b'\n');
    ends.nth(2).expect("three lines") + 1
}

#[test]
fn a_document_of_any_size_comes_back() {
    for size in [0, 1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, 3 * SIZE + 7] {
        let text: Vec<u8> = (0..size).map(|at| at as u8).collect();
        for cipher in ["", "ChaCha20-Poly1305"] {
            for piece in [1 << 20, SIZE, 1_000] {
                let (document, key) = encrypted(&text, piece, cipher);
                let segments = size.div_ceil(SIZE);
                assert_eq!(document.len(), header_of(&document) + size + segments * TAG);
                assert_eq!(decrypted(&document, piece, &key).as_ref(), Ok(&text));
            }
        }
    }
}

#[test]
fn a_header_shows_what_it_is_told_to() {
    let options = || Options::new("k".to_owned(), "AES", "aes-gcm").expect("is valid");
    let shown = |options: Options| {
        let key = FileKey::new(options.cipher).expect("a key");
        let document = encrypt(&options, &key, vec![1], source(b"", 1));
        let document = now(all(document.expect("begins"))).expect("encrypts");
        let text = String::from_utf8(document).expect("is text");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("dapr.io/enc/v1"));
        let manifest: serde_json::Value =
            serde_json::from_str(lines.next().expect("a manifest")).expect("is JSON");
        assert_eq!((&manifest["kw"], &manifest["cph"]), (&1.into(), &1.into()));
        manifest["k"].as_str().map(str::to_owned)
    };
    assert_eq!(shown(options()).as_deref(), Some("k"));
    let other = options().showing(false, "other".to_owned());
    assert_eq!(shown(other).as_deref(), Some("other"));
    assert_eq!(shown(options().showing(true, "other".to_owned())), None);
}

#[test]
fn unknown_algorithms_are_refused_by_name() {
    let error = |wrapping, cipher| Options::new(String::new(), wrapping, cipher).err();
    assert_eq!(
        error("bad", "").expect("unknown").to_string(),
        "option Algorithm is not valid: algorithm BAD is not supported"
    );
    assert_eq!(
        error("A256KW", "rot13").expect("unknown").to_string(),
        "option Cipher is not valid: cipher ROT13 is not supported"
    );
}

#[test]
fn what_is_no_document_says_what_is_missing() {
    for (text, wanted) in [
        ("", "scheme name not found"),
        ("x", "scheme name not found"),
        ("x\n", "unsupported scheme"),
        ("\n", "invalid format"),
        ("dapr.io/enc/v1\n", "manifest not found"),
        ("dapr.io/enc/v1\n\n", "invalid format"),
        (
            "dapr.io/enc/v1\n{}\n",
            "message authentication code not found",
        ),
        ("dapr.io/enc/v1\n{}\nAA==\n", "invalid manifest"),
    ] {
        let error = decrypted(text.as_bytes(), 5, &[]).expect_err(text);
        assert_eq!(
            error.to_string(),
            format!("invalid header: {wanted}"),
            "{text:?}"
        );
    }
    // A header without an end is not read for ever.
    let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[b'x'; 1_000]))).boxed();
    let error = now(begin("", endless)).err();
    let wanted = "invalid header: scheme name not found";
    assert_eq!(error.expect("no header").to_string(), wanted);
}

#[test]
fn a_key_that_cannot_be_had_looks_like_a_wrong_one() {
    let (document, key) = encrypted(b"text", 10, "");
    let error = |key: &[u8]| {
        let opened = decrypted(&document, 9, key);
        opened.err().map(|error| error.to_string())
    };
    let wrong = Some("failed to validate the document's signature".to_owned());
    assert_eq!(error(b""), wrong);
    assert_eq!(error(&[1; 32]), wrong);
    assert_eq!(error(&key[1..]), wrong);
    assert_eq!(error(&key), None);
}

#[test]
fn no_byte_of_a_document_can_be_changed() {
    let (document, key) = encrypted(&[7; 100], 1_000, "");
    for at in 0..document.len() {
        for bit in [1, 0x20, 0x80] {
            let mut other = document.clone();
            other[at] ^= bit;
            let begun = now(begin("k", source(&other, 64)));
            let document = begun.and_then(|begun| begun.decrypt(&key));
            let opened = document.and_then(|document| now(all(document)));
            assert!(opened.is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn segments_can_be_neither_cut_off_nor_moved_nor_added() {
    let text = vec![7; 2 * SIZE + 9];
    let (document, key) = encrypted(&text, SIZE, "");
    let header = header_of(&document);
    let sealed = SIZE + TAG;
    let (first, second) = (header + sealed, header + 2 * sealed);
    let whole = document.len();
    for (what, parts) in [
        ("the last one is missing", vec![(0, second)]),
        ("two are missing", vec![(0, first)]),
        (
            "the first one is missing",
            vec![(0, header), (first, whole)],
        ),
        (
            "two have changed places",
            vec![
                (0, header),
                (first, second),
                (header, first),
                (second, whole),
            ],
        ),
        (
            "one comes twice",
            vec![(0, first), (header, first), (first, whole)],
        ),
        ("a byte is missing", vec![(0, whole - 1)]),
    ] {
        let parts = parts.into_iter().map(|(from, to)| &document[from..to]);
        let other = parts.collect::<Vec<_>>().concat();
        assert!(decrypted(&other, SIZE, &key).is_err(), "{what}");
    }
    let longer = [&document[..], b"x"].concat();
    assert!(decrypted(&longer, SIZE, &key).is_err());
}

#[test]
fn a_source_that_fails_ends_the_document() {
    let pieces = [Ok(Bytes::from_static(b"a")), Err(Failure::new("broken"))];
    let options = Options::new("k".to_owned(), "AES", "").expect("is valid");
    let key = FileKey::new(options.cipher).expect("a key");
    let document = encrypt(&options, &key, vec![1], stream::iter(pieces).boxed());
    let mut document = document.expect("begins");
    assert!(now(document.next()).expect("the header").is_some());
    assert_eq!(now(document.next()), Err(Failure::new("broken")));
    assert_eq!(now(document.next()), Ok(None));
}

proptest! {
    #[test]
    fn prop_a_manifest_comes_back(
        name in proptest::option::of("\\PC{1,40}"),
        wrapped in proptest::collection::vec(any::<u8>(), 1..600),
        nonce_prefix in any::<[u8; header::NONCE_PREFIX]>(),
        wrapping in prop::sample::select(vec![
            Wrapping::A256Kw, Wrapping::A128Cbc, Wrapping::RsaOaep256,
        ]),
        cipher in prop::sample::select(vec![Cipher::AesGcm, Cipher::ChaCha20Poly1305]),
    ) {
        let manifest = Manifest { key_name: name, wrapping, wrapped, cipher, nonce_prefix };
        let line = manifest.write();
        prop_assert!(!line.contains(&b'\n'));
        prop_assert_eq!(Manifest::parse(&line), Some(manifest));
    }

    #[test]
    fn prop_no_input_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        begins in any::<bool>(),
        piece in 1_usize..50,
    ) {
        let bytes = match begins {
            true => [b"dapr.io/enc/v1\n", &bytes[..]].concat(),
            false => bytes,
        };
        let _ = Manifest::parse(&bytes);
        let begun = now(begin("k", source(&bytes, piece)));
        prop_assert!(begun.and_then(|begun| begun.decrypt(&[0; 32])).is_err());
    }

    #[test]
    fn prop_pieces_make_no_difference(
        text in proptest::collection::vec(any::<u8>(), 0..2_000),
        sizes in proptest::collection::vec(1_usize..700, 2),
    ) {
        let (document, key) = encrypted(&text, sizes[0], "");
        prop_assert_eq!(decrypted(&document, sizes[1], &key), Ok(text));
    }
}

/// Documents that a sidecar of Dapr 1.18 has encrypted, and the keys of their
/// keys.
#[test]
fn documents_of_dapr_are_decrypted() {
    const RSA: (&[u8], &[u8]) = (
        include_bytes!("vectors/rsa.pem"),
        include_bytes!("vectors/rsa.doc"),
    );
    const AES: (&[u8], &[u8]) = (
        include_bytes!("vectors/aes.key"),
        include_bytes!("vectors/aes.doc"),
    );
    const EMPTY: (&[u8], &[u8]) = (AES.0, include_bytes!("vectors/empty.doc"));
    for ((kek, document), name, shown, text) in [
        (RSA, "", "rsa.pem", "hello, reference"),
        (AES, "sym256", "sym256", "hello, reference"),
        (EMPTY, "", "sym256", ""),
    ] {
        let kek = Local(One(kek));
        let begun = now(begin(name, source(document, 100))).expect("begins");
        assert_eq!(begun.key_name, shown);
        let with = With {
            key: shown,
            algorithm: begun.manifest.wrapping.name(),
            ..With::default()
        };
        let sealed = Sealed {
            data: begun.manifest.wrapped.clone(),
            tag: Vec::new(),
        };
        let key = now(kek.unwrap_key(&with, &sealed)).expect("unwraps");
        let document = begun.decrypt(&key);
        let opened = now(all(document.expect("begins"))).expect("decrypts");
        assert_eq!(opened, text.as_bytes());
    }
}

/// One key under every name.
struct One(&'static [u8]);

#[async_trait::async_trait]
impl Keys for One {
    async fn key(
        &self,
        _: &str,
    ) -> std::result::Result<std::sync::Arc<Key>, outrider_components::Error> {
        Key::parse(self.0, Form::Unknown).map(std::sync::Arc::new)
    }
}

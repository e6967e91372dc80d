use proptest::prelude::*;

use super::*;

fn token(claims: serde_json::Value) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

#[test]
fn a_token_is_read_for_its_audiences_and_expiry() {
    let one = Jwt::read(token(serde_json::json!({"aud": "a", "exp": 10})), None).unwrap();
    assert_eq!(one.audiences, ["a"]);
    assert_eq!(one.expires, Some(at(10)));
    let many = Jwt::read(token(serde_json::json!({"aud": ["a", "b"]})), None).unwrap();
    assert_eq!(many.audiences, ["a", "b"]);
    assert_eq!(many.expires, None);
}

#[test]
fn a_token_for_others_is_refused() {
    let read = |claims, only| Jwt::read(token(claims), only).unwrap_err();
    assert_eq!(read(serde_json::json!({}), None), JwtError::NoAudience);
    assert_eq!(
        read(serde_json::json!({"aud": ["a", "b"]}), Some("a")),
        JwtError::Audience
    );
    assert!(matches!(
        Jwt::read("a.b".into(), None),
        Err(JwtError::Malformed(_))
    ));
}

fn svid(not_before: i64, not_after: i64, issued: i64, jwt_exp: Option<i64>) -> Svid {
    let pending = Pending::new(Key::Ed25519).unwrap();
    let signer = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(PrivateKeyDer::Pkcs8(pending.key.serialize_der().into()))
        .unwrap();
    Svid {
        id: "spiffe://public/ns/default/app".parse().unwrap(),
        certified: Arc::new(CertifiedKey::new(Vec::new(), signer)),
        key_der: Zeroizing::default(),
        not_before: at(not_before),
        not_after: at(not_after),
        issued: at(issued),
        jwt: jwt_exp.map(|exp| {
            Jwt::read(
                token(serde_json::json!({"aud": ["public", "x"], "exp": exp})),
                None,
            )
            .unwrap()
        }),
        jwts: BTreeMap::from([(
            "y".to_owned(),
            Jwt::read(token(serde_json::json!({"aud": "y"})), Some("y")).unwrap(),
        )]),
    }
}

#[test]
fn renewal_is_half_way() {
    let hour = 3600;
    // A day of life, issued with a quarter of an hour of skew.
    let day = svid(10_000 - 900, 10_000 + 24 * hour, 10_000, None);
    assert_eq!(
        day.renewal(at(10_000)),
        at(10_000 - 900 + (24 * hour + 900) / 2)
    );
    // A life that is shorter than the skew is not renewed without pause.
    let minute = svid(10_000 - 900, 10_000 + 60, 10_000, None);
    assert_eq!(minute.renewal(at(10_000)), at(10_000 + 30));
    // The token's half is earlier.
    let token = svid(
        10_000 - 900,
        10_000 + 24 * hour,
        10_000,
        Some(10_000 + hour),
    );
    assert_eq!(token.renewal(at(10_000)), at(10_000 + hour / 2));
    // Overdue is due now.
    assert_eq!(minute.renewal(at(20_000)), at(20_000));
}

#[test]
fn a_token_is_chosen_by_audience() {
    let with = svid(0, 1, 0, Some(1));
    assert_eq!(with.jwt_for("public").ok(), with.jwt());
    assert_ne!(with.jwt_for("y").ok(), with.jwt());
    assert_eq!(with.jwt_for(""), Err(JwtError::Required));
    assert_eq!(
        with.jwt_for("z").unwrap_err().to_string(),
        "JWT SVID has different audiences than requested: expected z, got [public x]"
    );
    assert_eq!(svid(0, 1, 0, None).jwt_for("z"), Err(JwtError::None));
}

proptest! {
    #[test]
    fn prop_reading_a_token_never_panics(text in ".{0,80}", claims in any::<Vec<u8>>()) {
        let _ = Jwt::read(text, None);
        let _ = Jwt::read(format!("e30.{}.x", URL_SAFE_NO_PAD.encode(&claims)), None);
    }

    #[test]
    fn prop_renewal_is_never_in_the_past(
        life in -10_000i64..100_000, skew in 0i64..5_000, later in 0i64..200_000,
    ) {
        let s = svid(1_000_000 - skew, 1_000_000 + life, 1_000_000, None);
        prop_assert!(s.renewal(at(1_000_000 + later)) >= at(1_000_000 + later));
    }
}

#[test]
fn both_kinds_of_key_make_a_request() {
    for kind in [Key::Ed25519, Key::Rsa] {
        let pending = Pending::new(kind).unwrap();
        assert!(
            pending
                .csr
                .starts_with("-----BEGIN CERTIFICATE REQUEST-----")
        );
        let read = rcgen::CertificateSigningRequestParams::from_pem(&pending.csr).unwrap();
        assert!(read.params.subject_alt_names.is_empty());
    }
}

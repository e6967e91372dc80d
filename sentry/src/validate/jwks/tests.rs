use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use rcgen::KeyPair;
use serde_json::json;

use super::*;

const US: &str = "spiffe://localhost/ns/default/dapr-sentry";
const THEM: &str = "spiffe://public/ns/default/app";

struct Issuer {
    key: EncodingKey,
    set: JwkSet,
}

fn issuer() -> Issuer {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
    let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(pair.public_key_raw());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k"});
    let set = serde_json::from_value(json!({"keys": [jwk]})).unwrap();
    Issuer { key, set }
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

fn claims() -> Value {
    json!({"aud": ["x", US], "sub": THEM, "exp": now() + 60, "iat": now(), "nbf": now() - 60})
}

fn token(issuer: &Issuer, kid: Option<&str>, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, &issuer.key).unwrap()
}

fn outcome(issuer: &Issuer, kid: Option<&str>, claims: &Value) -> Result<(), String> {
    verify(&token(issuer, kid, claims), &issuer.set, US, THEM)
}

#[test]
fn a_valid_token_is_accepted() {
    let issuer = issuer();
    assert_eq!(outcome(&issuer, Some("k"), &claims()), Ok(()));
    let mut one = claims();
    one["aud"] = US.into();
    assert_eq!(outcome(&issuer, Some("k"), &one), Ok(()));
    // Four minutes past its end, clocks may still differ.
    one["exp"] = (now() - 240).into();
    assert_eq!(outcome(&issuer, Some("k"), &one), Ok(()));
}

#[test]
fn an_error_names_the_wrong_claim() {
    let issuer = issuer();
    let with = |name: &str, value: Value| {
        let mut changed = claims();
        changed[name] = value;
        outcome(&issuer, Some("k"), &changed).unwrap_err()
    };
    assert_eq!(with("aud", json!(["other"])), "\"aud\" not satisfied");
    assert_eq!(
        with("sub", json!("other")),
        "\"sub\" not satisfied: values do not match"
    );
    assert_eq!(with("exp", json!(now() - 3600)), "\"exp\" not satisfied");
    assert_eq!(with("exp", json!("soon")), "\"exp\" not satisfied");
    assert_eq!(with("nbf", json!(now() + 3600)), "\"nbf\" not satisfied");
    assert_eq!(with("iat", json!(now() + 3600)), "\"iat\" not satisfied");
    let mut without = claims();
    without.as_object_mut().unwrap().remove("aud");
    assert_eq!(
        outcome(&issuer, Some("k"), &without).unwrap_err(),
        "claim \"aud\" not found"
    );
    let mut endless = claims();
    endless.as_object_mut().unwrap().remove("exp");
    assert_eq!(
        outcome(&issuer, Some("k"), &endless).unwrap_err(),
        "claim \"exp\" not found"
    );
}

#[test]
fn a_wrong_signature_or_key_is_an_error() {
    let (ours, theirs) = (issuer(), issuer());
    let forged = token(&theirs, Some("k"), &claims());
    assert!(
        verify(&forged, &ours.set, US, THEM)
            .unwrap_err()
            .contains("could not verify message")
    );
    assert!(
        outcome(&ours, None, &claims())
            .unwrap_err()
            .contains("no key ID (\"kid\") specified in token")
    );
    assert_eq!(
        outcome(&ours, Some("z"), &claims()).unwrap_err(),
        "key provider 0 failed: failed to find key with key ID \"z\" in key set"
    );
    assert_eq!(verify("x", &ours.set, US, THEM).unwrap_err(), "invalid JWT");
    // A token without a signature.
    let unsigned = token(&ours, Some("k"), &claims());
    let (unsigned, _) = unsigned.rsplit_once('.').unwrap();
    assert!(verify(&format!("{unsigned}."), &ours.set, US, THEM).is_err());
}

#[test]
fn options_are_numbers_or_durations_with_a_minimum() {
    let read = |value: Value| Options::read(value.as_object().unwrap());
    let options =
        read(json!({"source": "x", "minRefreshInterval": 60, "requestTimeout": "2s", "other": 1}))
            .unwrap();
    assert_eq!(options.refresh_interval, Duration::from_secs(60));
    assert_eq!(options.request_timeout, Duration::from_secs(2));
    assert!(read(json!({"minRefreshInterval": "1s"})).is_err());
    assert!(read(json!({"requestTimeout": "1ms"})).is_err());
    assert!(read(json!({"requestTimeout": "x"})).is_err());
}

#[tokio::test]
async fn an_inline_set_is_json_or_base64() {
    let set = serde_json::to_string(&issuer().set).unwrap();
    let padded = base64::engine::general_purpose::STANDARD.encode(&set);
    let bare = padded.trim_end_matches('=').to_owned();
    for source in [set, padded, bare] {
        let given = json!({"source": source});
        let options = Options::read(given.as_object().unwrap()).unwrap();
        let (jwks, _) = Jwks::load(&options, US.parse().unwrap()).await.unwrap();
        assert_eq!(jwks.keys.load().keys.len(), 1);
    }
    let bad = Options::read(json!({"source": "nowhere at all"}).as_object().unwrap()).unwrap();
    assert!(Jwks::load(&bad, US.parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_file_is_followed_and_its_last_good_set_kept() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |set: &str| std::fs::write(file.path(), set).unwrap();
    write(&serde_json::to_string(&issuer().set).unwrap());
    let given = json!({"source": file.path()});
    let options = Options::read(given.as_object().unwrap()).unwrap();
    let (jwks, refresh) = Jwks::load(&options, US.parse().unwrap()).await.unwrap();
    let other = issuer();
    let sequence = async {
        write("not a set");
        tokio::time::sleep(FILE_POLL * 2).await;
        assert_eq!(jwks.keys.load().keys.len(), 1, "the last good set stays");
        write(&serde_json::to_string(&other.set).unwrap());
        while jwks.keys.load().keys != other.set.keys {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = refresh.run() => unreachable!("it runs until dropped"),
        done = tokio::time::timeout(Duration::from_secs(10), sequence) => done.unwrap(),
    }
}

proptest! {
    #[test]
    fn prop_text_that_is_no_token_is_refused(token in ".{0,80}", claims in any::<Vec<u8>>()) {
        let issuer = issuer();
        prop_assert!(verify(&token, &issuer.set, US, THEM).is_err());
        let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&claims);
        let token = format!("eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ.{encoded}.AAAA");
        prop_assert!(verify(&token, &issuer.set, US, THEM).is_err());
    }
}

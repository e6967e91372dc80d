use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use outrider_proto::sentry::v1::SignCertificateRequest;
use outrider_proto::sentry::v1::sign_certificate_request::TokenValidator;
use outrider_security::anchors::Source;
use outrider_security::{Security, token};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tonic::Code;

use crate::port;
use crate::sentry::{Sentry, get, read, run, send};

const SENTRY: &str = "spiffe://localhost/ns/default/dapr-sentry";

const GOOD_HOST: &str = "Host: good.example:1\r\n";

/// A sentry with OIDC discovery for one host under a prefix, and the port of that.
async fn with_discovery() -> (Sentry, u16) {
    let oidc = port::free();
    let port = format!("-oidc-server-listen-port={oidc}");
    let sentry = Sentry::start(
        "",
        &[
            "-jwt-enabled=true",
            "-jwt-issuer=https://issuer.example/base",
            "-jwt-ttl=2h",
            "-oidc-enabled=true",
            "-oidc-server-tls-enabled=false",
            "-oidc-server-listen-address=127.0.0.1",
            "-oidc-path-prefix=/auth/",
            "-oidc-allowed-hosts=good.example",
            &port,
        ],
    )
    .await;
    (sentry, oidc)
}

#[tokio::test]
async fn tokens_verify_by_discovery() {
    let (sentry, oidc) = with_discovery().await;
    let mut options = sentry.options("app", Source::File(sentry.ca("ca.crt")));
    options.jwt_audiences = vec!["a".into(), "b".into(), "a".into()];
    let (security, _upkeep) = Security::start(options).await.unwrap();
    let svid = security.identity().unwrap().current();

    let (status, document) = get(oidc, "/auth/.well-known/openid-configuration", GOOD_HOST)
        .await
        .unwrap();
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["issuer"], "https://issuer.example/base");
    assert_eq!(
        document["jwks_uri"],
        "https://issuer.example/auth/jwks.json"
    );
    assert_eq!(
        document["id_token_signing_alg_values_supported"],
        json!(["RS256"])
    );

    let (_, set) = get(oidc, "/auth/jwks.json", GOOD_HOST).await.unwrap();
    let set: JwkSet = serde_json::from_str(&set).unwrap();
    let verified = |token: &str, audience: &str| {
        let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
        let key = DecodingKey::from_jwk(set.find(&kid).unwrap()).unwrap();
        let mut rules = Validation::new(Algorithm::RS256);
        rules.set_audience(&[audience]);
        rules.set_issuer(&["https://issuer.example/base"]);
        jsonwebtoken::decode::<Value>(token, &key, &rules)
            .unwrap()
            .claims
    };
    let base = verified(svid.jwt().unwrap(), "public");
    assert_eq!(base["aud"], json!(["public", "a", "b", "a"]));
    assert_eq!(base["sub"], "spiffe://public/ns/default/app");
    assert_eq!(base["use"], "sig");
    assert_eq!(
        base["exp"].as_i64().unwrap() - base["iat"].as_i64().unwrap(),
        7200
    );
    for audience in ["a", "b", "public"] {
        let claims = verified(svid.jwt_for(audience).unwrap(), audience);
        assert_eq!(claims["aud"], json!([audience]));
    }
}

#[tokio::test]
async fn discovery_answers_allowed_hosts_get_and_its_own_paths_only() {
    let (_sentry, oidc) = with_discovery().await;
    for (path, method, headers, status) in [
        ("/jwks.json", "GET", GOOD_HOST, 404),
        ("/auth", "GET", GOOD_HOST, 404),
        ("/auth/jwks.json", "POST", GOOD_HOST, 405),
        ("/auth/jwks.json", "GET", "Host: evil.example\r\n", 403),
        (
            "/auth/jwks.json",
            "GET",
            "Host: good.example\r\nX-Forwarded-Host: evil.example\r\n",
            403,
        ),
        (
            "/auth/jwks.json",
            "GET",
            "Host: evil.example\r\nX-Forwarded-Host: good.example\r\n",
            200,
        ),
    ] {
        let answer = send(oidc, method, path, headers).await.unwrap();
        assert_eq!(answer.0, status, "{method} {path} {headers}");
    }
}

#[tokio::test]
async fn without_a_configured_issuer_it_is_the_host_of_the_request() {
    let oidc = port::free();
    let port = format!("-oidc-server-listen-port={oidc}");
    let _sentry = Sentry::start(
        "",
        &[
            "-jwt-enabled",
            "-oidc-enabled",
            "-oidc-server-tls-enabled=false",
            "-oidc-server-listen-address=127.0.0.1",
            &port,
        ],
    )
    .await;
    let hostile = "Host: real.example\r\nX-Forwarded-Host: evil.example\r\n";
    let (status, document) = get(oidc, "/.well-known/openid-configuration", hostile)
        .await
        .unwrap();
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["issuer"], "http://real.example");
    assert_eq!(document["jwks_uri"], "http://real.example/jwks.json");
}

#[tokio::test]
async fn every_algorithm_can_be_generated_and_used_again() {
    for algorithm in ["RS512", "PS256", "ES256", "ES384", "EdDSA"] {
        let flag = format!("-jwt-signing-algorithm={algorithm}");
        let flags = ["-jwt-enabled", &flag, "-jwt-key-id=mine"];
        let mut sentry = Sentry::start("", &flags).await;
        let (security, _upkeep) = sentry.identity("app").await;
        let svid = security.identity().unwrap().current();
        let header = jsonwebtoken::decode_header(svid.jwt().unwrap()).unwrap();
        assert_eq!(format!("{:?}", header.alg), algorithm);
        assert_eq!(header.kid.as_deref(), Some("mine"));
        let set: JwkSet = serde_json::from_str(&read(&sentry.ca("jwks.json"))).unwrap();
        let key = DecodingKey::from_jwk(set.find("mine").unwrap()).unwrap();
        let mut rules = Validation::new(header.alg);
        rules.set_audience(&["public"]);
        jsonwebtoken::decode::<Value>(svid.jwt().unwrap(), &key, &rules).unwrap();
        assert_eq!(sentry.interrupt().await.code(), Some(0));
        let folder = std::mem::replace(&mut sentry.folder, tempfile::tempdir().unwrap());
        Sentry::start_in(folder, "", &flags, &[]).await;
    }
}

#[tokio::test]
async fn a_key_set_without_the_signing_key_fails_the_start() {
    let mut sentry = Sentry::start("", &["-jwt-enabled"]).await;
    sentry.interrupt().await;
    for (set, fragment) in [
        ("", "failed to parse JWKS: "),
        (r#"{"keys":[]}"#, "JWKS doesn't contain any keys"),
        (
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
            "JWKS doesn't contain a matching public key for the JWT signing key",
        ),
    ] {
        std::fs::write(sentry.ca("jwks.json"), set).unwrap();
        let config = sentry.folder.path().join("config.yaml");
        let (code, output) = run(
            &[
                "-port=0",
                "-healthz-port=0",
                "-metrics-port=0",
                &format!("-config={}", config.display()),
                &format!("-issuer-credentials={}", sentry.ca("").display()),
            ],
            &[],
        )
        .await;
        assert_eq!(code, Some(1));
        assert!(output.contains(fragment), "{output}");
    }
}

#[tokio::test]
async fn a_token_of_a_known_issuer_is_required_once_one_is_configured() {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k"});
    let config = json!({"spec": {"mtls": {"tokenValidators": [
        {"name": "jwks", "options": {"source": json!({"keys": [jwk]}).to_string()}}
    ]}}});
    let sentry = Sentry::start(&config.to_string(), &[]).await;
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("k".into());
    let end = time::OffsetDateTime::now_utc().unix_timestamp() + 600;
    let claims = json!({"aud": [SENTRY], "sub": "spiffe://public/ns/default/app", "exp": end});
    let signed = jsonwebtoken::encode(&header, &claims, &key).unwrap();

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &signed).unwrap();
    let mut options = sentry.options("app", Source::File(sentry.ca("ca.crt")));
    options.token = token::Source::choose(false, Some(file.path().display().to_string())).unwrap();
    let (security, _upkeep) = Security::start(options).await.unwrap();
    assert_eq!(
        security.id().unwrap().as_str(),
        "spiffe://public/ns/default/app"
    );

    let mut client = sentry.client(&security, SENTRY).await;
    let mut refused = async |validator: TokenValidator, id: &str, token: &str| {
        let request = SignCertificateRequest {
            id: id.into(),
            namespace: "default".into(),
            token: token.into(),
            token_validator: validator.into(),
            certificate_signing_request: b"x".as_slice().into(),
            ..Default::default()
        };
        let status = client.sign_certificate(request).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let unnamed = refused(TokenValidator::Unknown, "app", "").await;
    assert_eq!(
        unnamed,
        (
            Code::InvalidArgument,
            "a validator name must be specified in this environment".into()
        )
    );
    let insecure = refused(TokenValidator::Insecure, "app", "").await;
    assert_eq!(insecure.1, "the requested validator is not enabled");
    let empty = refused(TokenValidator::Jwks, "app", "").await;
    assert_eq!(
        empty,
        (
            Code::PermissionDenied,
            "the request does not contain a token".into()
        )
    );
    let other = refused(TokenValidator::Jwks, "other", &signed).await;
    assert_eq!(
        other.1,
        "token validation failed: \"sub\" not satisfied: values do not match"
    );
}

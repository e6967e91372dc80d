use proptest::prelude::*;
use rcgen::SignatureAlgorithm;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn policy() -> Policy {
    Policy {
        trust_domain: "localhost".parse().unwrap(),
        namespace: "default".into(),
        workload_ttl: 24 * HOUR,
        clock_skew: HOUR / 4,
        jwt: None,
    }
}

struct Member {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

fn params(name: &str, life: Duration) -> CertificateParams {
    let mut params = authority(name, HOUR).unwrap();
    params.not_after = OffsetDateTime::now_utc() + life;
    params
}

fn new_root(algorithm: &'static SignatureAlgorithm) -> Member {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let params = params("root", LIFE);
    let pem = params.self_signed(&key).unwrap().pem();
    Member { params, key, pem }
}

fn under(
    parent: &Member,
    algorithm: &'static SignatureAlgorithm,
    params: CertificateParams,
) -> Member {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let issuer = Issuer::from_params(&parent.params, &parent.key);
    let pem = params.signed_by(&key, &issuer).unwrap().pem();
    Member { params, key, pem }
}

fn material(root: &str, issuer: &str, key: &KeyPair) -> Material {
    Material {
        root: root.into(),
        issuer: issuer.into(),
        key: key.serialize_pem(),
    }
}

fn error(material: &Material) -> String {
    match Signer::verified(material, &policy()) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn generated_material_is_valid() {
    let made = generate(&"td".parse().unwrap(), "ns", HOUR).unwrap();
    let signer = Signer::verified(&made, &policy()).unwrap();
    assert_eq!(signer.root_pem(), made.root);
    assert_eq!(signer.chain_pem(), made.issuer);
    let year = OffsetDateTime::now_utc() + LIFE;
    assert!((signer.root_expiry() - year.unix_timestamp()).abs() < 5);
    let der = pem::certificates(made.root.as_bytes()).unwrap();
    let root = parse(&der[0]).unwrap();
    assert_eq!(root.subject().to_string(), "O=td");
    let der = pem::certificates(made.issuer.as_bytes()).unwrap();
    let issuer = parse(&der[0]).unwrap();
    assert_eq!(
        issuer.subject().to_string(),
        "O=spiffe://td/ns/ns/dapr-sentry"
    );
    let usage = issuer.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_cert_sign() && usage.crl_sign());
}

#[test]
fn every_kind_of_key_can_sign_through_any_number_of_steps() {
    let kinds = [
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
    ];
    for kind in kinds {
        let root = new_root(kind);
        let middle = under(&root, kind, params("middle", HOUR));
        let issuer = under(&middle, kind, params("issuer", HOUR));
        let other = new_root(&rcgen::PKCS_ED25519);
        // Comments, and a second root as during a rotation.
        let roots = format!("a root\n{}{}", other.pem, root.pem);
        let with_root = format!("{}{}{}", issuer.pem, middle.pem, root.pem);
        let signer =
            Signer::verified(&material(&roots, &with_root, &issuer.key), &policy()).unwrap();
        assert_eq!(
            pem::certificates(signer.chain_pem().as_bytes())
                .unwrap()
                .len(),
            2
        );
    }
}

#[test]
fn invalid_material_says_why() {
    let kind = &rcgen::PKCS_ED25519;
    let root = new_root(kind);
    let issuer = under(&root, kind, params("issuer", HOUR));
    let good = material(&root.pem, &issuer.pem, &issuer.key);
    assert!(Signer::verified(&good, &policy()).is_ok());
    let other = new_root(kind);

    let with = |change: &dyn Fn(&mut Material)| {
        let mut changed = good.clone();
        change(&mut changed);
        error(&changed)
    };
    assert_eq!(
        with(&|m| m.root.clear()),
        "failed to decode trust anchors: no certificates found"
    );
    assert!(
        with(&|m| m.root = issuer.pem.clone())
            .starts_with("certificate in trust anchor is not self-signed: ")
    );
    assert_eq!(with(&|m| m.issuer.clear()), "no certificates found");
    assert_eq!(
        with(&|m| m.issuer = format!("{}{}", issuer.pem, other.pem)),
        "certificate chain is not valid"
    );
    assert_eq!(
        with(&|m| m.issuer = root.pem.clone()),
        "issuer chain is empty after re-encoding"
    );
    assert_eq!(with(&|m| m.key = "x".into()), "key is not PEM encoded");
    assert_eq!(
        with(&|m| m.key = pem::encode("DSA PRIVATE KEY", b"x")),
        "unsupported block type DSA PRIVATE KEY"
    );
    assert_eq!(
        with(&|m| m.key = other.key.serialize_pem()),
        "issuer key does not match issuer certificate"
    );
    let untrusted = "issuer chain does not belong to trust anchors: ";
    assert!(with(&|m| m.root = other.pem.clone()).starts_with(untrusted));

    let mut old = params("issuer", HOUR);
    old.not_before = OffsetDateTime::now_utc() - 3 * HOUR;
    old.not_after = OffsetDateTime::now_utc() - HOUR;
    let old = under(&root, kind, old);
    assert!(
        error(&material(&root.pem, &old.pem, &old.key))
            .starts_with("issuer certificate has expired")
    );

    let mut no_ca = params("issuer", HOUR);
    no_ca.is_ca = IsCa::ExplicitNoCa;
    let no_ca = under(&root, kind, no_ca);
    assert_eq!(
        error(&material(&root.pem, &no_ca.pem, &no_ca.key)),
        "intermediate certificate is not valid for signing"
    );
}

#[test]
fn no_certificate_outlives_its_issuer() {
    let kind = &rcgen::PKCS_ED25519;
    let root = new_root(kind);
    let issuer = under(&root, kind, params("issuer", HOUR));
    let good = material(&root.pem, &issuer.pem, &issuer.key);
    let signer = Signer::verified(&good, &policy()).unwrap();
    let id: SpiffeId = "spiffe://public/ns/default/app".parse().unwrap();
    let key = PublicKey::of(&KeyPair::generate_for(kind).unwrap()).unwrap();
    let leaf = signer
        .sign(&key, &Workload::application(id), &policy())
        .unwrap();
    assert_eq!(leaf.not_after.unix_timestamp(), signer.issuer_expiry());
}

#[test]
fn keys_are_read_from_all_their_usual_blocks() {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let read = private_key(&format!("a comment\n{}", pair.serialize_pem())).unwrap();
    assert_eq!(
        rcgen::PublicKeyData::der_bytes(&read),
        rcgen::PublicKeyData::der_bytes(&pair)
    );
    for (label, der) in [("EC PRIVATE KEY", b"x"), ("RSA PRIVATE KEY", b"x")] {
        let broken = private_key(&pem::encode(label, der));
        assert!(matches!(broken, Err(Invalid::Key(_))), "{label}");
    }
}

proptest! {
    #[test]
    fn prop_text_that_is_no_material_is_an_error(root in ".{0,60}", issuer in ".{0,60}", key in ".{0,60}") {
        let made_up = Material { root, issuer, key };
        prop_assert!(Signer::verified(&made_up, &policy()).is_err());
    }

    #[test]
    fn prop_damaged_material_never_panics(at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let made = generate(&TrustDomain::public(), "ns", HOUR).unwrap();
        for which in 0..3 {
            let mut damaged = made.clone();
            let text = [&mut damaged.root, &mut damaged.issuer, &mut damaged.key][which].clone();
            let mut bytes = text.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = with & 0x7f;
            let changed = String::from_utf8(bytes).unwrap();
            match which {
                0 => damaged.root = changed,
                1 => damaged.issuer = changed,
                _ => damaged.key = changed,
            }
            let _ = Signer::verified(&damaged, &policy());
        }
    }
}

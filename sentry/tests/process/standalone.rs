use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use outrider_proto::sentry::v1::SignCertificateRequest;
use outrider_security::anchors::Source;
use outrider_security::{Security, pem};
use rcgen::{CertificateParams, KeyPair};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::sentry::{Sentry, read, run, until};

const SENTRY: &str = "spiffe://localhost/ns/default/dapr-sentry";

fn csr() -> String {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    // Names in a request are not copied.
    let params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn request(id: &str) -> SignCertificateRequest {
    SignCertificateRequest {
        id: id.into(),
        namespace: "default".into(),
        certificate_signing_request: csr().into_bytes().into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_empty_folder_is_filled_and_applications_get_certificates() {
    let mut sentry = Sentry::start("", &[]).await;
    for name in ["ca.crt", "issuer.crt", "issuer.key"] {
        let mode = sentry.ca(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let (security, _upkeep) = sentry.identity("app").await;
    let svid = security.identity().unwrap().current();
    assert_eq!(svid.id().as_str(), "spiffe://public/ns/default/app");
    let day = Duration::from_secs(24 * 3600);
    let life = svid.not_after().duration_since(SystemTime::now()).unwrap();
    assert!(
        life <= day && life > day - Duration::from_secs(60),
        "{life:?}"
    );

    let year = 365.0 * 24.0 * 3600.0;
    let expiry = sentry
        .metric("dapr_sentry_issuercert_expiry_timestamp")
        .await
        .unwrap();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert!((expiry - now.as_secs_f64() - year).abs() < 60.0);
    assert_eq!(
        sentry.metric("dapr_sentry_cert_sign_success_total").await,
        Some(1.0)
    );
    assert_eq!(sentry.interrupt().await.code(), Some(0));
}

#[tokio::test]
async fn a_certificate_has_the_profile_that_peers_expect() {
    let sentry = Sentry::start("", &[]).await;
    let (security, _upkeep) = sentry.identity("app").await;
    let mut client = sentry.client(&security, SENTRY).await;
    let answer = client
        .sign_certificate(request("myapp"))
        .await
        .unwrap()
        .into_inner();
    let chain = pem::certificates(&answer.workload_certificate).unwrap();
    assert_eq!(chain.len(), 2);
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical);
    assert_eq!(
        names.value.general_names,
        [GeneralName::URI("spiffe://public/ns/default/myapp")]
    );
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(
        usage.critical && usage.value.digital_signature() && usage.value.flags.count_ones() == 1
    );
    assert!(leaf.basic_constraints().unwrap().is_none());
    let (_, issuer) = X509Certificate::from_der(&chain[1]).unwrap();
    assert_eq!(
        issuer.subject().to_string(),
        "O=spiffe://localhost/ns/default/dapr-sentry"
    );
    assert_eq!(leaf.issuer(), issuer.subject());
    assert_eq!(
        answer.trust_chain_certificates,
        [read(&sentry.ca("ca.crt")).into_bytes()]
    );
    let until = answer.valid_until.unwrap().seconds;
    assert_eq!(until, leaf.validity().not_after.timestamp());
    assert_eq!(answer.jwt, None);
}

#[tokio::test]
async fn services_get_the_dns_names_they_are_dialled_by() {
    let sentry = Sentry::start("", &[]).await;
    let (security, _upkeep) = sentry.identity("app").await;
    let mut client = sentry.client(&security, SENTRY).await;
    let mut names_of = async |id: &str, namespace: &str| {
        let mut request = request(id);
        request.namespace = namespace.into();
        let answer = client.sign_certificate(request).await.unwrap().into_inner();
        let chain = pem::certificates(&answer.workload_certificate).unwrap();
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        let names = names.value.general_names.iter();
        names
            .filter_map(|n| match n {
                GeneralName::DNSName(name) => Some(name.to_string()),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names_of("dapr-injector", "default").await,
        ["dapr-sidecar-injector.default.svc"]
    );
    assert_eq!(
        names_of("dapr-operator", "default").await,
        ["dapr-webhook.default.svc"]
    );
    let schedulers = names_of("dapr-scheduler", "default").await;
    assert_eq!(schedulers.len(), 3);
    assert_eq!(
        schedulers[2],
        "dapr-scheduler-server-2.dapr-scheduler-server.default.svc.localhost"
    );
    assert!(names_of("dapr-injector", "other").await.is_empty());
    assert!(names_of("dapr-placement", "default").await.is_empty());
}

#[tokio::test]
async fn a_bad_request_gets_the_code_and_text_that_clients_know() {
    let sentry = Sentry::start("", &[]).await;
    let (security, _upkeep) = sentry.identity("app").await;
    let mut client = sentry.client(&security, SENTRY).await;
    let mut refused = async |change: fn(&mut SignCertificateRequest)| {
        let mut request = request("myapp");
        change(&mut request);
        let status = client.sign_certificate(request).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let no_csr = refused(|r| r.certificate_signing_request = Default::default()).await;
    assert_eq!(
        no_csr,
        (
            Code::PermissionDenied,
            "invalid request: CSR is required".into()
        )
    );
    let no_namespace = refused(|r| r.namespace.clear()).await;
    assert_eq!(no_namespace.1, "invalid request: namespace is required");
    let unknown = refused(|r| r.token_validator = -1).await;
    assert_eq!(
        unknown,
        (
            Code::InvalidArgument,
            "the requested validator is not enabled".into()
        )
    );
    assert_eq!(refused(|r| r.token_validator = 2).await, unknown);
    let key = refused(|r| {
        r.certificate_signing_request = pem::encode("PRIVATE KEY", b"x").into_bytes().into();
    })
    .await;
    assert_eq!(
        key,
        (
            Code::InvalidArgument,
            "invalid certificate signing request".into()
        )
    );
    let garbage = refused(|r| {
        r.certificate_signing_request =
            pem::encode("CERTIFICATE REQUEST", b"x").into_bytes().into();
    })
    .await;
    assert_eq!(garbage.0, Code::InvalidArgument);
    assert!(
        garbage
            .1
            .starts_with("failed to parse certificate signing request: ")
    );
    let smuggled = refused(|r| r.id = "a/b".into()).await;
    assert_eq!(
        smuggled,
        (Code::Internal, "failed to sign certificate".into())
    );
    let domain = refused(|r| r.trust_domain = "A".into()).await;
    assert_eq!(domain.0, Code::PermissionDenied);
    assert_eq!(
        sentry
            .metric("dapr_sentry_cert_sign_failure_total{reason=\"sign\"}")
            .await,
        Some(8.0)
    );
}

#[tokio::test]
async fn short_lived_certificates_are_renewed_in_memory_and_on_disk() {
    let config = "spec:\n  mtls:\n    workloadCertTTL: 2s\n    allowedClockSkew: 1s\n";
    let sentry = Sentry::start(config, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = sentry.options("app", Source::File(sentry.ca("ca.crt")));
    options.directory = Some(folder.path().join("secrets/tls"));
    let (security, upkeep) = Security::start(options).await.unwrap();
    let identity = security.identity().unwrap().clone();
    let first = identity.current().not_after();
    let on_disk = |name: &str| read(&folder.path().join("secrets/tls").join(name));
    let first_on_disk = on_disk("cert.pem");
    assert_eq!(
        first_on_disk,
        pem::encode_certificates(identity.current().chain())
    );
    assert_eq!(on_disk("ca.pem"), read(&sentry.ca("ca.crt")));
    assert_eq!(
        on_disk("key.pem"),
        pem::encode("PRIVATE KEY", identity.current().key_der())
    );
    let stop = CancellationToken::new();
    let running = tokio::spawn(upkeep.run(stop.clone()));
    until("two renewals later", || {
        let renewed = identity.current().not_after() > first + Duration::from_secs(1);
        async move { renewed.then_some(()) }
    })
    .await;
    // Sentry's own certificate lives as short, and still serves.
    sentry.client(&security, SENTRY).await;
    stop.cancel();
    running.await.unwrap();
    assert_ne!(on_disk("cert.pem"), first_on_disk);
    // The link and what it leads to; older versions are gone.
    let kept = std::fs::read_dir(folder.path().join("secrets")).unwrap();
    assert_eq!(kept.count(), 2);
}

#[tokio::test]
async fn a_client_with_other_anchors_gets_no_certificate() {
    let (sentry, other) = tokio::join!(Sentry::start("", &[]), Sentry::start("", &[]));
    let anchors = Source::Text(read(&other.ca("ca.crt")));
    let start = Security::start(sentry.options("app", anchors));
    let started = tokio::time::timeout(Duration::from_millis(1500), start).await;
    assert!(started.is_err(), "it must go on trying");
    // A sentry of the right CA but the wrong trust domain is refused as well.
    let mut options = sentry.options("app", Source::File(sentry.ca("ca.crt")));
    options.control_plane.trust_domain = "elsewhere".parse().unwrap();
    let started = tokio::time::timeout(Duration::from_millis(1500), Security::start(options)).await;
    assert!(started.is_err(), "it must go on trying");
}

#[tokio::test]
async fn a_new_ca_is_used_without_a_restart_and_a_broken_one_is_ignored() {
    let (sentry, other) = tokio::join!(Sentry::start("", &[]), Sentry::start("", &[]));
    let (security, upkeep) = sentry.identity("app").await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(upkeep.run(stop.clone()));
    // A broken file changes nothing.
    let good = read(&sentry.ca("issuer.key"));
    std::fs::write(sentry.ca("issuer.key"), "broken").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let _ = sentry.identity("second").await;
    std::fs::write(sentry.ca("issuer.key"), good).unwrap();

    // The other sentry's CA, trusted beside the old one, as in a rotation.
    let (old, new) = (read(&sentry.ca("ca.crt")), read(&other.ca("ca.crt")));
    std::fs::write(sentry.ca("ca.crt"), format!("{old}{new}")).unwrap();
    for name in ["issuer.crt", "issuer.key"] {
        std::fs::copy(other.ca(name), sentry.ca(name)).unwrap();
    }
    let issuer = pem::certificates(read(&other.ca("issuer.crt")).as_bytes()).unwrap();
    let is_new = |security: &Security| {
        let svid = security.identity().unwrap().current();
        svid.chain()[1..] == issuer[..]
    };
    until("the new issuer at work", || async {
        let (fresh, _upkeep) = sentry.identity("third").await;
        is_new(&fresh).then_some(())
    })
    .await;
    // Without the old root, certificates under it are no longer valid.
    std::fs::write(sentry.ca("ca.crt"), new).unwrap();
    until("a renewal because the anchors changed", || {
        let renewed = is_new(&security);
        async move { renewed.then_some(()) }
    })
    .await;
    sentry.client(&security, SENTRY).await;
    assert!(
        sentry
            .metric("dapr_sentry_issuercert_changed_total")
            .await
            .unwrap()
            >= 2.0
    );
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let base = ["-port=0", "-healthz-port=0", "-metrics-port=0"];
    let started = async |more: &[String]| {
        let arguments: Vec<&str> = base
            .into_iter()
            .chain(more.iter().map(String::as_str))
            .collect();
        run(&arguments, &[]).await
    };
    let (code, output) = started(&["--nonsense".into()]).await;
    assert_eq!(code, Some(2));
    assert!(output.contains("unknown flag: --nonsense"), "{output}");

    let (code, output) = started(&[format!("--config={}", at("none"))]).await;
    assert_eq!(code, Some(1));
    let fragment = format!(
        "couldn't find config name \\\"{0}\\\": stat {0}: no such file or directory",
        at("none")
    );
    assert!(output.contains(&fragment), "{output}");

    std::fs::write(at("config"), "").unwrap();
    let config = format!("--config={}", at("config"));
    let absent = format!("--issuer-credentials={}", at("absent"));
    let (code, output) = started(&[config.clone(), absent]).await;
    assert_eq!(code, Some(1));
    assert!(output.contains("failed to add target"), "{output}");

    for (name, text, fragment) in [
        (
            "ca.crt",
            "x",
            "failed to decode trust anchors: no certificates found",
        ),
        ("issuer.key", "x", "key is not PEM encoded"),
        (
            "issuer.key",
            "-----BEGIN FOO-----\neA==\n-----END FOO-----\n",
            "unsupported block type FOO",
        ),
        ("issuer.crt", "x", "no certificates found"),
    ] {
        let sentry = Sentry::start("", &[]).await;
        let folder = sentry.ca("");
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(folder).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        std::fs::write(copy.path().join(name), text).unwrap();
        let credentials = format!("--issuer-credentials={}", copy.path().display());
        let (code, output) = started(&[config.clone(), credentials]).await;
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains(fragment), "{name}: {output}");
    }
}

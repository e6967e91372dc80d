//! Targets for what the lower crates read.

use std::str::FromStr as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use outrider_components_keys::{Form, Key};
use outrider_crds::annotations::{self, Map};
use outrider_crds::{
    Component, Configuration, HttpEndpoint, Kind, Resiliency, Subscription, app_id, yaml,
};
use outrider_kit::cron::Schedule;
use outrider_kit::{duration, quantity, quote, truthy};
use outrider_security::acl::{self, AccessControl, Call, Verb};
use outrider_security::{SpiffeId, TrustDomain, chain, pem};
use rustls_pki_types::CertificateDer;

/// An operation in the first line, an access list as JSON in the others.
pub fn access(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (operation, list) = text.split_once('\n').unwrap_or((&text, "null"));
    let Ok(normal) = acl::normalise(operation) else {
        return;
    };
    assert_eq!(acl::normalise(&normal).as_ref(), Ok(&normal));
    assert!(!normal.split('/').any(|part| part == ".."), "{normal}");
    let Ok(list) = serde_json::from_str::<acl::Spec>(list) else {
        return;
    };
    let Ok(Some(list)) = AccessControl::parse(Some(&list)) else {
        return;
    };
    let caller = SpiffeId::from_str("spiffe://public/ns/default/app").ok();
    for caller in [None, caller.as_ref()] {
        let rooted = format!("/{}", normal.trim_start_matches('/'));
        let once = list.evaluate(caller, &normal, Call::Http(Verb::Get));
        let again = list.evaluate(caller, &rooted, Call::Http(Verb::Get));
        assert_eq!(once.allowed, again.allowed, "{normal}");
    }
}

/// Annotations of a pod as a JSON object.
pub fn annotations(bytes: &[u8]) {
    let Ok(map) = serde_json::from_slice::<Map>(bytes) else {
        return;
    };
    let _ = annotations::APP_PORT.read(&map);
    let _ = annotations::GRPC_PORT.read(&map);
    let _ = annotations::ENABLE_METRICS.read(&map);
    let _ = app_id::service_name(annotations::APP_ID.text(&map).unwrap_or_default());
}

/// A certificate of a peer, and a bundle of trust anchors.
pub fn certificates(bytes: &[u8]) {
    let _ = chain::id_of(&CertificateDer::from(bytes));
    for certificate in pem::certificates(bytes).into_iter().flatten() {
        let _ = chain::id_of(&certificate);
    }
}

pub fn ids(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(id) = SpiffeId::from_str(&text) {
        assert_eq!(SpiffeId::from_str(id.as_str()).as_ref(), Ok(&id));
        let _ = (id.as_workload(), id.namespace(), id.app_id(), id.path());
        let domain = id.trust_domain();
        assert_eq!(TrustDomain::from_str(domain.as_str()), Ok(domain));
    }
    let _ = TrustDomain::from_str(&text);
}

pub fn quantities(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(read) = duration::parse(&text) {
        assert_eq!(duration::parse(&duration::format(read)), Ok(read));
    }
    let _ = quantity::parse(&text);
    let _ = truthy(&text);
    let quoted = quote::go(&text);
    assert!(quoted.len() >= 2 && quoted.starts_with('"') && quoted.ends_with('"'));
}

/// Manifests.
pub fn resources(bytes: &[u8]) {
    fn read<K: Kind>(document: &serde_json::Value) {
        let _ = K::from_document(document);
    }
    for document in yaml::documents(&String::from_utf8_lossy(bytes)).flatten() {
        read::<Component>(&document);
        read::<Configuration>(&document);
        read::<HttpEndpoint>(&document);
        read::<Resiliency>(&document);
        read::<Subscription>(&document);
    }
}

/// Schedules of cron bindings.
pub fn schedules(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(schedule) = Schedule::parse(&text, TimeZone::UTC) else {
        return;
    };
    let mut now = Timestamp::UNIX_EPOCH;
    for _ in 0..4 {
        let Some(next) = schedule.next(now) else {
            return;
        };
        assert!(next > now, "{text}: {next} after {now}");
        now = next;
    }
}

/// A key in any form, and a set of keys.
pub fn keys(bytes: &[u8]) {
    for form in [Form::Json, Form::Pem, Form::Unknown] {
        if let Ok(key) = Key::parse(bytes, form) {
            let _ = key.serialize();
        }
    }
    let _ = Key::parse_set(bytes);
}

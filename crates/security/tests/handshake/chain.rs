//! What a chain of certificates proves, and what it does not.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use outrider_security::{Issue, Roots, chain, pem};
use proptest::prelude::*;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::ID;
use crate::ca::Authority;

fn request() -> String {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

async fn issued(authority: &Authority) -> Vec<CertificateDer<'static>> {
    let issued = authority.issue(&request()).await.unwrap();
    pem::certificates(issued.chain_pem.as_bytes()).unwrap()
}

struct Sound {
    chain: Vec<CertificateDer<'static>>,
    roots: Roots,
}

static SOUND: LazyLock<Sound> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let authority = Authority::new(ID);
    Sound {
        chain: runtime.block_on(issued(&authority)),
        roots: Roots::parse(&authority.root_pem).unwrap(),
    }
});

fn seconds_from_now(seconds: i64) -> UnixTime {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let at = i64::try_from(now.as_secs()).unwrap() + seconds;
    UnixTime::since_unix_epoch(Duration::from_secs(at.unsigned_abs()))
}

#[test]
fn a_chain_proves_its_id_while_it_is_valid() {
    let Sound {
        chain: presented,
        roots,
    } = &*SOUND;
    let at = |seconds| chain::verify(presented, roots, seconds_from_now(seconds));
    assert_eq!(at(0).unwrap().as_str(), ID);
    assert!(matches!(at(7200), Err(chain::Error::Untrusted(_))));
    assert!(matches!(at(-7200), Err(chain::Error::Untrusted(_))));
}

#[test]
fn a_chain_that_is_cut_or_foreign_proves_nothing() {
    let Sound {
        chain: presented,
        roots,
    } = &*SOUND;
    let now = seconds_from_now(0);
    assert_eq!(chain::verify(&[], roots, now), Err(chain::Error::Empty));
    assert!(matches!(
        chain::verify(&presented[..1], roots, now),
        Err(chain::Error::Untrusted(_))
    ));
    let foreign = Roots::parse(&Authority::new(ID).root_pem).unwrap();
    assert!(matches!(
        chain::verify(presented, &foreign, now),
        Err(chain::Error::Untrusted(_))
    ));
    // An issuer is no workload, though it chains as well.
    assert_eq!(
        chain::verify(&presented[1..], roots, now),
        Err(chain::Error::Ca)
    );
}

proptest! {
    #[test]
    fn prop_bytes_that_are_no_certificate_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let leaf = CertificateDer::from(bytes);
        prop_assert!(chain::verify(&[leaf], &SOUND.roots, seconds_from_now(0)).is_err());
    }

    #[test]
    fn prop_a_damaged_chain_never_proves_another_id(
        which in 0usize..2,
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut presented = SOUND.chain.clone();
        let mut der = presented[which].to_vec();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        presented[which] = der.into();
        if let Ok(id) = chain::verify(&presented, &SOUND.roots, seconds_from_now(0)) {
            prop_assert_eq!(id.as_str(), ID);
        }
    }
}

//! SPIFFE ids as Dapr writes them: `spiffe://<trust domain>/ns/<namespace>/<app id>`.
//!
//! The rules for characters are those of the SPIFFE-ID standard, section 2.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const SCHEME: &str = "spiffe://";

/// Why a text is not a SPIFFE id or trust domain. Clients of sentry see these texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("cannot be empty")]
    Empty,
    #[error("scheme is missing or invalid")]
    Scheme,
    #[error("trust domain is missing")]
    NoTrustDomain,
    #[error(
        "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"
    )]
    TrustDomainCharacter,
    #[error("path cannot contain empty segments")]
    EmptySegment,
    #[error("path cannot contain dot segments")]
    DotSegment,
    #[error(
        "path segment characters are limited to letters, numbers, dots, dashes, and underscores"
    )]
    PathCharacter,
    #[error("path cannot have a trailing slash")]
    TrailingSlash,
}

/// The part of a SPIFFE id before the path. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The trust domain of applications that name no other.
    pub fn public() -> Self {
        Self("public".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = Invalid;

    /// Accepts a bare name or a whole SPIFFE id, whose trust domain is taken.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::NoTrustDomain);
        }
        if text.contains(":/") {
            return SpiffeId::from_str(text).map(|id| id.trust_domain());
        }
        check_trust_domain(text)?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE id. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Arc<str>,
    /// Where the path starts in `uri`; the length of `uri` if there is none.
    path: usize,
}

/// The namespace and app id that a SPIFFE id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload<'a> {
    pub namespace: &'a str,
    pub app_id: &'a str,
}

impl SpiffeId {
    /// The id of an application or control-plane service.
    pub fn workload(
        trust_domain: &TrustDomain,
        namespace: &str,
        app_id: &str,
    ) -> Result<Self, Invalid> {
        for segment in [namespace, app_id] {
            check_segment(segment)?;
        }
        Ok(Self {
            uri: format!("{SCHEME}{trust_domain}/ns/{namespace}/{app_id}").into(),
            path: SCHEME.len() + trust_domain.as_str().len(),
        })
    }

    pub fn as_str(&self) -> &str {
        &self.uri
    }

    pub fn trust_domain_str(&self) -> &str {
        &self.uri[SCHEME.len()..self.path]
    }

    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.trust_domain_str().into())
    }

    /// With its leading slash; empty if there is none.
    pub fn path(&self) -> &str {
        &self.uri[self.path..]
    }

    /// The namespace and app id, if the path has Dapr's form. Segments after
    /// the app id are tolerated.
    pub fn as_workload(&self) -> Option<Workload<'_>> {
        let mut segments = self.path().strip_prefix("/ns/")?.split('/');
        let namespace = segments.next().filter(|s| !s.is_empty())?;
        let app_id = segments.next().filter(|s| !s.is_empty())?;
        Some(Workload { namespace, app_id })
    }

    /// The namespace; empty if the id does not have Dapr's form.
    pub fn namespace(&self) -> &str {
        self.as_workload().map_or("", |w| w.namespace)
    }

    /// The app id; empty if the id does not have Dapr's form.
    pub fn app_id(&self) -> &str {
        self.as_workload().map_or("", |w| w.app_id)
    }
}

impl FromStr for SpiffeId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::Empty);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(Invalid::Scheme)?;
        let domain = rest.find('/').unwrap_or(rest.len());
        if domain == 0 {
            return Err(Invalid::NoTrustDomain);
        }
        check_trust_domain(&rest[..domain])?;
        if let Some(path) = rest[domain..].strip_prefix('/') {
            if path.is_empty() || path.ends_with('/') {
                return Err(Invalid::TrailingSlash);
            }
            for segment in path.split('/') {
                check_segment(segment)?;
            }
        }
        Ok(Self {
            uri: text.into(),
            path: SCHEME.len() + domain,
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

fn check_trust_domain(name: &str) -> Result<(), Invalid> {
    let legal = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
    if name.bytes().all(legal) {
        Ok(())
    } else {
        Err(Invalid::TrustDomainCharacter)
    }
}

fn check_segment(segment: &str) -> Result<(), Invalid> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    match segment {
        "" => Err(Invalid::EmptySegment),
        "." | ".." => Err(Invalid::DotSegment),
        s if s.bytes().all(legal) => Ok(()),
        _ => Err(Invalid::PathCharacter),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_workload_id_has_a_namespace_and_an_app_id() {
        let id: SpiffeId = "spiffe://public/ns/default/my-app/extra".parse().unwrap();
        assert_eq!(id.trust_domain_str(), "public");
        assert_eq!(id.path(), "/ns/default/my-app/extra");
        assert_eq!(
            id.as_workload(),
            Some(Workload {
                namespace: "default",
                app_id: "my-app"
            })
        );
        for other in ["spiffe://td", "spiffe://td/ns/a", "spiffe://td/sa/a/b"] {
            assert_eq!(other.parse::<SpiffeId>().unwrap().as_workload(), None);
        }
    }

    #[test]
    fn an_invalid_id_says_why() {
        for (text, why) in [
            ("", Invalid::Empty),
            ("https://td/ns/a/b", Invalid::Scheme),
            ("spiffe:///ns/a/b", Invalid::NoTrustDomain),
            ("spiffe://Td/ns/a/b", Invalid::TrustDomainCharacter),
            ("spiffe://td:80/ns/a/b", Invalid::TrustDomainCharacter),
            ("spiffe://td/", Invalid::TrailingSlash),
            ("spiffe://td/ns//b", Invalid::EmptySegment),
            ("spiffe://td/ns/../b", Invalid::DotSegment),
            ("spiffe://td/ns/a/b c", Invalid::PathCharacter),
            ("spiffe://td/ns/a/é", Invalid::PathCharacter),
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(why), "{text}");
        }
        assert_eq!("".parse::<TrustDomain>(), Err(Invalid::NoTrustDomain));
        assert_eq!("http://x".parse::<TrustDomain>(), Err(Invalid::Scheme));
        assert_eq!(
            "spiffe://td/ns/a/b"
                .parse::<TrustDomain>()
                .unwrap()
                .as_str(),
            "td"
        );
    }

    #[test]
    fn an_app_id_with_a_slash_or_dots_is_refused() {
        let td = TrustDomain::public();
        assert_eq!(
            SpiffeId::workload(&td, "default", "a/b"),
            Err(Invalid::PathCharacter)
        );
        assert_eq!(SpiffeId::workload(&td, "..", "a"), Err(Invalid::DotSegment));
    }

    proptest! {
        #[test]
        fn prop_any_text_is_refused_or_unchanged(text in ".{0,60}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.as_str(), &text);
            }
            let _ = text.parse::<TrustDomain>();
        }

        #[test]
        fn prop_a_made_id_reads_back(
            td in "[a-z0-9._-]{1,20}",
            ns in "[A-Za-z0-9_-]{1,20}",
            app in "[A-Za-z0-9_-]{1,20}",
        ) {
            let td: TrustDomain = td.parse().unwrap();
            let id = SpiffeId::workload(&td, &ns, &app).unwrap();
            let read: SpiffeId = id.as_str().parse().unwrap();
            prop_assert_eq!(&read, &id);
            prop_assert_eq!(read.trust_domain(), td);
            prop_assert_eq!(read.as_workload(), Some(Workload { namespace: &ns, app_id: &app }));
        }
    }
}

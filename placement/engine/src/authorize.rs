//! Who may report what.

use crate::Host;

/// App id and namespace of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller<'a> {
    pub app_id: &'a str,
    pub namespace: &'a str,
}

/// Why a report is refused. The texts are those of Dapr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    Invalid(String),
    Denied(String),
}

/// Judges a report. There is no caller where mTLS is off.
pub fn authorize(host: &Host, caller: Option<Caller<'_>>) -> Result<(), Refused> {
    let (app_id, namespace) = (&host.app_id, &host.namespace);
    if app_id.is_empty() || namespace.is_empty() {
        let text = "host ID and namespace must be provided";
        return Err(Refused::Invalid(text.to_owned()));
    }
    if let Some(caller) = caller {
        if app_id != caller.app_id {
            return Err(Refused::Denied(format!(
                "provided app ID {app_id} doesn't match the one in the SPIFFE ID ({})",
                caller.app_id
            )));
        }
        if namespace != caller.namespace {
            return Err(Refused::Denied(format!(
                "provided client namespace {namespace} doesn't match the one in the SPIFFE ID ({})",
                caller.namespace
            )));
        }
    }
    let foreign = |actor_type: &&String| !is_allowed(actor_type, app_id, namespace);
    match host.actor_types.iter().find(foreign) {
        None => Ok(()),
        Some(actor_type) => Err(Refused::Denied(format!(
            "entity {actor_type} is not allowed for app ID {app_id} in namespace {namespace}"
        ))),
    }
}

/// Types that begin with `dapr.internal.` belong to the application that the
/// rest of the name says: `dapr.internal.<namespace>.<app id>.<what>`.
fn is_allowed(actor_type: &str, app_id: &str, namespace: &str) -> bool {
    let mut parts = actor_type.split('.');
    if parts.next() != Some("dapr") || parts.next() != Some("internal") {
        return true;
    }
    parts.next() == Some(namespace) && parts.next() == Some(app_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(actor_type: &str) -> Host {
        Host::new(
            "10.0.0.1:50002".into(),
            "app".into(),
            "ns".into(),
            vec![actor_type.into()],
        )
    }

    #[test]
    fn internal_types_are_for_the_application_that_they_name() {
        for allowed in [
            "mine",
            "dapr.mine",
            "internal.dapr",
            "dapr.internal.ns.app.workflow",
            "dapr.internal.ns.app.a.b",
            "dapr.internal.ns.app",
        ] {
            assert_eq!(authorize(&host(allowed), None), Ok(()), "{allowed}");
        }
        for denied in [
            "dapr.internal",
            "dapr.internal.ns",
            "dapr.internal.other.app.workflow",
            "dapr.internal.ns.other.workflow",
            "dapr.internal.app.ns.workflow",
        ] {
            let wanted = format!("entity {denied} is not allowed for app ID app in namespace ns");
            assert_eq!(
                authorize(&host(denied), None),
                Err(Refused::Denied(wanted)),
                "{denied}"
            );
        }
    }

    #[test]
    fn a_report_has_the_ids_of_the_certificate() {
        let caller = |app_id, namespace| Some(Caller { app_id, namespace });
        assert_eq!(authorize(&host("t"), caller("app", "ns")), Ok(()));
        assert_eq!(
            authorize(&host("t"), caller("other", "ns")),
            Err(Refused::Denied(
                "provided app ID app doesn't match the one in the SPIFFE ID (other)".into()
            ))
        );
        assert_eq!(
            authorize(&host("t"), caller("app", "other")),
            Err(Refused::Denied(
                "provided client namespace ns doesn't match the one in the SPIFFE ID (other)"
                    .into()
            ))
        );
        let nameless = Host::default();
        assert_eq!(
            authorize(&nameless, None),
            Err(Refused::Invalid(
                "host ID and namespace must be provided".into()
            ))
        );
    }
}

//! `GET /placement/state`: the hosts of each namespace.

use std::collections::BTreeMap;

use http::StatusCode;
use outrider_host::health::JsonPage;
use outrider_placement_engine::{Host, Membership};
use outrider_proto::placement::v1::HostOperation;
use serde::Serialize;

use crate::server::Lead;

#[derive(Serialize, Default)]
struct State {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tables: BTreeMap<String, Table>,
}

#[derive(Serialize)]
struct Table {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<Entry>,
    #[serde(skip_serializing_if = "is_zero")]
    version: u64,
}

#[derive(Serialize)]
struct Entry {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    entities: Vec<String>,
    id: String,
    #[serde(skip_serializing_if = "is_zero_level")]
    api_level: u32,
    namespace: String,
    operation: i32,
}

fn is_zero(version: &u64) -> bool {
    *version == 0
}

fn is_zero_level(level: &u32) -> bool {
    *level == 0
}

/// A replica that does not serve knows no hosts: it answers 503.
pub fn state(lead: Lead) -> JsonPage {
    Box::new(move |path| {
        if path != "/placement/state" {
            return None;
        }
        let Some(memberships) = lead.memberships() else {
            let text = r#"{"error":"this replica is not the leader: ask another one"}"#;
            return Some((StatusCode::SERVICE_UNAVAILABLE, text.to_owned()));
        };
        let tables = memberships.into_iter().map(|(name, it)| (name, table(it)));
        let state = State {
            tables: tables.collect(),
        };
        let text = serde_json::to_string(&state).unwrap_or_default();
        Some((StatusCode::OK, text))
    })
}

fn table(membership: Membership) -> Table {
    let entry = |host: Host| Entry {
        name: host.name,
        entities: host.actor_types,
        id: host.app_id,
        api_level: host.api_level,
        namespace: host.namespace,
        operation: HostOperation::Report.into(),
    };
    Table {
        hosts: membership.hosts.into_iter().map(entry).collect(),
        version: membership.version,
    }
}

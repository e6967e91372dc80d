//! Actors: where they are, when they go, what is due.

use std::sync::Arc;

use outrider_telemetry::metrics::{Counter, Family, Registry};

use super::{Labels, Names};

pub struct Families {
    app_id: String,
    reports: Family<Counter>,
    failed_reports: Family<Counter>,
    orders: Family<Counter>,
    rebalanced: Family<Counter>,
    deactivated: Family<Counter>,
    not_deactivated: Family<Counter>,
    reminders: Family<Counter>,
    timers: Family<Counter>,
}

impl Families {
    pub(super) fn new(names: &Names<'_>) -> Self {
        const TYPE: Labels = &["app_id", "actor_type"];
        const FIRED: Labels = &["app_id", "actor_type", "success"];
        let counter = |name: &str, help: &str, labels| {
            names.counter(&format!("runtime_actor_{name}"), help, labels, &[])
        };
        Self {
            app_id: names.app_id.to_owned(),
            reports: counter(
                "status_report_total",
                "Messages to the placement service.",
                &["app_id", "actor_type", "operation"],
            ),
            failed_reports: counter(
                "status_report_fail_total",
                "Messages that the placement service did not get.",
                &["app_id", "actor_type", "operation", "reason"],
            ),
            orders: counter(
                "table_operation_recv_total",
                "Orders of the placement service.",
                &["app_id", "actor_type", "operation"],
            ),
            rebalanced: counter(
                "rebalanced_total",
                "Actors that went because they belong elsewhere.",
                TYPE,
            ),
            deactivated: counter("deactivated_total", "Actors that were deactivated.", TYPE),
            not_deactivated: counter(
                "deactivated_failed_total",
                "Actors that went without the application knowing it.",
                &["app_id", "actor_type", "reason"],
            ),
            reminders: counter("reminders_fired_total", "Reminders that were due.", FIRED),
            timers: counter("timers_fired_total", "Timers that were due.", FIRED),
        }
    }
}

/// What counts actors.
#[derive(Clone, Default)]
pub struct Actors(pub(super) Option<Arc<Families>>);

impl Actors {
    pub fn deactivated(&self, kind: &str) {
        if let Some(families) = &self.0 {
            families.deactivated.with(&[&families.app_id, kind]).inc();
        }
    }

    pub fn not_deactivated(&self, kind: &str, reason: &str) {
        if let Some(families) = &self.0 {
            let labels = [&families.app_id, kind, reason];
            families.not_deactivated.with(&labels).inc();
        }
    }

    pub fn rebalanced(&self, kind: &str) {
        if let Some(families) = &self.0 {
            families.rebalanced.with(&[&families.app_id, kind]).inc();
        }
    }

    /// A message to the placement service.
    pub fn reported(&self, operation: &str) {
        if let Some(families) = &self.0 {
            families
                .reports
                .with(&[&families.app_id, "", operation])
                .inc();
        }
    }

    pub fn not_reported(&self, operation: &str, reason: &str) {
        if let Some(families) = &self.0 {
            let labels = [&families.app_id, "", operation, reason];
            families.failed_reports.with(&labels).inc();
        }
    }

    /// An order of the placement service.
    pub fn ordered(&self, operation: &str) {
        if let Some(families) = &self.0 {
            families
                .orders
                .with(&[&families.app_id, "", operation])
                .inc();
        }
    }

    pub fn reminder_fired(&self, kind: &str, success: bool) {
        if let Some(families) = &self.0 {
            let labels = [&families.app_id, kind, label(success)];
            families.reminders.with(&labels).inc();
        }
    }

    pub fn timer_fired(&self, kind: &str, success: bool) {
        if let Some(families) = &self.0 {
            let labels = [&families.app_id, kind, label(success)];
            families.timers.with(&labels).inc();
        }
    }

    /// Numbers that are read when somebody asks: of each type, how many calls
    /// wait for their turn (`pending_actor_calls`), or how many timers there
    /// are (`timers`).
    pub fn reading(
        &self,
        registry: &Registry,
        name: &str,
        help: &str,
        read: impl Fn() -> Vec<(Arc<str>, u64)> + Send + Sync + 'static,
    ) {
        let Some(families) = &self.0 else { return };
        let own = families.app_id.clone();
        let name = format!("dapr_runtime_actor_{name}");
        registry.reading_gauges(&name, help, &["app_id", "actor_type"], move || {
            let all = read().into_iter();
            all.map(|(kind, number)| (vec![own.clone(), kind.to_string()], number))
                .collect()
        });
    }
}

fn label(success: bool) -> &'static str {
    if success { "true" } else { "false" }
}

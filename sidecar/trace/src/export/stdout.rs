//! Spans as log lines.

use std::sync::Arc;
use std::time::SystemTime;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::SCOPE;
use crate::context::hex;
use crate::span::Finished;

pub fn write(batch: &[Arc<Finished>]) {
    for span in batch {
        tracing::info!(target: SCOPE, "{}", line(span, TimeZone::system()));
    }
}

fn line(span: &Finished, zone: TimeZone) -> String {
    format!(
        "[{}] Trace: {} Span: {}/{} Time: [{} ->  {}] Annotations: []",
        span.name,
        hex(&span.context.trace_id),
        hex(&span.parent.unwrap_or_default()),
        hex(&span.context.span_id),
        time(span.start, zone.clone()),
        time(span.end(), zone),
    )
}

/// `2026-01-02 03:04:05.6 +0000 UTC`
fn time(time: SystemTime, zone: TimeZone) -> String {
    let stamp = Timestamp::try_from(time).unwrap_or_default();
    let zoned = Zoned::new(stamp, zone);
    let text = zoned.strftime("%Y-%m-%d %H:%M:%S%.f %z %Z");
    text.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::export::tests::span;

    #[test]
    fn a_span_is_one_line() {
        let mut span = span("/v1.0/state/s");
        span.start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        span.took = Duration::from_millis(500);
        assert_eq!(
            line(&span, TimeZone::UTC),
            "[/v1.0/state/s] Trace: 01010101010101010101010101010101 Span: 0000000000000000/0202020202020202 Time: [1970-01-01 00:00:01.5 +0000 UTC ->  1970-01-01 00:00:02 +0000 UTC] Annotations: []"
        );
    }
}

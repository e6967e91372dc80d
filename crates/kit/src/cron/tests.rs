use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Schedule, ParseError> {
    Schedule::parse(text, TimeZone::UTC)
}

/// The next time after `now`, as RFC 3339 in UTC.
fn next(text: &str, now: &str) -> Option<String> {
    let now = now.parse().expect("a time");
    let next = parse(text).expect("a schedule").next(now);
    next.map(|time| time.to_string())
}

#[test]
fn times_that_fit() {
    for (text, now, wanted) in [
        ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
        (
            "* * * * *",
            "2026-01-01T00:00:59.9Z",
            "2026-01-01T00:01:00Z",
        ),
        (
            "* * * * * *",
            "2026-01-01T00:00:00.5Z",
            "2026-01-01T00:00:01Z",
        ),
        (
            "15 * * * * *",
            "2026-01-01T00:00:15Z",
            "2026-01-01T00:01:15Z",
        ),
        (
            "0 0/15 * * * *",
            "2026-01-01T00:45:00Z",
            "2026-01-01T01:00:00Z",
        ),
        (
            "20-35/15 * * * *",
            "2026-01-01T00:20:01Z",
            "2026-01-01T00:35:00Z",
        ),
        (
            "10,20 * * * *",
            "2026-01-01T00:10:00Z",
            "2026-01-01T00:20:00Z",
        ),
        ("0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z"),
        (
            "0 0 29 feb ?",
            "2026-03-01T00:00:00Z",
            "2028-02-29T00:00:00Z",
        ),
        (
            "0 0 * * Mon-Fri",
            "2026-01-02T12:00:00Z",
            "2026-01-05T00:00:00Z",
        ),
        // Either of the two kinds of days, where none of them is any day.
        (
            "0 0 13 * FRI",
            "2026-02-06T00:00:00Z",
            "2026-02-13T00:00:00Z",
        ),
        (
            "0 0 13 * FRI",
            "2026-02-13T00:00:00Z",
            "2026-02-20T00:00:00Z",
        ),
        ("0 0 13 * *", "2026-02-13T00:00:00Z", "2026-03-13T00:00:00Z"),
        (
            "0 0 */10 * sun",
            "2026-01-02T00:00:00Z",
            "2026-01-04T00:00:00Z",
        ),
    ] {
        assert_eq!(
            next(text, now).as_deref(),
            Some(wanted),
            "{text} after {now}"
        );
    }
    assert_eq!(next("0 0 31 feb *", "2026-01-01T00:00:00Z"), None);
}

#[test]
fn words_stand_for_times() {
    for (text, now, wanted) in [
        ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
        ("@daily", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        ("@midnight", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
        ("@monthly", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
        ("@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("@annually", "2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z"),
        (
            "@every 1h30m",
            "2026-01-01T00:00:00.5Z",
            "2026-01-01T01:30:00.5Z",
        ),
        (
            "@every 1ms",
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:00.001Z",
        ),
    ] {
        assert_eq!(
            next(text, now).as_deref(),
            Some(wanted),
            "{text} after {now}"
        );
    }
}

#[test]
fn a_schedule_has_a_zone_where_clocks_are_put_back_and_forth() {
    for (text, now, wanted) in [
        (
            "TZ=Asia/Tokyo 0 9 * * *",
            "2026-01-01T00:00:00Z",
            "2026-01-02T00:00:00Z",
        ),
        (
            "CRON_TZ=UTC 0 9 * * *",
            "2026-01-01T00:00:00Z",
            "2026-01-01T09:00:00Z",
        ),
        // Two o'clock does not exist on this day.
        (
            "TZ=America/New_York 0 2 * * *",
            "2026-03-08T05:00:00Z",
            "2026-03-09T06:00:00Z",
        ),
        (
            "TZ=America/New_York 0 * * * *",
            "2026-03-08T06:00:00Z",
            "2026-03-08T07:00:00Z",
        ),
        // One o'clock comes twice.
        (
            "TZ=America/New_York 0 1 * * *",
            "2026-11-01T05:00:00Z",
            "2026-11-01T06:00:00Z",
        ),
        // The day begins at one.
        (
            "TZ=America/Sao_Paulo 0 7 * * *",
            "2018-11-03T12:00:00Z",
            "2018-11-04T09:00:00Z",
        ),
        // Clocks move by half an hour.
        (
            "TZ=Australia/Lord_Howe 0 4 * * *",
            "2026-10-03T14:00:00Z",
            "2026-10-03T17:00:00Z",
        ),
    ] {
        assert_eq!(
            next(text, now).as_deref(),
            Some(wanted),
            "{text} after {now}"
        );
    }
}

#[test]
fn errors_say_what_is_wrong() {
    for (text, wanted) in [
        ("", "empty spec string"),
        ("* * * *", "expected 5 to 6 fields, found 4: [* * * *]"),
        (
            "* * * * * * *",
            "expected 5 to 6 fields, found 7: [* * * * * * *]",
        ),
        ("TZ=UTC", "expected 5 to 6 fields, found 0: []"),
        ("TZ=Mars/Base * * * * *", "provided bad location Mars/Base"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        (
            "5-3 * * * *",
            "beginning of range (5) beyond end of range (3): 5-3",
        ),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("*/2/3 * * * *", "too many slashes: */2/3"),
        (
            "*/0 * * * *",
            "step of range should be a positive number: */0",
        ),
        ("x * * * *", "failed to parse int from x"),
        ("-1 * * * *", "failed to parse int from "),
        (", * * * *", "a field has no values: ,"),
        ("@reboot", "unrecognized descriptor: @reboot"),
        (
            "@every soon",
            "failed to parse duration @every soon: time: invalid duration \"soon\"",
        ),
        ("@every 0s", "the duration of @every 0s must be above zero"),
        (
            "@every -1s",
            "the duration of @every -1s must be above zero",
        ),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.to_string(), wanted);
    }
}

#[test]
fn seconds_can_be_required() {
    let parse = |text| Schedule::parse_with_seconds(text, TimeZone::UTC);
    assert!(parse("0 0 3 * * *").is_ok() && parse("@daily").is_ok());
    assert_eq!(
        parse("0 3 * * *").expect_err("five").to_string(),
        "expected exactly 6 fields, found 5: [0 3 * * *]"
    );
}

proptest! {
    #[test]
    fn prop_the_next_time_is_the_first_that_fits(
        second in 0u8..60,
        minute in 0u8..60,
        step in 1u8..30,
        hours in 0u8..20,
        now in 1_700_000_000i64..1_900_000_000,
    ) {
        let text = format!("{second} {minute}/{step} {hours}-{} * * *", hours + 3);
        let schedule = parse(&text).expect("a schedule");
        let fits = |time: i64| {
            let (of_day, least) = (time.rem_euclid(86_400), i64::from(minute));
            let of_hour = of_day % 3600 / 60;
            of_day % 60 == i64::from(second)
                && of_hour >= least
                && (of_hour - least) % i64::from(step) == 0
                && (i64::from(hours)..=i64::from(hours) + 3).contains(&(of_day / 3600))
        };
        let wanted = (now + 1..).find(|time| fits(*time));
        let now = Timestamp::from_second(now).expect("in range");
        prop_assert_eq!(schedule.next(now).map(Timestamp::as_second), wanted);
    }

    #[test]
    fn prop_any_text_is_read_or_refused(text in "[@TZ=0-9*?/,a-zA-Z -]{0,40}") {
        if let Ok(schedule) = parse(&text) {
            let now = Timestamp::from_second(1_800_000_000).expect("in range");
            if let Some(next) = schedule.next(now) {
                prop_assert!(next > now);
            }
        }
    }
}

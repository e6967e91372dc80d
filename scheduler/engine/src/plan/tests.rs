use super::*;

const NOW: &str = "2026-11-27T10:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn spec(schedule: Option<&str>, due_time: Option<&str>) -> Spec {
    Spec {
        schedule: schedule.map(str::to_owned),
        due_time: due_time.map(str::to_owned),
        ..Spec::default()
    }
}

fn refused(spec: Spec) -> String {
    plan(spec, 1, now()).expect_err("a refusal").to_string()
}

#[test]
fn what_is_missing_or_contradicts_is_said() {
    assert_eq!(
        refused(spec(None, None)),
        "job must have either a due time or a schedule"
    );
    let with = |change: fn(&mut Spec), schedule| {
        let mut it = spec(schedule, Some("1s"));
        change(&mut it);
        refused(it)
    };
    assert_eq!(
        with(|it| it.repeats = Some(2), None),
        "job must have a schedule to repeat"
    );
    assert_eq!(
        with(|it| it.repeats = Some(0), None),
        "defined repeats must be greater than 0"
    );
    assert_eq!(
        with(|it| it.ttl = Some("1s".into()), None),
        "job must have a schedule to have a ttl"
    );
    let every = Some("@every 1s");
    assert_eq!(
        with(|it| it.ttl = Some("soon".into()), every),
        "ttl format not recognized"
    );
    assert_eq!(
        with(|it| it.ttl = Some("-1s".into()), every),
        "ttl must be greater than due time"
    );
    let mut same = spec(every, Some("1s"));
    same.ttl = Some("0s".into());
    assert!(plan(same, 1, now()).is_ok(), "equal times pass");
}

#[test]
fn schedules_have_six_fields() {
    let of = |text| refused(spec(Some(text), None));
    assert_eq!(of(""), "empty spec string");
    assert_eq!(
        of("* * * * *"),
        "expected exactly 6 fields, found 5: [* * * * *]"
    );
    assert_eq!(of("@reboot"), "unrecognized descriptor: @reboot");
    assert_eq!(
        of("CRON_TZ=Mars/Base 0 0 * * * *"),
        "provided bad location Mars/Base: unknown time zone Mars/Base"
    );
    assert_eq!(
        of("@every 0s"),
        "the duration of @every 0s must be above zero"
    );
    assert_eq!(of("0 0 0 30 2 *"), "the schedule 0 0 0 30 2 * is never due");
    assert_eq!(
        of("CRON_TZ=Asia/Tokyo @every 1s"),
        "timezone is not supported for @every schedules: CRON_TZ=Asia/Tokyo @every 1s"
    );
    for text in ["CRON_TZ=Asia/Tokyo @daily", "0 */5 1-5/2 ? JAN SUN"] {
        assert!(plan(spec(Some(text), None), 1, now()).is_ok(), "{text}");
    }
}

#[test]
fn due_times_have_three_forms() {
    for (text, wanted) in [
        ("2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("2026-12-01T00:00:00.5+01:00", "2026-11-30T23:00:00.5Z"),
        ("1h", "2026-11-27T11:00:00Z"),
        ("-1s", "2026-11-27T09:59:59Z"),
        ("0", NOW),
        ("P1D", "2026-11-28T10:00:00Z"),
        ("P1W", "2026-12-04T10:00:00Z"),
        ("P3M4D", "2027-03-03T10:00:00Z"),
        ("PT1M5S", "2026-11-27T10:01:05Z"),
        ("R0/PT1S", "2026-11-27T10:00:01Z"),
    ] {
        let stored = plan(spec(None, Some(text)), 1, now()).expect(text);
        let wanted: Timestamp = wanted.parse().unwrap();
        let wanted = Begin::DueTime(timing::to_proto(wanted));
        assert_eq!(stored.begin, Some(wanted), "{text}");
    }
    for text in ["", "5", "2026-12-01T00:00:00", "2026-12-01 00:00:00Z", "P1"] {
        let error = refused(spec(None, Some(text)));
        assert_eq!(error, "due time format not recognized", "{text}");
    }
    let error = refused(spec(None, Some("R5/PT1S")));
    assert_eq!(error, "repeats not supported for due time");
}

#[test]
fn what_would_fire_without_end_at_once_is_refused() {
    let of_2001 = |schedule: &str| spec(Some(schedule), Some("2001-01-01T00:00:00Z"));
    for schedule in ["@every 1s", "* * * * * *"] {
        assert_eq!(
            refused(of_2001(schedule)),
            "the due time is more than 100000 ticks of the schedule ago"
        );
    }
    let mut few = of_2001("@every 1s");
    few.repeats = Some(5);
    assert!(plan(few, 1, now()).is_ok());
    assert!(plan(of_2001("@daily"), 1, now()).is_ok());
    let mut endless = spec(None, Some("1s"));
    endless.failure_policy = Some(FailurePolicy {
        policy: Some(Policy::Constant(FailurePolicyConstant::default())),
    });
    assert_eq!(
        refused(endless),
        "a failure policy without an interval must have max_retries"
    );
}

#[test]
fn jobs_are_retried_three_times_unless_they_say_otherwise() {
    let stored = plan(spec(None, Some("1s")), 7, now()).unwrap();
    assert_eq!(stored.partition_id, 7);
    let policy = stored.job.unwrap().failure_policy;
    assert_eq!(policy, Some(default_policy()));
}

#[test]
fn a_stored_period_with_a_zone_goes_on() {
    assert!(schedule("CRON_TZ=Asia/Tokyo @every 1s").is_ok());
}

#[test]
fn all_ticks_at_once_are_accepted_if_it_is_said_how_many() {
    let of = |repeats| {
        let mut spec = spec(Some("@every 0s"), None);
        spec.repeats = repeats;
        plan(spec, 1, now())
    };
    assert!(of(Some(3)).is_ok());
    for endless in [None, Some(MOST_PAST_TICKS + 1)] {
        let error = of(endless).unwrap_err().to_string();
        assert_eq!(error, "the duration of @every 0s must be above zero");
    }
    let mut negative = spec(Some("@every -1s"), None);
    negative.repeats = Some(3);
    assert!(plan(negative, 1, now()).is_err());
}

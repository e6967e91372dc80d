use std::future::ready;
use std::sync::Mutex;

use super::*;
use crate::metrics::Origin;
use crate::parse::Matching;
use crate::retry::Wait;

const SECOND: Duration = Duration::from_secs(1);

fn sourced<T>(value: T) -> Option<Arc<Sourced<T>>> {
    let origin = Arc::new(Origin::default());
    Some(Arc::new(Sourced { value, origin }))
}

fn retry(most: Option<u64>) -> Option<Arc<Sourced<Retry>>> {
    sourced(Retry {
        wait: Wait::Constant(SECOND),
        most,
        matching: Matching::new("500-599", "").unwrap(),
    })
}

fn breaker(trip: &str) -> Option<Arc<Sourced<Settings>>> {
    sourced(Settings {
        name: "b".to_owned(),
        max_requests: 1,
        interval: None,
        timeout: 10 * SECOND,
        trip: Some(
            outrider_condition::Condition::compile(trip, &crate::breaker::VARIABLES).unwrap(),
        ),
    })
}

fn policy(bundle: Bundle) -> Policy {
    let breaker = bundle
        .breaker
        .as_ref()
        .map(|settings| Arc::new(Breaker::new("b".to_owned(), settings, None)));
    Policy {
        name: Name::Endpoint("app".to_owned(), "app:m".to_owned()),
        bundle,
        breaker,
        watch: None,
        stop: None,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Fails {
    Plainly,
    Code(u16),
    ForGood,
}

impl fmt::Display for Fails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Failure for Fails {
    fn code(&self) -> Option<u16> {
        match self {
            Fails::Code(code) => Some(*code),
            _ => None,
        }
    }

    fn is_permanent(&self) -> bool {
        *self == Fails::ForGood
    }
}

/// An operation that fails with these, one after the other, and then succeeds.
async fn run(
    policy: &Policy,
    failures: impl IntoIterator<Item = Fails>,
) -> (Result<u32, Error<Fails>>, Duration) {
    let mut failures = failures.into_iter();
    let began = Instant::now();
    let result = policy
        .run(|attempt| ready(failures.next().map_or(Ok(attempt.number), Err)))
        .await;
    (result, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn retries_come_after_their_wait_until_one_succeeds() {
    let policy = policy(Bundle {
        retry: retry(Some(2)),
        ..Bundle::default()
    });
    assert!(policy.has_retries());
    let (result, took) = run(&policy, []).await;
    assert_eq!((result, took), (Ok(1), Duration::ZERO));
    let (result, took) = run(&policy, [Fails::Plainly, Fails::Code(503)]).await;
    assert_eq!((result, took.as_secs()), (Ok(3), 2));
    let all = [Fails::Plainly, Fails::Plainly, Fails::Code(500)];
    let (result, took) = run(&policy, all).await;
    assert_eq!(
        (result, took.as_secs()),
        (Err(Error::Failed(Fails::Code(500))), 2)
    );
}

#[tokio::test(start_paused = true)]
async fn other_codes_and_permanent_failures_are_not_tried_again() {
    let policy = policy(Bundle {
        retry: retry(None),
        ..Bundle::default()
    });
    for failure in [|| Fails::Code(404), || Fails::ForGood, || Fails::Code(20)] {
        let (result, took) = run(&policy, [failure()]).await;
        assert_eq!(
            (result, took),
            (Err(Error::Failed(failure())), Duration::ZERO)
        );
    }
    // An empty list means every code.
    let (result, _) = run(&policy, [Fails::Code(14)]).await;
    assert_eq!(result, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn zero_retries_mean_one_attempt() {
    let policy = policy(Bundle {
        retry: retry(Some(0)),
        ..Bundle::default()
    });
    assert!(!policy.has_retries());
    let (result, _) = run(&policy, [Fails::Plainly]).await;
    assert_eq!(result, Err(Error::Failed(Fails::Plainly)));
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_its_own_time() {
    let policy = policy(Bundle {
        timeout: sourced(SECOND),
        retry: retry(Some(2)),
        ..Bundle::default()
    });
    let began = Instant::now();
    let deadlines = Mutex::new(Vec::new());
    let result: Result<(), Error<String>> = policy
        .run(|attempt| {
            let after = attempt.deadline.unwrap() - began;
            deadlines.lock().unwrap().push(after.as_secs());
            std::future::pending()
        })
        .await;
    assert_eq!(result, Err(Error::TimedOut));
    assert_eq!(result.unwrap_err().to_string(), "context deadline exceeded");
    assert_eq!(*deadlines.lock().unwrap(), [1, 3, 5]);
    assert_eq!(began.elapsed(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_ends_the_retries() {
    let policy = policy(Bundle {
        retry: retry(None),
        breaker: breaker("consecutiveFailures >= 2"),
        ..Bundle::default()
    });
    let failing = || std::iter::repeat_with(|| Fails::Plainly);
    let (result, took) = run(&policy, failing()).await;
    assert_eq!((result, took.as_secs()), (Err(Error::Open), 2));
    let (result, took) = run(&policy, []).await;
    assert_eq!((result, took), (Err(Error::Open), Duration::ZERO));
    tokio::time::advance(11 * SECOND).await;
    let (result, _) = run(&policy, []).await;
    assert_eq!(result, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn timeouts_and_operations_that_are_given_up_count_for_the_breaker() {
    let policy = policy(Bundle {
        timeout: sourced(5 * SECOND),
        breaker: breaker("totalFailures >= 2"),
        ..Bundle::default()
    });
    let waiting = || policy.run(|_| std::future::pending::<Result<(), String>>());
    assert_eq!(waiting().await, Err(Error::TimedOut));
    tokio::time::timeout(SECOND, waiting()).await.unwrap_err();
    assert_eq!(waiting().await, Err(Error::Open));
    // Half open, a call that is given up does not take the place for ever.
    tokio::time::advance(11 * SECOND).await;
    tokio::time::timeout(SECOND, waiting()).await.unwrap_err();
    assert_eq!(waiting().await, Err(Error::Open));
    tokio::time::advance(11 * SECOND).await;
    let held = policy.breaker.as_ref().unwrap().admit().unwrap();
    assert_eq!(waiting().await, Err(Error::TooManyRequests));
    held.succeeded();
    let ok = policy.run(|_| ready(Ok::<_, String>(()))).await;
    assert_eq!(ok, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_stop() {
    let stop = CancellationToken::new();
    let policy = policy(Bundle {
        retry: retry(None),
        ..Bundle::default()
    })
    .until(&stop);
    let stopping = async {
        tokio::time::sleep(SECOND / 2).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(run(&policy, [Fails::Plainly]), stopping);
    assert_eq!(ended.0, Err(Error::Failed(Fails::Plainly)));
    assert_eq!(ended.1, SECOND / 2);
    let (result, _) = run(&policy, [Fails::Plainly]).await;
    assert_eq!(result, Err(Error::Failed(Fails::Plainly)));
}

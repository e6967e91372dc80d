//! Streams of the operator, taken up again when they break.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::SCOPE;
use crate::resources::operator::{Error, Operator};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Keeps up with one stream.
pub trait Follow: Send {
    /// What log lines say is watched.
    const WATCHED: &'static str;

    /// Opens the stream, makes good what was missed, and says that it is
    /// `alive`; then follows it. Ends well when there is no more to follow.
    fn stream(
        &mut self,
        operator: &Operator,
        alive: &mut bool,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// What goes on while there is no stream. It may be dropped at any point.
    fn meanwhile(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Follows until there is no more to follow, or the process stops.
pub async fn follow<F: Follow>(mut follower: F, operator: Operator, stopping: CancellationToken) {
    let watched = F::WATCHED;
    tracing::info!(target: SCOPE, "Starting to watch {watched}");
    let mut pause = FIRST_PAUSE;
    loop {
        let mut alive = false;
        let streaming = follower.stream(&operator, &mut alive);
        match stopping.run_until_cancelled(streaming).await {
            None | Some(Ok(())) => return,
            // An operator that does not know this stream has no changes to tell.
            Some(Err(Error::Call(status))) if status.code() == Code::Unimplemented => return,
            Some(Err(error)) => {
                if alive {
                    pause = FIRST_PAUSE;
                }
                tracing::warn!(target: SCOPE, "lost the stream of {watched}, trying again in {}ms: {error}", pause.as_millis());
            }
        }
        let waiting = async {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = follower.meanwhile() => {}
            }
        };
        if stopping.run_until_cancelled(waiting).await.is_none() {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use outrider_security::Security;
    use tokio::time::Instant;
    use tonic::Status;

    use super::*;

    /// Ends as the script says, and notes when it was opened.
    struct Scripted {
        ends: Vec<(bool, Result<(), Error>)>,
        asked: Arc<Mutex<Vec<Instant>>>,
    }

    impl Follow for Scripted {
        const WATCHED: &'static str = "test updates";

        async fn stream(&mut self, _: &Operator, alive: &mut bool) -> Result<(), Error> {
            self.asked.lock().unwrap().push(Instant::now());
            let (lived, ended) = self.ends.remove(0);
            *alive = lived;
            ended
        }
    }

    fn lost(alive: bool) -> (bool, Result<(), Error>) {
        (alive, Err(Status::unavailable("gone").into()))
    }

    /// Pauses before each try, in milliseconds.
    async fn pauses(ends: Vec<(bool, Result<(), Error>)>) -> Vec<u128> {
        let asked = Arc::<Mutex<Vec<Instant>>>::default();
        let follower = Scripted {
            ends,
            asked: asked.clone(),
        };
        let operator = Operator::new("operator:1", &Security::disabled(), "n", "a").unwrap();
        follow(follower, operator, CancellationToken::new()).await;
        let asked = asked.lock().unwrap();
        let pauses = asked.windows(2).map(|pair| pair[1] - pair[0]);
        pauses.map(|pause| pause.as_millis()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn broken_streams_are_taken_up_again() {
        let mut ends: Vec<_> = (0..6).map(|_| lost(false)).collect();
        ends.push(lost(true));
        ends.push((false, Ok(())));
        assert_eq!(
            pauses(ends).await,
            [500, 1000, 2000, 4000, 8000, 10_000, 500]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_operator_does_not_know_is_left_alone() {
        let unknown = Err(Status::unimplemented("unknown method").into());
        assert!(pauses(vec![(false, unknown)]).await.is_empty());
    }
}

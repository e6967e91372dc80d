//! Answers that are given again for the same request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use outrider_components::Error;
use outrider_components::conversation::Response;
use sha2::{Digest as _, Sha256};

/// Answers that are kept at most, and the bytes of their texts together.
const MOST: usize = 1_000;
const MOST_BYTES: usize = 32 << 20;

type Key = [u8; 32];

struct Kept {
    response: Arc<Response>,
    bytes: usize,
    until: Instant,
}

/// What is kept, for some time.
pub struct Cache {
    time: Duration,
    kept: Mutex<HashMap<Key, Kept>>,
}

impl Cache {
    /// Nothing is kept where there is no time for it.
    pub fn new(time: Option<Duration>) -> Option<Cache> {
        let time = time.filter(|time| !time.is_zero())?;
        Some(Cache {
            time,
            kept: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &Key) -> Option<Arc<Response>> {
        let kept = self.lock();
        let found = kept.get(key)?;
        (found.until > Instant::now()).then(|| found.response.clone())
    }

    fn keep(&self, key: Key, response: &Response) {
        let bytes = size(response);
        if bytes > MOST_BYTES {
            return;
        }
        let now = Instant::now();
        // A time that never comes is one that cannot be written.
        let Some(until) = now.checked_add(self.time) else {
            return;
        };
        let mut kept = self.lock();
        kept.retain(|_, one| one.until > now);
        let mut total: usize = kept.values().map(|one| one.bytes).sum();
        while kept.len() >= MOST || total + bytes > MOST_BYTES {
            let oldest = kept.iter().min_by_key(|(_, one)| one.until);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                break;
            };
            total -= kept.remove(&oldest).map_or(0, |one| one.bytes);
        }
        let response = Arc::new(response.clone());
        kept.insert(
            key,
            Kept {
                response,
                bytes,
                until,
            },
        );
    }
}

/// The answer to a request, which is asked for if it is not kept. Errors are
/// not kept.
pub async fn answer(
    cache: Option<&Cache>,
    request: Vec<u8>,
    ask: impl AsyncFnOnce(Vec<u8>) -> Result<Response, Error>,
) -> Result<Response, Error> {
    let Some(cache) = cache else {
        return ask(request).await;
    };
    let key: Key = Sha256::digest(&request).into();
    if let Some(found) = cache.find(&key) {
        return Ok(Response::clone(&found));
    }
    let response = ask(request).await?;
    cache.keep(key, &response);
    Ok(response)
}

fn size(response: &Response) -> usize {
    let of_choices = response.choices.iter().map(|choice| {
        let calls = choice.calls.iter();
        let calls = calls.map(|call| call.id.len() + call.name.len() + call.arguments.len());
        choice.content.len() + calls.sum::<usize>()
    });
    of_choices.sum::<usize>() + size_of::<Kept>()
}

#[cfg(test)]
mod tests {
    use outrider_components::conversation::Choice;

    use super::*;

    fn response(content: String) -> Response {
        Response {
            choices: vec![Choice {
                content,
                ..Choice::default()
            }],
            ..Response::default()
        }
    }

    async fn asked(cache: &Cache, request: &str, content: &str) -> String {
        let answered = answer(Some(cache), request.into(), async |_| {
            Ok(response(content.to_owned()))
        });
        answered.await.expect("an answer").choices[0]
            .content
            .clone()
    }

    #[tokio::test]
    async fn an_answer_is_given_again_until_its_time_is_over() {
        let cache = Cache::new(Some(Duration::from_secs(60))).expect("a time");
        assert_eq!(asked(&cache, "a", "1").await, "1");
        assert_eq!(asked(&cache, "a", "2").await, "1");
        assert_eq!(asked(&cache, "b", "3").await, "3");
        let short = Cache::new(Some(Duration::from_nanos(1))).expect("a time");
        assert_eq!(asked(&short, "a", "1").await, "1");
        assert_eq!(asked(&short, "a", "2").await, "2");
        assert!(Cache::new(None).is_none() && Cache::new(Some(Duration::ZERO)).is_none());
    }

    #[tokio::test]
    async fn an_error_is_not_kept() {
        let cache = Cache::new(Some(Duration::from_secs(60))).expect("a time");
        let failed = answer(Some(&cache), b"a".to_vec(), async |_| {
            Err(Error::unavailable("no"))
        });
        assert!(failed.await.is_err());
        assert_eq!(asked(&cache, "a", "1").await, "1");
    }

    #[test]
    fn neither_number_nor_bytes_grow_without_limit() {
        let cache = Cache::new(Some(Duration::from_secs(60))).expect("a time");
        let key = |n: u32| -> Key { Sha256::digest(n.to_be_bytes()).into() };
        for n in 0..MOST as u32 + 10 {
            cache.keep(key(n), &response(String::new()));
        }
        assert_eq!(cache.lock().len(), MOST);
        let half = "x".repeat(MOST_BYTES / 2);
        for n in 0..4 {
            cache.keep(key(n), &response(half.clone()));
        }
        let bytes: usize = cache.lock().values().map(|one| one.bytes).sum();
        assert!(bytes <= MOST_BYTES, "{bytes}");
        cache.keep(key(9), &response("x".repeat(MOST_BYTES + 1)));
        assert!(cache.find(&key(9)).is_none());
    }
}

//! Who has logged in, by the cookie of their browser. Kept in the memory of
//! this process, and bounded: clients make as many as they like.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;

/// The cookie with the id of a session.
const COOKIE: &str = "gosessionsid";
/// How long a login may take.
const LOGIN_LIMIT: Duration = Duration::from_secs(600);
/// How long a session lasts without a request.
const IDLE_LIMIT: Duration = Duration::from_secs(7200);
/// Sessions, and logins under way. The oldest go first.
const MOST: usize = 10_000;

#[derive(Default)]
pub struct Sessions(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// By the value of `state` that the server gives back.
    logins: HashMap<String, Login>,
    /// By the value of the cookie.
    sessions: HashMap<String, Session>,
}

/// A login under way.
struct Login {
    /// The cookie of the browser that began it.
    browser: String,
    /// What was asked for.
    target: String,
    began: Instant,
}

struct Session {
    value: HeaderValue,
    ends: Option<Instant>,
    used: Instant,
}

impl Sessions {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the header of a request is to have, if its browser has logged in.
    pub fn value(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let id = cookie(headers)?;
        let now = Instant::now();
        let mut inner = self.inner();
        let session = inner.sessions.get_mut(id)?;
        if session.is_over(now) {
            inner.sessions.remove(id);
            return None;
        }
        session.used = now;
        Some(session.value.clone())
    }

    /// Begins a login: the `state` for the server, and the id that the
    /// browser's cookie is to have.
    pub fn begin(&self, headers: &HeaderMap, target: &str) -> (String, String) {
        let state = random();
        let browser = cookie(headers).map_or_else(random, str::to_owned);
        let login = Login {
            browser: browser.clone(),
            target: target.to_owned(),
            began: Instant::now(),
        };
        let mut inner = self.inner();
        if inner.logins.len() >= MOST {
            inner
                .logins
                .retain(|_, login| login.began.elapsed() < LOGIN_LIMIT);
            forget_oldest(&mut inner.logins, |login| login.began);
        }
        inner.logins.insert(state.clone(), login);
        (state, browser)
    }

    /// Ends the login of this browser with this `state`: what was asked for.
    pub fn finish(&self, headers: &HeaderMap, state: &str) -> Option<String> {
        let browser = cookie(headers)?;
        let mut inner = self.inner();
        let login = inner.logins.get(state)?;
        if login.browser != browser {
            return None;
        }
        let login = inner.logins.remove(state)?;
        (login.began.elapsed() < LOGIN_LIMIT).then_some(login.target)
    }

    /// Keeps what the server gave; the id of the session, which is a new one.
    pub fn keep(&self, value: HeaderValue, lasts: Option<Duration>) -> String {
        let id = random();
        let now = Instant::now();
        let session = Session {
            value,
            ends: lasts.and_then(|lasts| now.checked_add(lasts)),
            used: now,
        };
        let mut inner = self.inner();
        if inner.sessions.len() >= MOST {
            inner.sessions.retain(|_, session| !session.is_over(now));
            forget_oldest(&mut inner.sessions, |session| session.used);
        }
        inner.sessions.insert(id.clone(), session);
        id
    }
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        let is_idle = now.saturating_duration_since(self.used) >= IDLE_LIMIT;
        is_idle || self.ends.is_some_and(|ends| ends <= now)
    }
}

/// Makes room, for a tenth of them at once.
fn forget_oldest<T>(all: &mut HashMap<String, T>, at: impl Fn(&T) -> Instant) {
    if all.len() < MOST {
        return;
    }
    let mut times: Vec<Instant> = all.values().map(&at).collect();
    let (_, limit, _) = times.select_nth_unstable(MOST / 10);
    let limit = *limit;
    all.retain(|_, one| at(one) > limit);
}

fn random() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The id in the cookies of a request.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, id) = pairs.find(|(name, _)| *name == COOKIE)?;
    // Ids are ours, and of this length.
    (id.len() == 36 && id.is_ascii()).then_some(id)
}

/// Sets the cookie of a browser. It comes back with the redirect of the
/// server, which is another site, and scripts do not see it.
pub fn set_cookie(id: &str, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Lax{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(id: &str) -> HeaderMap {
        let value = format!("other=1; {COOKIE}={id}; x");
        let value = HeaderValue::try_from(value).expect("a header");
        HeaderMap::from_iter([(header::COOKIE, value)])
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_ends_once_in_the_browser_that_began_it() {
        let sessions = Sessions::default();
        let none = HeaderMap::new();
        let (state, browser) = sessions.begin(&none, "/x?y=1");
        assert_eq!(sessions.finish(&none, &state), None);
        assert_eq!(sessions.finish(&with(&random()), &state), None);
        assert_eq!(sessions.finish(&with(&browser), &random()), None);
        let target = sessions.finish(&with(&browser), &state);
        assert_eq!(target.as_deref(), Some("/x?y=1"));
        assert_eq!(sessions.finish(&with(&browser), &state), None);
        // Two at once have one cookie.
        let (first, browser) = sessions.begin(&none, "/1");
        let (second, same) = sessions.begin(&with(&browser), "/2");
        assert_eq!(browser, same);
        assert!(sessions.finish(&with(&browser), &first).is_some());
        tokio::time::sleep(LOGIN_LIMIT).await;
        assert_eq!(sessions.finish(&with(&browser), &second), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_has_an_id_of_its_own_and_ends_with_its_token() {
        let sessions = Sessions::default();
        let value = HeaderValue::from_static("Bearer t");
        let short = sessions.keep(value.clone(), Some(Duration::from_secs(60)));
        let long = sessions.keep(value.clone(), None);
        assert_ne!(short, long);
        assert_eq!(sessions.value(&with(&short)), Some(value.clone()));
        assert_eq!(sessions.value(&with(&random())), None);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(sessions.value(&with(&short)), None);
        assert_eq!(sessions.value(&with(&long)), Some(value));
        tokio::time::sleep(IDLE_LIMIT).await;
        assert_eq!(sessions.value(&with(&long)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_limit_and_the_oldest_go_first() {
        let sessions = Sessions::default();
        let none = HeaderMap::new();
        let (oldest, of_oldest) = sessions.begin(&none, "/");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut last = (String::new(), String::new());
        for _ in 0..MOST {
            tokio::time::advance(Duration::from_micros(1)).await;
            last = sessions.begin(&none, "/");
        }
        assert!(sessions.inner().logins.len() <= MOST);
        assert_eq!(sessions.finish(&with(&of_oldest), &oldest), None);
        assert!(sessions.finish(&with(&last.1), &last.0).is_some());
    }
}

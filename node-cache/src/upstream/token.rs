//! Tokens of token services: fetched once for all who wait, kept for 80 % of their life
//! (distribution, "Token Authentication Specification").

use std::{fmt, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION},
};
use jiff::Timestamp;
use moka::{Expiry, future::Cache};
use reqwest::Url;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{
    address::Reach,
    breaker::{Gate, Verdict},
    client::{Clients, Outgoing},
    failure::Failure,
    rate_limit::retry_after,
    redirect::shown_host,
    response::read_body,
    stats::{ErrorClass, Stats},
};
use crate::config::{Identity, Secret};

/// Larger answers of a token service are broken.
const MAX_ANSWER: usize = 64 << 10;
/// The life of a token whose answer says none, and the shortest that is believed.
const SHORTEST_LIFE: Duration = Duration::from_mins(1);
/// The longest life that is believed; the registry says 401 if it was shorter.
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// Tokens that are kept; the least used go first.
const MAX_TOKENS: u64 = 1024;
/// Token services whose breakers are kept. Upstreams name them, so there must be a bound.
const MAX_SERVICES: u64 = 64;

/// What a token is for. Two identities never share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    pub(super) identity: Identity,
    /// URL of the token service with the whole query: service and scope.
    pub(super) url: Url,
}

/// A token as it is sent.
#[derive(Debug)]
pub(super) struct Token {
    /// `Bearer ...`, marked as sensitive.
    pub(super) header: HeaderValue,
    /// When it was asked for.
    pub(super) asked: Instant,
    life: Duration,
}

/// Where and with what a token is asked for.
pub(super) struct TokenRequest<'a> {
    pub(super) key: TokenKey,
    /// Value of a Basic `Authorization`, if the credentials may go there.
    pub(super) basic: Option<Secret>,
    /// The endpoint that sent us there, and how far it may.
    pub(super) endpoint: &'a Url,
    pub(super) reach: Reach,
    pub(super) deadline: Instant,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenError {
    /// The service says 401 or 403.
    Denied {
        /// What it said; safe to show.
        reason: String,
    },
    /// No usable answer.
    Failed(Failure),
}

/// The tokens of one upstream, and the breakers of its token services.
#[derive(Debug)]
pub(super) struct Tokens {
    cache: Cache<TokenKey, Arc<Token>>,
    gates: moka::sync::Cache<String, Arc<Gate>>,
}

/// Lets a token go when 80 % of its life has passed, so that none expires on the way.
struct Refresh;

impl Expiry<TokenKey, Arc<Token>> for Refresh {
    fn expire_after_create(
        &self,
        _: &TokenKey,
        token: &Arc<Token>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(token.life.mul_f64(0.8).saturating_sub(token.asked.elapsed()))
    }
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self {
            cache: Cache::builder().max_capacity(MAX_TOKENS).expire_after(Refresh).build(),
            gates: moka::sync::Cache::new(MAX_SERVICES),
        }
    }

    /// A token from the cache or from the service. Whoever asks for the same one meanwhile waits
    /// for the same answer.
    pub(super) async fn get(
        &self,
        request: TokenRequest<'_>,
        clients: &Clients,
        stats: &Stats,
    ) -> Result<Arc<Token>, TokenError> {
        loop {
            let mut ours = false;
            let fetch = async {
                ours = true;
                self.fetch(&request, clients, stats).await
            };
            let token = self.cache.try_get_with_by_ref(&request.key, Box::pin(fetch));
            match timeout_at(request.deadline, token).await {
                Ok(Ok(token)) => return Ok(token),
                // Another request, which had less time left than this one, fetched in vain.
                Ok(Err(error)) if !ours && error.is_timeout() => {}
                Ok(Err(error)) => return Err((*error).clone()),
                Err(_) => {
                    return Err(TokenError::failed(
                        &request.key,
                        ErrorClass::Timeout,
                        "no answer in time",
                    ));
                }
            }
        }
    }

    /// Forgets a token that the registry did not accept, unless it has been replaced already.
    pub(super) async fn forget(&self, key: &TokenKey, asked: Instant) {
        if self.cache.get(key).await.is_some_and(|token| token.asked == asked) {
            self.cache.invalidate(key).await;
        }
    }

    async fn fetch(
        &self,
        request: &TokenRequest<'_>,
        clients: &Clients,
        stats: &Stats,
    ) -> Result<Arc<Token>, TokenError> {
        let TokenRequest { key, basic, endpoint, reach, deadline } = request;
        let service = key.url.origin().ascii_serialization();
        let gate = self.gates.get_with(service, || Arc::new(Gate::new()));
        let asked = Instant::now();
        let Some(permit) = gate.admit(asked) else {
            let reason = "left alone for a while after it failed";
            return Err(TokenError::failed(key, ErrorClass::BreakerOpen, reason));
        };

        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(basic) = basic {
            let value = secret_header("Basic", basic.expose());
            headers.insert(AUTHORIZATION, value.map_err(|reason| TokenError::Denied { reason })?);
        }
        let client = clients.for_hop(&key.url, endpoint, *reach).await;
        let client = client.map_err(|failure| TokenError::of(key, failure))?;
        let outgoing =
            Outgoing { method: &Method::GET, url: &key.url, headers, deadline: *deadline };
        // Redirects are not followed: the credentials must not travel, and nobody needs it.
        let answer = match clients.exchange(client, outgoing, stats).await {
            Ok(answer) => answer,
            Err(failure) => {
                if let Some(verdict) = clients.verdict(&failure, asked.elapsed()) {
                    permit.conclude(verdict);
                }
                return Err(TokenError::of(key, failure));
            }
        };
        permit.conclude(Verdict::of(answer.status(), answer.headers()));

        let code = answer.status().as_u16();
        match code {
            200 => {
                let body = read_body(answer, MAX_ANSWER, *deadline).await;
                let broken = |why: &str| TokenError::failed(key, ErrorClass::Broken, why);
                let body = body.map_err(|error| broken(&error.to_string()))?;
                let Grant { token: text, life } =
                    Grant::parse(&body).ok_or_else(|| broken("its answer has no token"))?;
                let header = secret_header("Bearer", &text).map_err(|why| broken(&why))?;
                Ok(Arc::new(Token { header, asked, life }))
            }
            401 | 403 => {
                let host = shown_host(&key.url);
                let whom = if basic.is_some() { "the credentials" } else { "anonymous clients" };
                let reason = format!("the token service {host} refuses {whom} ({code})");
                Err(TokenError::Denied { reason })
            }
            _ => Err(TokenError::failed(key, ErrorClass::of(code), format!("status {code}"))),
        }
    }
}

impl Verdict {
    /// What an answer says about the health of whoever gave it.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        match status.as_u16() {
            429 => Self::RateLimited(retry_after(headers, Timestamp::now())),
            502..=504 => Self::Failing(retry_after(headers, Timestamp::now())),
            _ => Self::Alive,
        }
    }
}

impl TokenError {
    fn failed(key: &TokenKey, class: ErrorClass, reason: impl AsRef<str>) -> Self {
        let host = shown_host(&key.url);
        let reason = format!("token service {host}: {}", reason.as_ref());
        Self::Failed(Failure::new(class, reason))
    }

    fn of(key: &TokenKey, failure: Failure) -> Self {
        match failure {
            Failure::Refused(_) => Self::Failed(failure),
            Failure::Failed { class, reason } => Self::failed(key, class, reason),
        }
    }

    fn is_timeout(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.class() == ErrorClass::Timeout)
    }
}

/// An `Authorization` value that debug output does not show.
pub(super) fn secret_header(scheme: &str, secret: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(format!("{scheme} {secret}"))
        .map_err(|_| "it has characters that no header may have".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

/// What a token service grants.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    /// Never empty. Not shown in debug output.
    pub token: String,
    /// How long it is good for: a minute to a day, whatever the service says.
    pub life: Duration,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Grant {
    /// Reads the answer of a token service; `None` if there is no token in it.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let answer: Answer = serde_json::from_slice(body).ok()?;
        let filled = |token: &String| !token.is_empty();
        let token = answer.token.filter(filled).or(answer.access_token.filter(filled))?;
        let seconds = answer.expires_in.and_then(|value| match value {
            serde_json::Value::Number(number) => number.as_f64(),
            serde_json::Value::String(text) => text.parse().ok(),
            _ => None,
        });
        let life = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Some(Self { token, life: life.unwrap_or_default().clamp(SHORTEST_LIFE, LONGEST_LIFE) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_of_token_services() {
        let read = |text: &str| {
            Grant::parse(text.as_bytes()).map(|grant| (grant.token, grant.life.as_secs()))
        };
        let token = |life| Some(("t".to_owned(), life));
        for (text, expected) in [
            (r#"{"token":"t","access_token":"u","expires_in":300,"issued_at":"x"}"#, token(300)),
            (r#"{"access_token":"t"}"#, token(60)),
            (r#"{"token":"","access_token":"t","expires_in":null}"#, token(60)),
            (r#"{"token":"t","expires_in":1}"#, token(60)),
            (r#"{"token":"t","expires_in":0}"#, token(60)),
            (r#"{"token":"t","expires_in":-9}"#, token(60)),
            (r#"{"token":"t","expires_in":"3600"}"#, token(3600)),
            (r#"{"token":"t","expires_in":3599.5}"#, token(3599)),
            (r#"{"token":"t","expires_in":1e300}"#, token(60)),
            (r#"{"token":"t","expires_in":99999999}"#, token(86_400)),
            (r#"{"token":""}"#, None),
            (r#"{"token":7}"#, None),
            ("{}", None),
            ("[]", None),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        assert_eq!(read(&"[".repeat(10_000)), None);
    }

    #[test]
    fn t12_t17_a_token_cannot_split_a_header_and_is_not_shown() {
        assert!(secret_header("Bearer", "a\r\nX: y").is_err());
        assert!(secret_header("Bearer", "a\0b").is_err());
        let header = secret_header("Bearer", "canary").unwrap();
        assert_eq!(header, "Bearer canary");
        assert!(!format!("{header:?}").contains("canary"));
    }

    proptest! {
        #[test]
        fn no_answer_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Grant::parse(&body);
        }
    }
}

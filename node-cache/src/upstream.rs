//! One registry: everything that dials out.
//!
//! [`Upstream::send`] turns a [`Request`] into HTTP: endpoints in order with a breaker each, the
//! token flow, redirects, and errors sorted by what the caller can do about them. What happens
//! after the headers (stalls, resuming) is the caller's.
//!
//! In reading order: `attempt` is one try of one endpoint; `auth`, `challenge`, `realm` and
//! `token` answer its 401; `redirect` says where it may lead, `address` and `resolver` what may be
//! dialled; `client` sends; `breaker`, `failure` and `stats` remember how it went.

mod address;
mod attempt;
mod auth;
mod breaker;
mod challenge;
mod client;
mod endpoint;
mod failure;
mod proxy;
mod rate_limit;
mod realm;
mod redirect;
mod refusal;
mod resolver;
mod response;
mod stats;
#[cfg(test)]
mod tests;
mod token;

use std::{fmt, sync::Arc};

use http::Method;
use tokio::time::Instant;

use self::{
    attempt::{Attempt, Stop},
    auth::Authenticator,
    client::Clients,
    endpoint::{Endpoint, rotation},
    failure::Failure,
    stats::Stats,
};
use crate::{
    config::{Identity, UpstreamConfig},
    oci::{Digest, Reference, Repository},
};

pub use challenge::{Bearer, Challenge};
pub use rate_limit::RateLimit;
pub use response::{BodyError, ContentRange, Response};
pub use stats::{ErrorClass, Health};
pub use token::Grant;

/// One configured upstream with its connections, tokens and breakers.
pub struct Upstream {
    config: Arc<UpstreamConfig>,
    endpoints: Vec<Endpoint>,
    clients: Clients,
    auth: Authenticator,
    stats: Stats,
}

/// What is asked of an upstream.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: Method,
    /// Which resource.
    pub target: Target,
    /// `Accept` header; none for blobs.
    pub accept: Option<String>,
    /// First byte and, if bounded, last byte (inclusive) of a `Range` header.
    pub range: Option<(u64, Option<u64>)>,
    /// As whom.
    pub identity: Identity,
    /// Index of the endpoint to try first; the others follow in order, wrapping around.
    pub first_endpoint: usize,
}

/// A resource of the registry API.
#[derive(Clone, Debug)]
pub enum Target {
    /// `/v2/<repository>/manifests/<reference>`
    Manifest(Repository, Reference),
    /// `/v2/<repository>/blobs/<digest>`
    Blob(Repository, Digest),
    /// `/v2/<repository>/tags/list`, with the query as it is to be sent (may be empty).
    Tags(Repository, String),
    /// `/v2/<repository>/referrers/<digest>`, with the query as it is to be sent (may be empty).
    Referrers(Repository, Digest, String),
}

/// Why there is no answer, by what the caller can do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The upstream says that there is no such thing (404, 410).
    #[error("{host} has no such content")]
    NotFound {
        /// The upstream.
        host: String,
    },
    /// The upstream refuses (401 after the token flow, 403), or we do: a realm or redirect that may
    /// not be followed.
    #[error("{host} refuses: {reason}")]
    Denied {
        /// The upstream.
        host: String,
        /// What was refused; safe to show to clients.
        reason: String,
    },
    /// The upstream does not support the method (405, 501): ask with `GET` instead of `HEAD`.
    #[error("{host} does not answer {method} here")]
    MethodRefused {
        /// The upstream.
        host: String,
        /// The method.
        method: Method,
    },
    /// 416: the range lies outside the content.
    #[error("{host} has no such range")]
    RangeNotSatisfiable {
        /// The upstream.
        host: String,
    },
    /// Nothing usable came: unreachable, timed out, 5xx, 429, a broken answer, all breakers open.
    #[error("{host} cannot be reached: {reason}")]
    Unavailable {
        /// The upstream.
        host: String,
        /// What happened at each endpoint; safe to show to clients.
        reason: String,
    },
}

impl Target {
    /// The repository that it is in.
    pub fn repository(&self) -> &Repository {
        match self {
            Self::Manifest(repository, _)
            | Self::Blob(repository, _)
            | Self::Tags(repository, _)
            | Self::Referrers(repository, _, _) => repository,
        }
    }
}

impl Upstream {
    /// Builds the HTTP clients. The error says which setting they refuse.
    pub fn new(config: Arc<UpstreamConfig>) -> Result<Self, reqwest::Error> {
        Ok(Self {
            endpoints: config.endpoints.iter().cloned().map(Endpoint::new).collect(),
            clients: Clients::new(config.clone())?,
            auth: Authenticator::new(),
            stats: Stats::new(),
            config,
        })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// The pull limit, if the last manifest answer that announced one did so.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        self.stats.rate_limit()
    }

    /// Whether it answers, and what last went wrong.
    pub fn health(&self) -> Health {
        self.stats.health()
    }

    /// HTTP requests that were sent so far, to endpoints, redirect targets and token services.
    pub fn requests(&self) -> u64 {
        self.stats.requests()
    }

    /// Tries that failed so far with an error of that class. A request fails at most once at each
    /// endpoint; one that finds every endpoint's breaker open counts once.
    pub fn errors(&self, class: ErrorClass) -> u64 {
        self.stats.errors(class)
    }

    /// Sends a request and returns an answer of 200 or 206, or an error, before `deadline`.
    ///
    /// Endpoints are tried in order until one has spoken. Each gets an equal share of the time
    /// that is left, so that one that hangs leaves the others theirs; the last gets all of it.
    pub async fn send(
        &self,
        request: Request,
        deadline: Instant,
    ) -> Result<Response, UpstreamError> {
        let mut failures = Vec::new();
        let mut tried = false;
        let mut order = rotation(self.endpoints.len(), request.first_endpoint);
        while let Some(index) = order.next() {
            let endpoint = &self.endpoints[index];
            let now = Instant::now();
            if now >= deadline {
                failures.push((endpoint, Failure::new(ErrorClass::Timeout, "no time was left")));
                break;
            }
            let Some(permit) = endpoint.gate.admit(now) else {
                let reason = "left alone for a while after it failed";
                failures.push((endpoint, Failure::new(ErrorClass::BreakerOpen, reason)));
                continue;
            };
            let open = |index: usize| self.endpoints[index].gate.would_admit(now);
            let others = order.clone().filter(|index| open(*index)).count();
            let share = (deadline - now) / u32::try_from(others + 1).unwrap_or(u32::MAX);
            let attempt = Attempt {
                upstream: self,
                request: &request,
                endpoint: index,
                base: &endpoint.url,
                deadline: now + share,
            };
            tried = true;
            let mut verdict = None;
            let outcome = Box::pin(attempt.run(&mut verdict)).await;
            if let Some(verdict) = verdict {
                permit.conclude(verdict);
            }
            match outcome {
                Ok(response) => return Ok(response),
                Err(Stop::Final(error)) => {
                    if let UpstreamError::Denied { .. } = error {
                        self.stats.count_error(ErrorClass::Denied);
                    }
                    return Err(error);
                }
                Err(Stop::Failed(failure)) => {
                    let reason = format!("{}: {}", endpoint.authority(), failure.reason());
                    self.stats.record_failure(failure.class(), &reason);
                    failures.push((endpoint, failure));
                }
            }
        }
        if !tried {
            self.stats.count_error(ErrorClass::BreakerOpen);
        }
        Err(self.give_up(&failures))
    }

    /// The error after every endpoint has failed: refused by us if nothing else went wrong.
    fn give_up(&self, failures: &[(&Endpoint, Failure)]) -> UpstreamError {
        let host = self.config.host.to_string();
        let has = |class| move |(_, failure): &(&Endpoint, Failure)| failure.class() == class;
        let reasons = failures
            .iter()
            .map(|(endpoint, failure)| format!("{}: {}", endpoint.authority(), failure.reason()));
        let reason = reasons.take(MAX_REASONS).collect::<Vec<_>>().join("; ");
        if !failures.is_empty() && failures.iter().all(has(ErrorClass::Refused)) {
            return UpstreamError::Denied { host, reason };
        }
        UpstreamError::Unavailable { host, reason }
    }
}

/// Error messages name at most this many endpoints.
const MAX_REASONS: usize = 4;

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the configuration: a proxy's URL may carry a password.
        f.debug_struct("Upstream").field("host", &self.config.host).finish_non_exhaustive()
    }
}

//! One try of one endpoint: authorization, redirects, and what the answer means.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, LOCATION, RANGE},
};
use reqwest::Url;
use tokio::time::Instant;

use super::{
    Request, Response, Target, Upstream, UpstreamError,
    auth::{Authorization, Context, Demand, Subject},
    breaker::Verdict,
    challenge::Challenge,
    client::Outgoing,
    failure::Failure,
    rate_limit::RateLimit,
    redirect::{MAX_HOPS, next_hop, shown_host},
    refusal::Refusal,
    stats::ErrorClass,
    token::TokenError,
};

/// One try of one endpoint.
pub(super) struct Attempt<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) request: &'a Request,
    /// Index of the endpoint.
    pub(super) endpoint: usize,
    pub(super) base: &'a Url,
    pub(super) deadline: Instant,
}

/// Why a try gave no answer.
pub(super) enum Stop {
    /// The upstream has spoken; other endpoints would say the same.
    Final(UpstreamError),
    /// Another endpoint may do better.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Attempt<'_> {
    /// Tries. `verdict` becomes what was learnt about the endpoint.
    pub(super) async fn run(&self, verdict: &mut Option<Verdict>) -> Result<Response, Stop> {
        let started = Instant::now();
        let url = resource_url(self.base, &self.request.target);
        let subject = Subject {
            endpoint: self.endpoint,
            identity: self.request.identity,
            repository: self.request.target.repository().clone(),
        };
        let auth = &self.upstream.auth;

        let known = auth.known(&subject);
        let mut authorization = None;
        if let Some(demand) = &known {
            authorization = Some(self.authorize(demand, &subject).await?);
        }
        let mut answer = self.ask(&url, authorization.as_ref(), verdict).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let Some(challenge) = Challenge::of(answer.headers()) else {
                let reason = "it answers 401 without a challenge that we understand".to_owned();
                return Err(self.denied(reason));
            };
            let reach = self.upstream.clients.reach(self.base, &answer);
            let demand = Arc::new(Demand { challenge, reach });
            drop(answer);
            if let Some(rejected) = authorization {
                if rejected.is_newer_than(started) && known.as_deref() == Some(&*demand) {
                    auth.reject(rejected).await;
                    return Err(self.unauthorized());
                }
                auth.reject(rejected).await;
            }
            auth.learn(&subject, demand.clone());
            let authorization = self.authorize(&demand, &subject).await?;
            answer = self.ask(&url, Some(&authorization), verdict).await?;
            if answer.status() == StatusCode::UNAUTHORIZED {
                auth.reject(authorization).await;
                return Err(self.unauthorized());
            }
        }
        let (answer, redirected) = self.follow(url, answer).await?;
        self.conclude(answer, redirected)
    }

    async fn authorize(&self, demand: &Demand, subject: &Subject) -> Result<Authorization, Stop> {
        let Upstream { config, clients, stats, auth, .. } = self.upstream;
        let context = Context { config, clients, stats, deadline: self.deadline };
        let answered = Box::pin(auth.answer(demand, subject, self.base, &context)).await;
        answered.map_err(|error| {
            // The registry may have changed what it asks for, so it is asked anew.
            auth.unlearn(subject);
            match error {
                TokenError::Denied { reason } => self.denied(reason),
                TokenError::Failed(failure) => Stop::Failed(failure),
            }
        })
    }

    /// Asks the endpoint itself.
    async fn ask(
        &self,
        url: &Url,
        authorization: Option<&Authorization>,
        verdict: &mut Option<Verdict>,
    ) -> Result<reqwest::Response, Stop> {
        let Upstream { clients, stats, .. } = self.upstream;
        let mut headers = self.headers()?;
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.header.clone());
        }
        let started = Instant::now();
        let method = &self.request.method;
        let outgoing = Outgoing { method, url, headers, deadline: self.deadline };
        let asked = clients.exchange(clients.for_endpoint(), outgoing, stats).await;
        match &asked {
            Ok(answer) => {
                *verdict = Some(Verdict::of(answer.status(), answer.headers()));
                stats.set_reachable(true);
                if let Target::Manifest(..) = self.request.target
                    && let Some(limit) = RateLimit::of(answer.headers())
                {
                    stats.set_rate_limit(limit);
                }
            }
            Err(failure) => {
                *verdict = clients.verdict(failure, started.elapsed());
                stats.set_reachable(false);
            }
        }
        Ok(asked?)
    }

    /// Follows redirects. `Authorization` stays behind, even if one leads back.
    async fn follow(
        &self,
        mut url: Url,
        mut answer: reqwest::Response,
    ) -> Result<(reqwest::Response, bool), Stop> {
        let Upstream { clients, stats, .. } = self.upstream;
        let reach = clients.reach(self.base, &answer);
        for hop in 0.. {
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((answer, hop > 0));
            }
            if hop == MAX_HOPS {
                return Err(Failure::Refused(Refusal::TooManyHops { limit: MAX_HOPS }).into());
            }
            let Some(location) = answer.headers().get(LOCATION) else {
                return Err(Failure::new(ErrorClass::Broken, "a redirect without Location").into());
            };
            url = next_hop(&url, location.as_bytes(), reach).map_err(Failure::Refused)?;
            // A body that is not read yet costs the connection, unless it has arrived already.
            drop(answer);
            let host = shown_host(&url);
            let client = clients.for_hop(&url, self.base, reach).await?;
            let method = &self.request.method;
            let outgoing =
                Outgoing { method, url: &url, headers: self.headers()?, deadline: self.deadline };
            let asked = clients.exchange(client, outgoing, stats).await;
            answer = asked.map_err(|failure| match failure {
                Failure::Failed { class, reason } => {
                    Failure::new(class, format!("redirected to {host}: {reason}"))
                }
                refused @ Failure::Refused(_) => refused,
            })?;
        }
        // `hop` reaches MAX_HOPS first.
        Err(Failure::Refused(Refusal::TooManyHops { limit: MAX_HOPS }).into())
    }

    fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        let invalid = |_| Failure::new(ErrorClass::Broken, "the Accept header cannot be sent");
        if let Some(accept) = &self.request.accept {
            headers.insert(ACCEPT, HeaderValue::try_from(accept).map_err(invalid)?);
        }
        if let Some((first, last)) = self.request.range {
            let last = last.map(|last| last.to_string()).unwrap_or_default();
            let range = HeaderValue::try_from(format!("bytes={first}-{last}")).map_err(invalid)?;
            headers.insert(RANGE, range);
        }
        Ok(headers)
    }

    fn conclude(&self, answer: reqwest::Response, redirected: bool) -> Result<Response, Stop> {
        let host = self.upstream.config.host.to_string();
        let method = self.request.method.clone();
        let status = answer.status();
        let code = status.as_u16();
        let place = if redirected { " where it redirects to" } else { "" };
        match meaning(status, &method, self.request.range.is_some(), redirected) {
            Meaning::Answer if is_encoded(answer.headers()) => {
                let reason = "it sends a Content-Encoding that nobody asked for";
                Err(Failure::new(ErrorClass::Broken, reason).into())
            }
            Meaning::Answer => Ok(Response::new(self.endpoint, answer)),
            Meaning::NotFound => Err(Stop::Final(UpstreamError::NotFound { host })),
            Meaning::Denied => Err(self.denied(format!("status {code}{place}"))),
            Meaning::MethodRefused => {
                Err(Stop::Final(UpstreamError::MethodRefused { host, method }))
            }
            Meaning::RangeNotSatisfiable => {
                Err(Stop::Final(UpstreamError::RangeNotSatisfiable { host }))
            }
            Meaning::Unusable => {
                Err(Failure::new(ErrorClass::of(code), format!("status {code}{place}")).into())
            }
        }
    }

    fn denied(&self, reason: String) -> Stop {
        let host = self.upstream.config.host.to_string();
        Stop::Final(UpstreamError::Denied { host, reason })
    }

    fn unauthorized(&self) -> Stop {
        // Docker Hub says 401 for what does not exist, too.
        let repository = self.request.target.repository();
        let reason = match self.request.identity {
            crate::config::Identity::Configured if self.upstream.config.credentials.is_some() => {
                format!("the credentials do not give access to {repository}, or it does not exist")
            }
            _ => format!("{repository} is not open to anonymous clients, or it does not exist"),
        };
        self.denied(reason)
    }
}

/// What a status means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Answer,
    NotFound,
    Denied,
    MethodRefused,
    RangeNotSatisfiable,
    Unusable,
}

fn meaning(status: StatusCode, method: &Method, ranged: bool, redirected: bool) -> Meaning {
    match status.as_u16() {
        200 => Meaning::Answer,
        206 if ranged => Meaning::Answer,
        404 | 410 => Meaning::NotFound,
        // Object stores sign URLs for one method, and many registries always sign for GET.
        401 | 403 if redirected && method == Method::HEAD => Meaning::MethodRefused,
        401 | 403 => Meaning::Denied,
        405 | 501 => Meaning::MethodRefused,
        416 if ranged => Meaning::RangeNotSatisfiable,
        _ => Meaning::Unusable,
    }
}

/// Whether the body is not the content itself. We never ask for that, and digests are of the
/// content.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| {
        let plain = value.as_bytes().trim_ascii();
        !plain.is_empty() && !plain.eq_ignore_ascii_case(b"identity")
    })
}

fn resource_url(base: &Url, target: &Target) -> Url {
    let mut url = base.clone();
    let prefix = base.path().trim_end_matches('/');
    let (path, query) = match target {
        Target::Manifest(repository, reference) => {
            (format!("{prefix}/v2/{repository}/manifests/{reference}"), "")
        }
        Target::Blob(repository, digest) => {
            (format!("{prefix}/v2/{repository}/blobs/{digest}"), "")
        }
        Target::Tags(repository, query) => {
            (format!("{prefix}/v2/{repository}/tags/list"), query.as_str())
        }
        Target::Referrers(repository, digest, query) => {
            (format!("{prefix}/v2/{repository}/referrers/{digest}"), query.as_str())
        }
    };
    url.set_path(&path);
    url.set_query((!query.is_empty()).then_some(query));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_statuses_mean() {
        use Meaning::{Answer, Denied, MethodRefused, NotFound, RangeNotSatisfiable, Unusable};
        for (code, plain, ranged, head_redirected) in [
            (200, Answer, Answer, Answer),
            (206, Unusable, Answer, Unusable),
            (401, Denied, Denied, MethodRefused),
            (403, Denied, Denied, MethodRefused),
            (404, NotFound, NotFound, NotFound),
            (410, NotFound, NotFound, NotFound),
            (405, MethodRefused, MethodRefused, MethodRefused),
            (501, MethodRefused, MethodRefused, MethodRefused),
            (416, Unusable, RangeNotSatisfiable, Unusable),
            (204, Unusable, Unusable, Unusable),
            (304, Unusable, Unusable, Unusable),
            (400, Unusable, Unusable, Unusable),
            (408, Unusable, Unusable, Unusable),
            (429, Unusable, Unusable, Unusable),
            (451, Unusable, Unusable, Unusable),
            (500, Unusable, Unusable, Unusable),
            (503, Unusable, Unusable, Unusable),
        ] {
            let status = StatusCode::from_u16(code).unwrap();
            assert_eq!(meaning(status, &Method::GET, false, false), plain, "{code}");
            assert_eq!(meaning(status, &Method::GET, true, true), ranged, "{code}");
            assert_eq!(meaning(status, &Method::HEAD, false, true), head_redirected, "{code}");
        }
    }

    #[test]
    fn resources_are_below_the_base_url() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let repository = || "library/nginx".parse().unwrap();
        for (base, target, expected) in [
            (
                "https://r.example",
                Target::Manifest(repository(), "1.27".parse().unwrap()),
                "https://r.example/v2/library/nginx/manifests/1.27".to_owned(),
            ),
            (
                "https://r.example:5000/hub",
                Target::Blob(repository(), digest.parse().unwrap()),
                format!("https://r.example:5000/hub/v2/library/nginx/blobs/{digest}"),
            ),
            (
                "https://r.example",
                Target::Tags(repository(), "n=5&last=a#b".to_owned()),
                "https://r.example/v2/library/nginx/tags/list?n=5&last=a%23b".to_owned(),
            ),
            (
                "https://r.example",
                Target::Referrers(repository(), digest.parse().unwrap(), String::new()),
                format!("https://r.example/v2/library/nginx/referrers/{digest}"),
            ),
        ] {
            assert_eq!(String::from(resource_url(&Url::parse(base).unwrap(), &target)), expected);
        }
    }

    #[test]
    fn only_the_identity_encoding_is_none() {
        for (value, encoded) in [
            ("identity", false),
            ("", false),
            (" Identity ", false),
            ("gzip", true),
            ("zstd", true),
        ] {
            let headers =
                [(CONTENT_ENCODING, HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(is_encoded(&headers), encoded, "{value:?}");
        }
    }
}

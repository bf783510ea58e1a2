//! What goes into `Authorization`: the challenge that a registry once made, answered with the
//! credentials or with a token.

use std::sync::Arc;

use http::HeaderValue;
use reqwest::Url;
use tokio::time::Instant;

use super::{
    address::Reach,
    challenge::{Bearer, Challenge},
    client::Clients,
    failure::Failure,
    realm::check_realm,
    stats::Stats,
    token::{TokenError, TokenKey, TokenRequest, Tokens, secret_header},
};
use crate::{
    config::{Identity, UpstreamConfig},
    oci::Repository,
};

/// Challenges that are remembered; the least used go first.
const MAX_CHALLENGES: u64 = 4096;

/// Whose request is to be authorized, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pub(super) endpoint: usize,
    pub(super) identity: Identity,
    pub(super) repository: Repository,
}

/// A challenge, and how far the endpoint that made it may send us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) challenge: Challenge,
    pub(super) reach: Reach,
}

/// What to send, and what to forget if it is not accepted.
#[derive(Debug)]
pub(super) struct Authorization {
    pub(super) header: HeaderValue,
    token: Option<(TokenKey, Instant)>,
}

/// Remembers challenges and tokens, so that only the first request to a repository is a question.
#[derive(Debug)]
pub(super) struct Authenticator {
    known: moka::sync::Cache<Subject, Arc<Demand>>,
    tokens: Tokens,
}

impl Authorization {
    /// Whether asking again since `start` could not give another one.
    pub(super) fn is_newer_than(&self, start: Instant) -> bool {
        match &self.token {
            None => true,
            Some((_, asked)) => *asked >= start,
        }
    }
}

impl Authenticator {
    pub(super) fn new() -> Self {
        Self { known: moka::sync::Cache::new(MAX_CHALLENGES), tokens: Tokens::new() }
    }

    /// The challenge that the endpoint last made to such requests.
    pub(super) fn known(&self, subject: &Subject) -> Option<Arc<Demand>> {
        self.known.get(subject)
    }

    /// Remembers a challenge.
    pub(super) fn learn(&self, subject: &Subject, demand: Arc<Demand>) {
        self.known.insert(subject.clone(), demand);
    }

    /// Forgets a challenge that can no longer be answered.
    pub(super) fn unlearn(&self, subject: &Subject) {
        self.known.invalidate(subject);
    }

    /// Forgets what was not accepted.
    pub(super) async fn reject(&self, rejected: Authorization) {
        if let Some((key, asked)) = rejected.token {
            self.tokens.forget(&key, asked).await;
        }
    }

    /// Answers a challenge of `endpoint`, the URL of `subject.endpoint`.
    pub(super) async fn answer(
        &self,
        demand: &Demand,
        subject: &Subject,
        endpoint: &Url,
        context: &Context<'_>,
    ) -> Result<Authorization, TokenError> {
        let credentials = match subject.identity {
            Identity::Anonymous => None,
            Identity::Configured => context.config.credentials.as_ref(),
        };
        let bearer = match &demand.challenge {
            Challenge::Basic => {
                let Some(credentials) = credentials else {
                    let reason = "it asks for a user name and a password".to_owned();
                    return Err(TokenError::Denied { reason });
                };
                let header = secret_header("Basic", credentials.basic().expose());
                let header = header.map_err(|reason| TokenError::Denied { reason })?;
                return Ok(Authorization { header, token: None });
            }
            Challenge::Bearer(bearer) => bearer,
        };
        let realm = check_realm(
            &bearer.realm,
            endpoint,
            demand.reach,
            credentials.is_some(),
            &context.config.token_realms,
        );
        let realm = realm.map_err(|refusal| TokenError::Failed(Failure::Refused(refusal)))?;
        let key = TokenKey {
            identity: subject.identity,
            url: token_url(realm, bearer, &subject.repository),
        };
        let request = TokenRequest {
            key: key.clone(),
            basic: credentials.map(crate::config::Credentials::basic),
            endpoint,
            reach: demand.reach,
            deadline: context.deadline,
        };
        let token = self.tokens.get(request, context.clients, context.stats).await?;
        Ok(Authorization { header: token.header.clone(), token: Some((key, token.asked)) })
    }
}

/// What answering a challenge needs besides the challenge.
pub(super) struct Context<'a> {
    pub(super) config: &'a UpstreamConfig,
    pub(super) clients: &'a Clients,
    pub(super) stats: &'a Stats,
    pub(super) deadline: Instant,
}

/// The realm with the challenge's parameters added to its own query.
fn token_url(mut realm: Url, bearer: &Bearer, repository: &Repository) -> Url {
    let mut query = realm.query_pairs_mut();
    if let Some(service) = &bearer.service {
        query.append_pair("service", service);
    }
    query.append_pair("scope", &bearer.scope_for(repository));
    drop(query);
    realm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_url_keeps_the_realms_own_query() {
        let url = |realm: &str, service: Option<&str>| {
            let service = service.map(str::to_owned);
            let bearer = Bearer { realm: String::new(), service, scope: None };
            let repository = "library/nginx".parse().unwrap();
            String::from(token_url(Url::parse(realm).unwrap(), &bearer, &repository))
        };
        assert_eq!(
            url("https://auth.docker.io/token", Some("registry.docker.io")),
            "https://auth.docker.io/token?service=registry.docker.io&\
             scope=repository%3Alibrary%2Fnginx%3Apull"
        );
        assert_eq!(
            url("https://r.example/t?a=b", Some("a b&scope=x")),
            "https://r.example/t?a=b&service=a+b%26scope%3Dx&\
             scope=repository%3Alibrary%2Fnginx%3Apull"
        );
        assert_eq!(
            url("https://r.example/t", None),
            "https://r.example/t?scope=repository%3Alibrary%2Fnginx%3Apull"
        );
    }
}

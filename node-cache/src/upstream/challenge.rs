//! `WWW-Authenticate`: what a registry asks for.

use http::{HeaderMap, header::WWW_AUTHENTICATE};
use http_auth::{ChallengeRef, parse_challenges};

use crate::oci::Repository;

/// Challenges beyond this many bytes are not read.
const MAX_CHALLENGE: usize = 4 << 10;

/// What to answer a 401 with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from a service.
    Bearer(Bearer),
}

/// The parameters of a Bearer challenge, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// URL of the token service.
    pub realm: String,
    /// Name of the registry there.
    pub service: Option<String>,
    /// What the token has to allow.
    pub scope: Option<String>,
}

impl Challenge {
    /// The first Bearer challenge with a realm, else Basic if that is offered. A header that
    /// cannot be parsed does not hide the others.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = value.to_str() else { continue };
            if text.len() > MAX_CHALLENGE {
                continue;
            }
            let Ok(challenges) = parse_challenges(text) else {
                continue;
            };
            for challenge in challenges {
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    if let Some(realm) = parameter(&challenge, "realm") {
                        let service = parameter(&challenge, "service");
                        let scope = parameter(&challenge, "scope");
                        return Some(Self::Bearer(Bearer { realm, service, scope }));
                    }
                } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }
}

impl Bearer {
    /// The scope to ask for: the registry's spelling if it means pulling from this repository,
    /// else the usual one. Registries behind a path prefix name themselves with it, so a longer
    /// name that ends in ours counts.
    pub fn scope_for(&self, repository: &Repository) -> String {
        match &self.scope {
            Some(scope) if means_pull(scope, repository) => scope.clone(),
            _ => format!("repository:{repository}:pull"),
        }
    }
}

fn means_pull(scope: &str, repository: &Repository) -> bool {
    let mut parts = scope.splitn(3, ':');
    let (Some(kind), Some(name), Some(actions)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let named = match name.strip_suffix(repository.as_str()) {
        Some(prefix) => prefix.is_empty() || prefix.ends_with('/'),
        None => false,
    };
    named && kind.starts_with("repository") && !scope.contains(' ') && actions == "pull"
}

fn parameter(challenge: &ChallengeRef<'_>, name: &str) -> Option<String> {
    let (_, value) = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value.to_unescaped()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn challenge(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Challenge::of(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer(Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        })
    }

    #[test]
    fn challenges_of_registries_are_understood() {
        let hub = "Bearer realm=\"https://auth.docker.io/token\",\
                   service=\"registry.docker.io\",scope=\"repository:library/nginx:pull\"";
        let hub_read = Some(bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:library/nginx:pull"),
        ));
        assert_eq!(challenge(&[hub]), hub_read);
        assert_eq!(challenge(&["Basic realm=\"ecr\"", hub]), hub_read);
        assert_eq!(challenge(&["Negotiate, Basic realm=\"x\"", "@@", hub]), hub_read);
        let with_query = bearer("https://r/?a=b", Some("s"), None);
        #[rustfmt::skip]
        let table = [
            ("bearer service=s, REALM=\"https://r/?a=b\"", Some(with_query)),
            (r#"Bearer realm="https://r/",service="",scope="""#, Some(bearer("https://r/", None, None))),
            (r#"Bearer realm="a\"b""#, Some(bearer("a\"b", None, None))),
            (r#"Basic realm="a", Bearer realm="b""#, Some(bearer("b", None, None))),
            (r#"Bearer service="s", Basic realm="a""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            ("Digest realm=\"x\"", None),
            ("bEaReR  realm=x", None),
            ("", None),
        ];
        for (value, expected) in table {
            assert_eq!(challenge(&[value]), expected, "{value}");
        }
        let long = format!("Bearer realm=\"{}\"", "a".repeat(5000));
        assert_eq!(challenge(&[&long]), None);
        assert_eq!(challenge(&[]), None);
    }

    #[test]
    fn the_scope_is_ours_unless_the_registrys_means_the_same() {
        let repository = "library/nginx".parse().unwrap();
        let ours = "repository:library/nginx:pull";
        for (written, sent) in [
            (Some(ours), ours),
            (None, ours),
            (Some("repository:library/redis:pull"), ours),
            (Some("repository:library/nginx:pull,push"), ours),
            (Some("repository:library/nginx:*"), ours),
            (Some("repository:library/nginx:pull repository:secret:pull"), ours),
            (Some("registry:catalog:*"), ours),
            (Some("repository:evillibrary/nginx:pull"), ours),
            (
                Some("repository(plugin):library/nginx:pull"),
                "repository(plugin):library/nginx:pull",
            ),
            (Some("repository:hub/library/nginx:pull"), "repository:hub/library/nginx:pull"),
            (Some("repository"), ours),
        ] {
            let scope = written.map(str::to_owned);
            let bearer = Bearer { realm: String::new(), service: None, scope };
            assert_eq!(bearer.scope_for(&repository), sent, "{written:?}");
        }
    }

    proptest! {
        #[test]
        fn no_challenge_panics(text in "[ -~]{0,80}") {
            let _ = challenge(&[&text]);
        }
    }
}

//! What registries and token services say about who may read.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
use larder_node_cache::{
    oci::Repository,
    upstream::{Bearer, Challenge, Grant},
};

/// Lines of `WWW-Authenticate`.
///
/// A broken one does not hide the others, Bearer wins, and the scope that is asked for is never
/// more than to pull.
pub fn challenge(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(16) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(WWW_AUTHENTICATE, value);
        }
    }
    let found = Challenge::of(&headers);

    let mut behind = HeaderMap::new();
    behind.append(WWW_AUTHENTICATE, HeaderValue::from_static("@@"));
    behind.extend(headers.get_all(WWW_AUTHENTICATE).iter().map(|v| (WWW_AUTHENTICATE, v.clone())));
    assert_eq!(Challenge::of(&behind), found);

    let ours = HeaderValue::from_static("Bearer realm=\"https://ours.example/\"");
    headers.append(WWW_AUTHENTICATE, ours);
    let with_ours = Challenge::of(&headers);
    assert!(matches!(with_ours, Some(Challenge::Bearer(_))), "{with_ours:?}");

    if let Some(Challenge::Bearer(bearer)) = found {
        assert_eq!(with_ours, Some(Challenge::Bearer(bearer.clone())), "the first one counts");
        check_scope(&bearer);
    }
}

fn check_scope(bearer: &Bearer) {
    assert!(!bearer.realm.is_empty());
    let repository: Repository = "library/nginx".parse().expect("a repository");
    let scope = bearer.scope_for(&repository);
    let parts: Vec<_> = scope.splitn(3, ':').collect();
    assert!(parts[0].starts_with("repository"), "{scope:?}");
    assert!(parts[1] == repository.as_str() || parts[1].ends_with("/library/nginx"), "{scope:?}");
    assert_eq!(parts[2], "pull", "{scope:?}");
    assert!(!scope.contains(' '), "{scope:?} asks for two things");
}

/// The answer of a token service.
///
/// A token is never empty and lives between a minute and a day, and an answer that says just that
/// is read the same.
pub fn token(data: &[u8]) {
    let Some(grant) = Grant::parse(data) else { return };
    assert!(!grant.token.is_empty());
    assert!(grant.life >= Duration::from_mins(1) && grant.life <= Duration::from_hours(24));
    assert!(!format!("{grant:?}").contains("token"), "debug output shows it");
    let plain = serde_json::json!({"token": grant.token, "expires_in": grant.life.as_secs_f64()});
    let again = Grant::parse(plain.to_string().as_bytes()).expect("what was read is read again");
    assert_eq!(again.token, grant.token);
    assert!(again.life.abs_diff(grant.life) < Duration::from_millis(1));
}

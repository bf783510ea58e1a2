//! Pull limits and `Retry-After`, as registries announce them.

use std::time::Duration;

use http::{HeaderMap, header::RETRY_AFTER};
use jiff::Timestamp;

/// A registry's pull limit (Docker Hub: 100 per 6 hours for each address without an account).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Pulls per window.
    pub limit: u64,
    /// Pulls left in it.
    pub remaining: u64,
    /// Whom the limit counts, as the registry names it (an address or an account); at most 64
    /// printable bytes, may be empty.
    pub source: String,
}

impl RateLimit {
    /// From `ratelimit-limit: 100;w=21600`, `ratelimit-remaining` and `docker-ratelimit-source`.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let count = |name: &str| text(name)?.split(';').next()?.trim().parse().ok();
        let source = text("docker-ratelimit-source").unwrap_or_default();
        Some(Self {
            limit: count("ratelimit-limit")?,
            remaining: count("ratelimit-remaining")?,
            source: source.chars().take(64).collect(),
        })
    }
}

/// The `Retry-After` of an answer that came at `now`: seconds, or a date (RFC 9110 section
/// 10.2.3), which is zero if it has passed.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn docker_hubs_limits_are_read() {
        let hub = [
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "76;w=21600"),
            ("docker-ratelimit-source", "192.0.2.7"),
        ];
        let read = RateLimit { limit: 100, remaining: 76, source: "192.0.2.7".to_owned() };
        assert_eq!(RateLimit::of(&headers(&hub)), Some(read));
        let plain = RateLimit { limit: 5, remaining: 0, source: String::new() };
        let pairs = [("ratelimit-limit", "5"), ("ratelimit-remaining", "0")];
        assert_eq!(RateLimit::of(&headers(&pairs)), Some(plain));
        for incomplete in [&hub[..1], &hub[1..], &[]] {
            assert_eq!(RateLimit::of(&headers(incomplete)), None);
        }
        let wrong = [("ratelimit-limit", "-1"), ("ratelimit-remaining", "x")];
        assert_eq!(RateLimit::of(&headers(&wrong)), None);
    }

    #[test]
    fn f10_retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        for (value, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Tue, 24 Nov 2026 10:00:30 GMT", Some(30)),
            ("Tue, 24 Nov 2026 09:00:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
            ("1.5", None),
            ("", None),
        ] {
            let read = retry_after(&headers(&[("retry-after", value)]), now);
            assert_eq!(read, expected.map(Duration::from_secs), "{value:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}

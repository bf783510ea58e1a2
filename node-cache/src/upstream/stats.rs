//! What an upstream's requests came to, for metrics and reports.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use jiff::Timestamp;

use super::rate_limit::RateLimit;

/// What went wrong with a request; a closed list, fit for a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The name could not be resolved.
    Dns,
    /// No connection.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// No headers in time.
    Timeout,
    /// 500 to 599.
    Status5xx,
    /// 429.
    RateLimited,
    /// The connection broke, or the answer is not one that a registry gives.
    Broken,
    /// The upstream or its token service says 401 or 403.
    Denied,
    /// The upstream wanted to send us or the credentials where they may not go.
    Refused,
    /// Every endpoint is left alone for a while.
    BreakerOpen,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 10] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Status5xx,
        Self::RateLimited,
        Self::Broken,
        Self::Denied,
        Self::Refused,
        Self::BreakerOpen,
    ];

    /// The class of a status that is no answer.
    pub(super) fn of(code: u16) -> Self {
        match code {
            429 => Self::RateLimited,
            500.. => Self::Status5xx,
            _ => Self::Broken,
        }
    }

    /// The name as a metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Status5xx => "status_5xx",
            Self::RateLimited => "rate_limited",
            Self::Broken => "broken",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::BreakerOpen => "breaker_open",
        }
    }
}

/// How an upstream does, as reports show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether the last request to it got any HTTP answer; true before the first request.
    pub reachable: bool,
    /// Time and class of the last error and what happened, safe to show; empty when there was
    /// none. What single repositories are denied is not an error of the upstream.
    pub last_error: String,
}

/// Counters and last findings of one upstream.
#[derive(Debug)]
pub(super) struct Stats {
    requests: AtomicU64,
    errors: [AtomicU64; ErrorClass::ALL.len()],
    reachable: AtomicBool,
    last_error: Mutex<String>,
    rate_limit: Mutex<Option<RateLimit>>,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self {
            requests: AtomicU64::new(0),
            errors: Default::default(),
            reachable: AtomicBool::new(true),
            last_error: Mutex::default(),
            rate_limit: Mutex::default(),
        }
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn count_error(&self, class: ErrorClass) {
        self.errors[class as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn errors(&self, class: ErrorClass) -> u64 {
        self.errors[class as usize].load(Ordering::Relaxed)
    }

    pub(super) fn set_reachable(&self, reachable: bool) {
        self.reachable.store(reachable, Ordering::Relaxed);
    }

    /// Counts a failed try and keeps its reason, which must be safe to show. An open breaker is no
    /// news: why it opened is kept.
    pub(super) fn record_failure(&self, class: ErrorClass, reason: &str) {
        self.count_error(class);
        if class == ErrorClass::BreakerOpen {
            return;
        }
        let text = format!("{:.0} {}: {reason}", Timestamp::now(), class.name());
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    pub(super) fn health(&self) -> Health {
        let last_error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Health { reachable: self.reachable.load(Ordering::Relaxed), last_error }
    }

    pub(super) fn set_rate_limit(&self, limit: RateLimit) {
        *self.rate_limit.lock().unwrap_or_else(PoisonError::into_inner) = Some(limit);
    }

    pub(super) fn rate_limit(&self) -> Option<RateLimit> {
        self.rate_limit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_its_own_counter() {
        for (index, class) in ErrorClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index);
        }
        let stats = Stats::new();
        stats.count_error(ErrorClass::BreakerOpen);
        assert_eq!(stats.errors(ErrorClass::BreakerOpen), 1);
        assert_eq!(stats.errors(ErrorClass::Dns), 0);
    }

    #[test]
    fn health_shows_the_last_error_with_its_time() {
        let stats = Stats::new();
        assert_eq!(stats.health(), Health { reachable: true, last_error: String::new() });
        stats.set_reachable(false);
        stats.record_failure(ErrorClass::Timeout, "reg.example.com: no answer within 3 s");
        stats.record_failure(ErrorClass::BreakerOpen, "reg.example.com: left alone");
        let health = stats.health();
        assert!(!health.reachable);
        let (time, rest) = health.last_error.split_once(' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok() && time.len() == 20, "{time}");
        assert_eq!(rest, "timeout: reg.example.com: no answer within 3 s");
    }
}

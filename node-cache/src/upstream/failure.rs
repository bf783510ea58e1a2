//! Why a try of one endpoint, redirect target or token service came to nothing.

use std::{error::Error, io};

use super::{refusal::Refusal, resolver::OutOfReach, stats::ErrorClass};

/// Reasons are cut to this many characters.
const MAX_REASON: usize = 160;

/// A failed try: another endpoint may do better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// We may not go where it leads.
    Refused(Refusal),
    /// Nothing usable came.
    Failed {
        /// For the counters.
        class: ErrorClass,
        /// Safe to show: no URL beyond a host, no header, one short line.
        reason: String,
    },
}

impl Failure {
    pub(super) fn new(class: ErrorClass, reason: impl AsRef<str>) -> Self {
        Self::Failed { class, reason: printable(reason.as_ref()) }
    }

    /// Sorts an error of the HTTP client. Its URL is dropped: query strings sign requests.
    pub(super) fn of(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if let Some(OutOfReach(refusal)) = find(&error) {
            return Self::Refused(refusal.clone());
        }
        let class = if error.is_dns() {
            ErrorClass::Dns
        } else if find::<rustls::Error>(&error).is_some() {
            ErrorClass::Tls
        } else if error.is_timeout() {
            ErrorClass::Timeout
        } else if error.is_connect() {
            ErrorClass::Connect
        } else {
            ErrorClass::Broken
        };
        let root = match class {
            ErrorClass::Timeout => "the connection was not established in time".to_owned(),
            _ => root_cause(&error),
        };
        Self::new(class, root)
    }

    /// For the counters.
    pub(super) fn class(&self) -> ErrorClass {
        match self {
            Self::Refused(_) => ErrorClass::Refused,
            Self::Failed { class, .. } => *class,
        }
    }

    /// Safe to show.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.to_string(),
            Self::Failed { reason, .. } => reason.clone(),
        }
    }

    /// Whether the connection itself failed, so that the peer may be down.
    pub(super) fn is_peers(&self) -> bool {
        match self.class() {
            ErrorClass::Dns
            | ErrorClass::Connect
            | ErrorClass::Tls
            | ErrorClass::Timeout
            | ErrorClass::Broken => true,
            ErrorClass::Status5xx
            | ErrorClass::RateLimited
            | ErrorClass::Denied
            | ErrorClass::Refused
            | ErrorClass::BreakerOpen => false,
        }
    }
}

/// Whether a request got no answer because its connection was closed meanwhile, which an idle
/// connection may be at any time: the request may be sent once more.
pub(super) fn is_stale_connection(error: &reqwest::Error) -> bool {
    let cut = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
        )
    };
    !error.is_connect()
        && (find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message)
            || find::<io::Error>(error).is_some_and(cut))
}

/// The first error of type `E` in the chain of causes.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // `io::Error::source` skips the error that it carries.
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match carried {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    None
}

fn root_cause(error: &dyn Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// One short line of printable ASCII (T17: upstreams have a say in error texts, for example
/// through the names in a certificate).
pub(super) fn printable(text: &str) -> String {
    let clean = |c: char| {
        if c == ' ' || c.is_ascii_graphic() { c } else { '?' }
    };
    let mut line: String = text.chars().take(MAX_REASON).map(clean).collect();
    if text.chars().nth(MAX_REASON).is_some() {
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t17_reasons_are_one_short_printable_line() {
        assert_eq!(printable("a\r\nb\x1b[31m\u{202e}ü"), "a??b?[31m??");
        assert_eq!(printable(&"a".repeat(161)), format!("{}...", "a".repeat(160)));
    }

    #[tokio::test]
    async fn t17_an_error_of_the_client_keeps_no_query_string() {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let error = client.get("http://127.0.0.1:1/p?X-Amz-Signature=canary").send().await;
        let error = error.unwrap_err();
        assert!(error.to_string().contains("canary"));
        let failure = Failure::of(error);
        assert_eq!(failure.class(), ErrorClass::Connect);
        assert!(failure.reason().contains("refused"), "{failure:?}");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}

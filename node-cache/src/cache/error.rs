//! Why a request cannot be served.

use crate::{
    metrics::Outcome,
    oci::ErrorCode,
    store::StoreError,
    upstream::{BodyError, UpstreamError},
};

/// An answer that is not content. The message is meant for the person who reads the pod's events.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What the caller can do about it.
    pub kind: ErrorKind,
    /// One sentence; no secrets.
    pub message: String,
}

/// What the caller can do about an [`Error`]. See the status map of protocol section "Failure
/// matrix": containerd falls back to the upstream on every one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The upstream says that there is no such thing: 404.
    NotFound,
    /// We may not serve it: 403, the one status whose message reaches the pod.
    Refused,
    /// The upstream cannot be reached, or the store failed: 503.
    Unavailable,
    /// The upstream answered, with something that cannot be served: 503, and nothing older in its
    /// place.
    Unusable,
    /// The range lies outside the content, which has this many bytes: 416.
    Range(u64),
}

impl Error {
    pub(super) fn refused(message: String) -> Self {
        Self { kind: ErrorKind::Refused, message }
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unavailable, message: message.into() }
    }

    pub(super) fn unusable(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unusable, message: message.into() }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::NotFound, message: message.into() }
    }

    /// Whether an older answer may be given instead: never after a 401, 403 or 404.
    pub(super) fn allows_stale(&self) -> bool {
        self.kind == ErrorKind::Unavailable
    }

    /// How the request counts.
    pub fn outcome(&self) -> Outcome {
        match self.kind {
            ErrorKind::NotFound => Outcome::NotFound,
            ErrorKind::Refused => Outcome::Refused,
            ErrorKind::Unavailable | ErrorKind::Unusable => Outcome::Unavailable,
            ErrorKind::Range(_) => Outcome::BadRange,
        }
    }
}

impl ErrorKind {
    /// The OCI code, given the one for content that is not found.
    pub fn code(self, not_found: ErrorCode) -> ErrorCode {
        match self {
            Self::NotFound => not_found,
            Self::Refused => ErrorCode::Denied,
            Self::Unavailable | Self::Unusable => ErrorCode::Unavailable,
            Self::Range(_) => ErrorCode::RangeInvalid,
        }
    }
}

impl From<UpstreamError> for Error {
    fn from(error: UpstreamError) -> Self {
        match &error {
            UpstreamError::NotFound { .. } => Self::not_found(error.to_string()),
            UpstreamError::Denied { .. } => Self::refused(format!(
                "{error}; larder serves what anybody may read, so the registry itself is asked with \
                 the pod's own credentials"
            )),
            UpstreamError::MethodRefused { .. }
            | UpstreamError::RangeNotSatisfiable { .. }
            | UpstreamError::Unavailable { .. } => Self::unavailable(error.to_string()),
        }
    }
}

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { .. } => Self::unusable(error.to_string()),
            BodyError::Broken(_) | BodyError::TimedOut => Self::unavailable(error.to_string()),
        }
    }
}

impl From<StoreError> for Error {
    fn from(_: StoreError) -> Self {
        // The path and the cause are in the log; a client has no use for them.
        Self::unavailable("larder's store failed; see the log of larder-node")
    }
}

//! The error codes of the distribution specification ("Error Codes").

/// A code in an OCI error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The blob is not known to the registry.
    BlobUnknown,
    /// The reference cannot be served by the policy in force.
    Denied,
    /// The digest is malformed or its algorithm unsupported.
    DigestInvalid,
    /// The manifest is not known to the registry.
    ManifestUnknown,
    /// The repository name is malformed.
    NameInvalid,
    /// The repository or registry is not known.
    NameUnknown,
    /// The requested range lies outside the blob.
    RangeInvalid,
    /// The tag is malformed.
    TagInvalid,
    /// The upstream cannot be reached. Not in the specification; distribution uses it.
    Unavailable,
    /// The request is well-formed HTTP but not one that this server supports.
    Unsupported,
}

impl ErrorCode {
    /// The code as it stands in the body.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::Denied => "DENIED",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unsupported => "UNSUPPORTED",
        }
    }
}

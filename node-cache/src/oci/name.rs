//! Repository names, tags and references (distribution-spec, "Pulling manifests").

use std::{fmt, str::FromStr};

use super::{Digest, ParseDigestError};

/// A repository name: path segments of lower-case letters, digits and separators, without the
/// registry. At most 255 bytes, the bound that clients use for the whole name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(Box<str>);

/// A tag: a letter, digit or `_`, then up to 127 of those, `.` or `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Box<str>);

/// What stands after `/manifests/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A name that may move.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

/// Why a text is not a repository name or a tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseNameError {
    /// Not a repository name.
    #[error(
        "a repository name consists of lower-case letters and digits, separated by '.', '_', '__' \
         or '-', in segments separated by '/', at most 255 bytes"
    )]
    Repository,
    /// Not a tag.
    #[error(
        "a tag starts with a letter, digit or '_' and has at most 128 letters, digits, '_', '.' \
         or '-'"
    )]
    Tag,
    /// It has a colon, so it should be a digest, and is not.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
}

impl Repository {
    /// The name with its slashes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name has only one segment, as Docker Hub's official images have.
    pub fn is_single_segment(&self) -> bool {
        !self.0.contains('/')
    }

    /// The same repository below `parent`.
    pub fn within(&self, parent: &str) -> Result<Self, ParseNameError> {
        format!("{parent}/{self}").parse()
    }
}

impl FromStr for Repository {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() <= 255 && text.split('/').all(is_segment) {
            return Ok(Self(text.into()));
        }
        Err(ParseNameError::Repository)
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_segment(segment: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = segment.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    bytes.split(|byte| alphanumeric(*byte)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
    })
}

impl Tag {
    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid = (1..=128).contains(&text.len())
            && word(text.as_bytes()[0])
            && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-');
        valid.then(|| Self(text.into())).ok_or(ParseNameError::Tag)
    }
}

impl FromStr for Reference {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(':') {
            return Ok(Self::Digest(text.parse()?));
        }
        text.parse().map(Self::Tag)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn repository_names_follow_the_grammar() {
        for text in ["a", "library/nginx", "a.b/c_d/e__f/g-h/i---j", "0/manifests/blobs/tags"] {
            assert!(text.parse::<Repository>().is_ok(), "{text}");
        }
        let long = "a".repeat(256);
        for text in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", ".", "..",
            "a/../b", "a b", "a:b", "a%2fb", "a\\b", "a\0", "ä", "_catalog", &long,
        ] {
            assert_eq!(text.parse::<Repository>(), Err(ParseNameError::Repository), "{text:?}");
        }
    }

    #[test]
    fn tags_follow_the_grammar() {
        let long = "a".repeat(128);
        for text in ["latest", "1.27-alpine", "_x", "V1", &long] {
            assert!(text.parse::<Tag>().is_ok(), "{text}");
        }
        let too_long = "a".repeat(129);
        for text in ["", ".x", "-x", "a/b", "a:b", "a b", "ä", "..", &too_long] {
            assert_eq!(text.parse::<Tag>(), Err(ParseNameError::Tag), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn t09_no_repository_or_tag_can_leave_its_folder(text in "[a-z0-9._/\\-]{0,40}") {
            if let Ok(repository) = text.parse::<Repository>() {
                for segment in repository.as_str().split('/') {
                    prop_assert!(!segment.is_empty() && !segment.starts_with(['.', '_']));
                }
            }
            if let Ok(tag) = text.parse::<Tag>() {
                prop_assert!(!tag.as_str().contains('/') && !tag.as_str().starts_with('.'));
            }
        }
    }
}

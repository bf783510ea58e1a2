//! Patterns for repositories and tags.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// A list of globs in which `*` stays within a path segment and `**` crosses segments.
#[derive(Clone, Debug)]
pub struct Globs {
    patterns: Vec<String>,
    set: GlobSet,
}

/// A pattern that is not a glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a pattern: {reason}")]
pub struct GlobsError {
    pattern: String,
    reason: String,
}

impl Globs {
    /// Compiles the patterns.
    pub fn compile(patterns: Vec<String>) -> Result<Self, GlobsError> {
        let mut builder = GlobSetBuilder::new();
        for pattern in &patterns {
            let fail = |reason: String| GlobsError { pattern: pattern.clone(), reason };
            if pattern.is_empty() {
                return Err(fail("it is empty".to_owned()));
            }
            let glob = GlobBuilder::new(pattern)
                .literal_separator(true)
                .build()
                .map_err(|error| fail(error.kind().to_string()))?;
            builder.add(glob);
        }
        let set = builder.build().map_err(|error| GlobsError {
            pattern: error.glob().unwrap_or_default().to_owned(),
            reason: error.kind().to_string(),
        })?;
        Ok(Self { patterns, set })
    }

    /// Whether any pattern covers the whole of `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.set.is_match(name)
    }
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Globs::compile(vec![pattern.to_owned()]).unwrap().matches(name)
    }

    #[test]
    fn one_star_stays_in_its_segment_and_two_cross_segments() {
        assert!(matches("team/*", "team/app"));
        assert!(!matches("team/*", "team/app/web"));
        assert!(matches("team/**", "team/app/web"));
        assert!(matches("**", "a/b/c"));
        assert!(matches("**/nginx", "library/nginx"));
        assert!(!matches("team/*", "other/team/app"));
        assert!(matches("v*.*.*", "v1.2.3"));
        assert!(!matches("v*.*.*", "latest"));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let error = Globs::compile(vec!["ok".to_owned(), "a[".to_owned()]).unwrap_err();
        assert!(error.to_string().starts_with("\"a[\" is not a pattern"), "{error}");
        assert!(Globs::compile(vec![String::new()]).is_err());
    }
}

//! One base URL and whether it may be asked.

use reqwest::Url;

use super::breaker::Gate;

/// One base URL of an upstream.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) url: Url,
    pub(super) gate: Gate,
}

impl Endpoint {
    pub(super) fn new(url: Url) -> Self {
        Self { url, gate: Gate::new() }
    }

    /// Host and port, for error messages.
    pub(super) fn authority(&self) -> &str {
        self.url.authority()
    }
}

/// Indices of all endpoints, from `first` on and around.
pub(super) fn rotation(count: usize, first: usize) -> impl Iterator<Item = usize> + Clone {
    (0..count).map(move |offset| (first % count + offset) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_take_turns_from_any_first() {
        for (count, first, expected) in [
            (3, 0, vec![0, 1, 2]),
            (3, 2, vec![2, 0, 1]),
            (3, usize::MAX, vec![0, 1, 2]),
            (1, 7, vec![0]),
            (0, 1, vec![]),
        ] {
            assert_eq!(rotation(count, first).collect::<Vec<_>>(), expected, "{count} {first}");
        }
    }
}

//! Byte ranges (RFC 9110 section 14). No I/O.

/// A single range as a client writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `bytes=first-`
    From(u64),
    /// `bytes=first-last`
    Between(u64, u64),
    /// `bytes=-length`
    Last(u64),
}

/// A range of a blob whose length is known: `start <= end <= total`; `end` is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl RangeSpec {
    /// Reads a `Range` header. Anything but one well-formed byte range is `None`: the header is
    /// then ignored, as section 14.2 allows, and the whole is sent.
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, set) = header.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = set.trim().split_once('-')?;
        match (first, last) {
            ("", last) => Some(Self::Last(number(last)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    /// The bytes it stands for in `total` bytes, `None` if it cannot be satisfied.
    pub fn resolve(self, total: u64) -> Option<ByteRange> {
        let range = match self {
            Self::From(start) => ByteRange { start, end: total },
            Self::Between(start, last) => {
                ByteRange { start, end: total.min(last.saturating_add(1)) }
            }
            Self::Last(length) => ByteRange { start: total.saturating_sub(length), end: total },
        };
        (range.start < range.end).then_some(range)
    }

    /// The first byte, where it does not depend on the length.
    pub fn start(self) -> Option<u64> {
        match self {
            Self::From(start) | Self::Between(start, _) => Some(start),
            Self::Last(_) => None,
        }
    }
}

/// Digits only, and larger numbers than fit mean "beyond any blob".
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_range_is_read_and_everything_else_is_ignored() {
        let table = [
            ("bytes=0-", Some(RangeSpec::From(0))),
            ("bytes=5-9", Some(RangeSpec::Between(5, 9))),
            ("bytes=-7", Some(RangeSpec::Last(7))),
            ("Bytes= 5-9", Some(RangeSpec::Between(5, 9))),
            ("bytes=99999999999999999999-", Some(RangeSpec::From(u64::MAX))),
            ("bytes=9-5", None),
            ("bytes=0-1,4-5", None),
            ("bytes=", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("items=0-1", None),
            ("0-1", None),
            ("", None),
        ];
        for (header, expected) in table {
            assert_eq!(RangeSpec::parse(header), expected, "{header}");
        }
    }

    #[test]
    fn a_range_is_cut_to_the_content_or_cannot_be_satisfied() {
        let table = [
            (RangeSpec::From(0), 10, Some((0, 10))),
            (RangeSpec::From(9), 10, Some((9, 10))),
            (RangeSpec::From(10), 10, None),
            (RangeSpec::Between(2, 4), 10, Some((2, 5))),
            (RangeSpec::Between(2, u64::MAX), 10, Some((2, 10))),
            (RangeSpec::Last(3), 10, Some((7, 10))),
            (RangeSpec::Last(30), 10, Some((0, 10))),
            (RangeSpec::Last(0), 10, None),
            (RangeSpec::From(0), 0, None),
        ];
        for (spec, total, expected) in table {
            let expected = expected.map(|(start, end)| ByteRange { start, end });
            assert_eq!(spec.resolve(total), expected, "{spec:?} of {total}");
        }
    }

    proptest! {
        #[test]
        fn a_resolved_range_lies_within_the_content(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", total: u64) {
            if let Some(range) = RangeSpec::parse(&header).and_then(|spec| spec.resolve(total)) {
                prop_assert!(range.start < range.end && range.end <= total);
            }
        }
    }
}

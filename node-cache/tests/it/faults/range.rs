//! Upstreams and ranges.

use Step::{Ask, Check as Now, Heal};

use super::{
    case::{CASE, Case, MIDDLE, Step},
    check::Check,
    want::{LAYER, WHOLE, WHOLE_OR_503, WHOLE_OR_PREFIX, part},
};
use crate::faulty::{ALWAYS, Fault};

pub const CASES: &[Case] = &[
    Case {
        name: "a_range_of_an_unknown_blob_is_206",
        story: "Nobody has asked for the blob before.",
        steps: &[Ask(LAYER.range("bytes=1000000-1000999"), part(1_000_000, 1_000_999))],
        then: &[Check::BlobGets(1)],
        ..CASE
    },
    Case {
        name: "a_range_from_zero_of_an_unknown_blob_is_206",
        story: "What containerd asks first when it fetches in parallel.",
        steps: &[Ask(LAYER.range("bytes=0-"), part(0, 1_499_999))],
        then: &[Check::BlobGets(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "a_suffix_of_an_unknown_blob_is_206",
        story: "The last 500 bytes.",
        steps: &[Ask(LAYER.range("bytes=-500"), part(1_499_500, 1_499_999))],
        ..CASE
    },
    Case {
        name: "range_ignored_by_the_upstream_is_206_all_the_same",
        story: "The upstream answers 200: skip the bytes.",
        arrange: |g| g.blob(Fault::RangeIgnored, ALWAYS),
        steps: &[Ask(LAYER.range("bytes=1000000-1000999"), part(1_000_000, 1_000_999))],
        ..CASE
    },
    Case {
        name: "range_ignored_at_a_resume_is_skipped",
        story: "FIN in the middle, and the resume starts from the beginning again.",
        arrange: |g| {
            g.blob(Fault::FinAt(MIDDLE), 1);
            g.blob(Fault::RangeIgnored, ALWAYS);
        },
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(2), Check::Stored],
        ..CASE
    },
    Case {
        name: "f09_a_resume_from_zero_is_not_spliced",
        story: "206, but from the first byte: its bytes must not be taken for later ones.",
        arrange: |g| {
            g.blob(Fault::FinAt(MIDDLE), 1);
            g.blob(Fault::RangeFromZero, ALWAYS);
        },
        steps: &[Ask(LAYER, WHOLE_OR_PREFIX), Heal, Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        quarantined: (0, 1),
        ..CASE
    },
    Case {
        name: "f09_a_resume_of_another_total_is_not_spliced",
        story: "206 with a total that is not the blob's: another object.",
        arrange: |g| {
            g.blob(Fault::FinAt(MIDDLE), 1);
            g.blob(Fault::RangeOfAnother, ALWAYS);
        },
        steps: &[Ask(LAYER, WHOLE_OR_PREFIX), Heal, Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        quarantined: (0, 1),
        ..CASE
    },
    Case {
        name: "f09_a_resume_that_is_coded_is_not_spliced",
        story: "206 with Content-Encoding.",
        arrange: |g| {
            g.blob(Fault::FinAt(MIDDLE), 1);
            g.blob(Fault::RangeCoded, ALWAYS);
        },
        steps: &[Ask(LAYER, WHOLE_OR_PREFIX), Heal, Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        quarantined: (0, 1),
        ..CASE
    },
    Case {
        name: "206_unasked_is_no_reason_to_fail_for_ever",
        story: "206 for everything without a Range.",
        arrange: |g| g.blob(Fault::PartialUnasked, 1),
        steps: &[Ask(LAYER, WHOLE_OR_503), Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        ..CASE
    },
    Case {
        name: "a_stored_blob_is_cut_without_the_upstream",
        story: "Ranges of what is there.",
        steps: &[
            Ask(LAYER, WHOLE),
            Now(Check::Stored),
            Ask(LAYER.range("bytes=0-0"), part(0, 0)),
            Ask(LAYER.range("bytes=1499999-"), part(1_499_999, 1_499_999)),
            Ask(LAYER.range("bytes=5-9999999"), part(5, 1_499_999)),
        ],
        then: &[Check::BlobGets(1)],
        ..CASE
    },
];

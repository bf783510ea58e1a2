//! Upstreams that say nothing, or too little.

use std::time::Duration;

use Step::{Ask, Check as Now, Crowd, Heal};

use super::{
    case::{CASE, Case, MIDDLE, Step},
    check::Check,
    want::{BY_TAG, LAYER, PREFIX_OR_503, UNAVAILABLE, WHOLE, prefix},
};
use crate::faulty::{ALWAYS, Fault, On};

const SECOND: Duration = Duration::from_secs(1);

pub const CASES: &[Case] = &[
    Case {
        name: "f08_no_headers_is_503_within_ten_seconds",
        story: "The upstream accepts and never answers.",
        arrange: |g| g.always(On::Any, Fault::HangBeforeHeaders),
        steps: &[Ask(LAYER, UNAVAILABLE.within(11))],
        then: &[Check::NotStored, Check::NotLinked],
        ..CASE
    },
    Case {
        name: "f08_no_headers_for_a_tag_is_503_within_ten_seconds",
        story: "The same for a tag that nobody has asked for before.",
        arrange: |g| g.always(On::Any, Fault::HangBeforeHeaders),
        steps: &[Crowd(4, BY_TAG, UNAVAILABLE.within(11))],
        ..CASE
    },
    Case {
        name: "f08_the_next_endpoint_answers_for_a_silent_one",
        story: "The first endpoint never answers; the second does, within the same 10 s.",
        upstream: |g, upstream| upstream.endpoint(&g.second.url()),
        arrange: |g| g.always(On::Any, Fault::HangBeforeHeaders),
        steps: &[Ask(LAYER, WHOLE.first_byte(11))],
        then: &[Check::SecondGets(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "f08_a_short_first_byte_timeout_is_kept",
        story: "timeouts.firstByte: 1s.",
        upstream: |_, upstream| upstream.set("timeouts", serde_json::json!({"firstByte": "1s"})),
        arrange: |g| g.always(On::Any, Fault::HangBeforeHeaders),
        steps: &[Ask(LAYER, UNAVAILABLE.within(4))],
        ..CASE
    },
    Case {
        name: "f08_a_stall_once_is_spliced",
        story: "Silence in the middle once: another request takes over before 10 s are over.",
        arrange: |g| g.blob(Fault::HangAt(MIDDLE), 1),
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(2), Check::Resumed("bytes=700000-"), Check::Stored],
        ..CASE
    },
    Case {
        name: "f08_a_stall_at_one_endpoint_is_spliced_from_the_next",
        story: "The first endpoint always stalls in the middle.",
        upstream: |g, upstream| upstream.endpoint(&g.second.url()),
        arrange: |g| g.blob(Fault::HangAt(MIDDLE), ALWAYS),
        steps: &[Ask(LAYER, WHOLE.within(25))],
        then: &[Check::SecondRange("bytes=700000-"), Check::Stored],
        ..CASE
    },
    Case {
        name: "f08_headers_without_a_single_byte_are_503",
        story: "A 200 with no byte to follow would cost containerd one of its four answers.",
        arrange: |g| g.blob(Fault::HangAt(0), ALWAYS),
        steps: &[Ask(LAYER, UNAVAILABLE.within(11)), Heal, Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        ..CASE
    },
    Case {
        name: "f08_a_stall_for_ever_ends_with_fin",
        story: "Silence in the middle always: FIN within 10 s, then 503 for what we do not hold.",
        arrange: |g| g.blob(Fault::HangAt(MIDDLE), ALWAYS),
        steps: &[
            Ask(LAYER, prefix(MIDDLE)),
            Ask(LAYER.range("bytes=700000-"), UNAVAILABLE.within(2)),
            Now(Check::NotStored),
        ],
        ..CASE
    },
    Case {
        name: "f08_a_stall_for_ever_ends_with_fin_for_every_client",
        story: "The same for 8 clients: no body of any of them is silent for more than 10 s.",
        arrange: |g| g.blob(Fault::HangAt(MIDDLE), ALWAYS),
        steps: &[Crowd(8, LAYER, prefix(MIDDLE)), Heal, Ask(LAYER, WHOLE)],
        then: &[Check::Resumed("bytes=700000-"), Check::Stored],
        ..CASE
    },
    Case {
        name: "f08_a_small_blob_that_drips_is_streamed_after_five_seconds",
        story: "12 bytes, one a second: headers within 10 s, whole in the end.",
        size: 12,
        arrange: |g| {
            g.blob(Fault::Drip { from: 0, step: 1, every: SECOND }, ALWAYS);
        },
        steps: &[Ask(LAYER, WHOLE.first_byte(9).within(20))],
        then: &[Check::BlobGets(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "f08_a_large_blob_that_ends_in_a_drip_is_served",
        story: "The last 12 bytes come one a second: slow is not stalled.",
        arrange: |g| {
            g.blob(Fault::Drip { from: 1_499_988, step: 1, every: SECOND }, ALWAYS);
        },
        steps: &[Ask(LAYER, WHOLE.first_byte(3).within(25))],
        then: &[Check::BlobGets(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "f08_a_slow_blob_streams_while_it_comes",
        story: "1.5 MB in 3 s: the first byte does not wait for the last.",
        arrange: |g| {
            let every = Duration::from_millis(30);
            g.blob(Fault::Drip { from: 0, step: 15_000, every }, ALWAYS);
        },
        steps: &[Ask(LAYER, WHOLE.first_byte(2))],
        then: &[Check::BlobGets(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "f08_manifest_bytes_that_stall_end_within_ten_seconds",
        story: "Headers come, the manifest does not.",
        arrange: |g| g.always(On::Manifests, Fault::HangAt(10)),
        steps: &[Ask(BY_TAG, PREFIX_OR_503)],
        ..CASE
    },
];

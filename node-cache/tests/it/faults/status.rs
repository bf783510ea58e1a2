//! Upstreams that answer with something else than 200.

use Step::{Ask, Check as Now, Crowd, Heal, Pause, Start, Stop};

use super::{
    case::{CASE, Case, REPOSITORY, Step},
    check::Check,
    want::{
        BY_TAG, DENIED, LAYER, MANIFEST, NO_SUCH_BLOB, NO_SUCH_TAG, NOTHING, OTHER_HOST, REFUSED,
        UNAVAILABLE, UNKNOWN, WHOLE, WHOLE_OR_503,
    },
};
use crate::faulty::{Fault, On};

pub const CASES: &[Case] = &[
    Case {
        name: "f10_429_is_503_and_not_repeated",
        story: "Too many requests: never passed on, Retry-After neither, and the breaker is open.",
        arrange: |g| g.always(On::Any, Fault::TooMany { retry_after: 30 }),
        steps: &[Ask(LAYER, UNAVAILABLE.within(3)), Crowd(8, LAYER, UNAVAILABLE.within(3))],
        then: &[Check::RequestsAtMost(1), Check::NotStored],
        ..CASE
    },
    Case {
        name: "f10_429_at_one_endpoint_is_answered_by_the_next",
        story: "The second endpoint has quota left.",
        upstream: |g, upstream| upstream.endpoint(&g.second.url()),
        arrange: |g| g.always(On::Any, Fault::TooMany { retry_after: 30 }),
        steps: &[Ask(LAYER, WHOLE), Ask(BY_TAG, WHOLE)],
        then: &[Check::RequestsAtMost(1), Check::SecondGets(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "f10_429_on_a_tag_is_503",
        story: "The same for a tag without a stale answer.",
        arrange: |g| g.always(On::Tags, Fault::TooMany { retry_after: 1 }),
        steps: &[Ask(BY_TAG, UNAVAILABLE.within(3)), Ask(BY_TAG.head(), UNAVAILABLE.within(3))],
        ..CASE
    },
    Case {
        name: "f10_408_is_503",
        story: "The other status that containerd hammers on.",
        arrange: |g| g.always(On::Any, Fault::Status(408)),
        steps: &[Ask(LAYER, UNAVAILABLE.within(5))],
        ..CASE
    },
    Case {
        name: "f10_500_is_503",
        story: "An internal error of the upstream.",
        arrange: |g| g.always(On::Any, Fault::Status(500)),
        steps: &[Ask(LAYER, UNAVAILABLE.within(5)), Ask(MANIFEST, UNAVAILABLE.within(5))],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "f10_502_at_one_endpoint_is_answered_by_the_next",
        story: "Failover within the request.",
        upstream: |g, upstream| upstream.endpoint(&g.second.url()),
        arrange: |g| g.always(On::Any, Fault::Status(502)),
        steps: &[Ask(LAYER, WHOLE), Ask(BY_TAG, WHOLE), Ask(MANIFEST, WHOLE)],
        then: &[Check::SecondGets(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "f10_one_500_does_not_last",
        story: "A single error: at worst one 503, and the next client is served.",
        arrange: |g| g.blob(Fault::Status(500), 1),
        steps: &[Ask(LAYER, WHOLE_OR_503), Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(2), Check::Stored],
        ..CASE
    },
    Case {
        name: "f10_two_503_open_the_breaker_for_five_seconds",
        story: "After two the answer is 503 at once and nothing is asked; 5 s later one probe.",
        arrange: |g| g.always(On::Any, Fault::Status(503)),
        steps: &[
            Ask(LAYER, UNAVAILABLE),
            Ask(LAYER, UNAVAILABLE),
            Now(Check::RequestsAtMost(2)),
            Crowd(8, LAYER, UNAVAILABLE.within(2)),
            Now(Check::RequestsAtMost(2)),
            Heal,
            Pause(6),
            Ask(LAYER, WHOLE),
        ],
        then: &[Check::RequestsAtMost(3), Check::Stored],
        ..CASE
    },
    Case {
        name: "f10_an_upstream_that_flaps_is_used_again",
        story: "500, 502, 503, 504 and then good: the breaker closes by itself.",
        arrange: |g| {
            g.origin.inject(REPOSITORY, On::Any, Fault::Flap(&[500, 502, 503, 504]), 0);
        },
        steps: &[
            Ask(LAYER, WHOLE_OR_503),
            Ask(LAYER, WHOLE_OR_503),
            Ask(LAYER, WHOLE_OR_503),
            Pause(6),
            Ask(LAYER, WHOLE_OR_503),
            Pause(11),
            Ask(LAYER, WHOLE),
        ],
        then: &[Check::RequestsAtMost(6), Check::Stored],
        ..CASE
    },
    Case {
        name: "f07_a_closed_port_is_503_at_once",
        story: "Nobody listens; when somebody does again, the cache finds out by itself.",
        steps: &[
            Stop,
            Ask(LAYER, UNAVAILABLE.within(3)),
            Ask(BY_TAG, UNAVAILABLE.within(3)),
            Start,
            Pause(6),
            Ask(LAYER, WHOLE),
        ],
        then: &[Check::BlobGets(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "f07_a_stored_blob_needs_no_upstream",
        story: "Fetched once, then the port is closed.",
        steps: &[
            Ask(LAYER, WHOLE),
            Now(Check::Stored),
            Now(Check::Linked),
            Stop,
            Ask(LAYER, WHOLE),
        ],
        then: &[Check::BlobGets(1)],
        ..CASE
    },
    Case {
        name: "f07_a_closed_port_at_one_endpoint_is_answered_by_the_next",
        story: "Failover costs no time to speak of.",
        upstream: |g, upstream| upstream.endpoint(&g.second.url()),
        steps: &[Stop, Ask(LAYER, WHOLE.within(3))],
        then: &[Check::SecondGets(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "404_is_404_and_only_then",
        story: "What the upstream does not have.",
        steps: &[
            Ask(NO_SUCH_BLOB, UNKNOWN),
            Ask(NO_SUCH_TAG, UNKNOWN),
            Ask(NO_SUCH_BLOB.head(), UNKNOWN),
            Ask(LAYER, WHOLE),
        ],
        then: &[Check::Stored],
        ..CASE
    },
    Case {
        name: "410_is_404",
        story: "Gone for good is not there either.",
        arrange: |g| g.always(On::Any, Fault::Status(410)),
        steps: &[Ask(LAYER, UNKNOWN), Ask(MANIFEST, UNKNOWN)],
        then: &[Check::NotStored, Check::NotLinked],
        ..CASE
    },
    Case {
        name: "403_is_403_with_words_of_our_own",
        story: "The upstream forbids it.",
        arrange: |g| g.always(On::Any, Fault::Status(403)),
        steps: &[Ask(LAYER, DENIED), Ask(BY_TAG, DENIED), Ask(BY_TAG.head(), DENIED)],
        then: &[Check::NotStored, Check::NotLinked],
        ..CASE
    },
    Case {
        name: "401_without_a_challenge_is_403",
        story: "Not even a way to ask for more: never a 401.",
        arrange: |g| g.always(On::Any, Fault::Status(401)),
        steps: &[Ask(LAYER, REFUSED), Ask(BY_TAG.head(), REFUSED)],
        then: &[Check::NotStored, Check::RequestsAtMost(4)],
        ..CASE
    },
    Case {
        name: "451_is_not_a_success",
        story: "A status that nobody expects.",
        arrange: |g| g.always(On::Any, Fault::Status(451)),
        steps: &[Ask(LAYER, REFUSED)],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "204_and_304_are_no_content",
        story: "Success without the content: what a client would take for the blob.",
        arrange: |g| {
            g.blob(Fault::Status(204), 1);
            g.origin.inject(REPOSITORY, On::Manifests, Fault::Status(304), 2);
        },
        steps: &[Ask(LAYER, WHOLE_OR_503), Ask(BY_TAG, WHOLE_OR_503)],
        ..CASE
    },
    Case {
        name: "head_405_of_a_tag_is_asked_with_get",
        story: "A registry that does not know HEAD.",
        arrange: |g| g.always(On::Heads, Fault::Status(405)),
        steps: &[Ask(BY_TAG.head(), NOTHING), Ask(BY_TAG, WHOLE)],
        ..CASE
    },
    Case {
        name: "head_403_of_a_tag_is_403",
        story: "A registry that forbids HEAD: containerd asks it itself.",
        arrange: |g| g.always(On::Heads, Fault::Status(403)),
        steps: &[Ask(BY_TAG.head(), DENIED)],
        ..CASE
    },
    Case {
        name: "head_of_an_unknown_blob_costs_a_head",
        story: "HEAD fetches nothing.",
        steps: &[Ask(LAYER.head(), NOTHING)],
        then: &[Check::BlobHeads(1), Check::BlobGets(0), Check::NotStored],
        ..CASE
    },
    Case {
        name: "head_405_of_a_blob_is_answered",
        story: "HEAD is refused, so a GET must tell.",
        arrange: |g| g.always(On::Heads, Fault::Status(405)),
        steps: &[Ask(LAYER.head(), NOTHING)],
        ..CASE
    },
    Case {
        name: "t01_an_unknown_ns_is_404_and_never_dialled",
        story: "ns names a listener that is not configured.",
        steps: &[Ask(OTHER_HOST, UNKNOWN), Ask(OTHER_HOST.head(), UNKNOWN)],
        then: &[Check::SinkUntouched, Check::Untouched],
        ..CASE
    },
];

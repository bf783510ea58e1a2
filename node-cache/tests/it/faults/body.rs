//! Bodies that break off, lie about their length, or are wrong.

use Step::{Ask, Check as Now, Crowd, Heal, Pause};

use super::{
    case::{CASE, Case, LARGE, MIDDLE, SMALL, Step},
    check::Check,
    want::{
        ALL_BUT_LAST, LAYER, SHORT, UNAVAILABLE, UNSIZED, WHOLE, WHOLE_OR_503, WHOLE_OR_PREFIX,
        prefix,
    },
};
use crate::faulty::{ALWAYS, Fault, On};

pub const CASES: &[Case] = &[
    Case {
        name: "a_good_blob_is_fetched_once_and_stored",
        story: "Nothing is wrong; the second client costs the upstream nothing.",
        steps: &[Ask(LAYER, WHOLE), Now(Check::Stored), Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(1), Check::BlobHeads(0), Check::Stored, Check::Linked],
        ..CASE
    },
    Case {
        name: "f25_many_clients_share_one_fetch",
        story: "32 clients at once ask for one blob that comes slowly; one GET goes out.",
        arrange: |g| {
            let every = std::time::Duration::from_millis(20);
            g.blob(Fault::Drip { from: 0, step: 32 << 10, every }, ALWAYS);
        },
        steps: &[Crowd(32, LAYER, WHOLE.first_byte(3))],
        then: &[Check::BlobGets(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "f09_fin_once_is_spliced",
        story: "The upstream closes in the middle once; the client notices nothing.",
        arrange: |g| g.blob(Fault::FinAt(MIDDLE), 1),
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(2), Check::Resumed("bytes=700000-"), Check::Stored, Check::Linked],
        ..CASE
    },
    Case {
        name: "f09_fin_once_is_spliced_for_every_client",
        story: "The same with 8 clients: none of them notices.",
        arrange: |g| g.blob(Fault::FinAt(MIDDLE), 1),
        steps: &[Crowd(8, LAYER, WHOLE)],
        then: &[Check::BlobGets(2), Check::Resumed("bytes=700000-"), Check::Stored],
        ..CASE
    },
    Case {
        name: "f09_rst_once_is_spliced",
        story: "The upstream resets in the middle once; the client notices nothing.",
        arrange: |g| g.blob(Fault::RstAt(MIDDLE), 1),
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(2), Check::ResumedBefore(MIDDLE), Check::Stored],
        ..CASE
    },
    Case {
        name: "f09_fin_before_the_first_byte_is_retried",
        story: "Headers come, no byte, FIN, once.",
        arrange: |g| g.blob(Fault::FinAt(0), 1),
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(2), Check::AskedWhole, Check::Stored],
        ..CASE
    },
    Case {
        name: "f09_fin_before_the_last_byte_is_spliced",
        story: "Only the last byte is missing.",
        arrange: |g| g.blob(Fault::FinAt(LARGE - 1), 1),
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(2), Check::Resumed("bytes=1499999-"), Check::Stored],
        ..CASE
    },
    Case {
        name: "f09_fin_once_in_a_small_blob_is_spliced",
        story: "A small blob breaks off before anything was sent to the client.",
        size: SMALL,
        arrange: |g| g.blob(Fault::FinAt(10_000), 1),
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(2), Check::Stored],
        ..CASE
    },
    Case {
        name: "f09_fin_always_ends_with_fin",
        story: "Nobody ever gets past the middle: good bytes, then FIN; afterwards it resumes.",
        arrange: |g| g.blob(Fault::FinAt(MIDDLE), ALWAYS),
        steps: &[Ask(LAYER, prefix(MIDDLE)), Now(Check::NotStored), Heal, Ask(LAYER, WHOLE)],
        then: &[Check::Resumed("bytes=700000-"), Check::Stored],
        ..CASE
    },
    Case {
        name: "f09_fin_at_one_endpoint_is_spliced_from_the_next",
        story: "The first endpoint never gets past the middle, the second is well.",
        upstream: |g, upstream| upstream.endpoint(&g.second.url()),
        arrange: |g| g.blob(Fault::FinAt(MIDDLE), ALWAYS),
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::SecondRange("bytes=700000-"), Check::Stored],
        ..CASE
    },
    Case {
        name: "t05_wrong_bytes_in_a_large_blob_end_with_fin",
        story: "All but the last byte, FIN, nothing stored; the hasty retry is sent on to the \
                upstream (503), the next whole one gets good bytes.",
        arrange: |g| g.blob(Fault::FlipAt(MIDDLE), ALWAYS),
        steps: &[
            Ask(LAYER, ALL_BUT_LAST),
            Ask(LAYER.range("bytes=1499999-"), UNAVAILABLE),
            Now(Check::NotStored),
            Heal,
            Ask(LAYER, WHOLE),
        ],
        then: &[Check::BlobGets(2), Check::Stored],
        quarantined: (1, 1),
        ..CASE
    },
    Case {
        name: "t05_a_wrong_last_byte_never_arrives",
        story: "Only the last byte is wrong: it is the one that is held back.",
        arrange: |g| g.blob(Fault::FlipAt(LARGE - 1), 1),
        steps: &[Ask(LAYER, ALL_BUT_LAST), Now(Check::NotStored), Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(2), Check::Stored],
        quarantined: (1, 1),
        ..CASE
    },
    Case {
        name: "t05_wrong_bytes_never_reach_any_of_many_clients",
        story: "8 clients at once, one wrong byte: 8 times all but the last byte.",
        arrange: |g| g.blob(Fault::FlipAt(MIDDLE), 1),
        steps: &[Crowd(8, LAYER, WHOLE_OR_CUT), Heal, Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        quarantined: (1, 1),
        ..CASE
    },
    Case {
        name: "t05_wrong_bytes_in_a_small_blob_are_never_sent",
        story: "Small objects are verified before their first byte: an error, not a byte.",
        size: SMALL,
        arrange: |g| g.blob(Fault::FlipAt(1), ALWAYS),
        steps: &[Ask(LAYER, UNAVAILABLE), Now(Check::NotStored), Heal, Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        quarantined: (1, 3),
        ..CASE
    },
    Case {
        name: "t05_a_mismatch_after_a_splice_is_refetched_whole",
        story: "FIN, then a wrong byte in the resumed part; the third fetch is whole and good.",
        arrange: |g| {
            g.blob(Fault::FinAt(MIDDLE), 1);
            g.blob(Fault::FlipAt(MIDDLE + 1), 2);
        },
        steps: &[Ask(LAYER, SHORT), Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(3), Check::AskedWhole, Check::Stored],
        quarantined: (1, 1),
        ..CASE
    },
    Case {
        name: "t05_an_empty_body_for_a_digest_is_refused",
        story: "200 with no bytes for a blob that has some.",
        size: SMALL,
        arrange: |g| g.blob(Fault::Cut(SMALL), ALWAYS),
        steps: &[Ask(LAYER, UNAVAILABLE), Now(Check::NotStored), Heal, Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        quarantined: (0, 3),
        ..CASE
    },
    Case {
        name: "f09_a_consistently_short_body_ends_with_fin",
        story: "Length and body agree on 1000 bytes less: the digest does not.",
        arrange: |g| g.blob(Fault::Cut(1000), 1),
        steps: &[Ask(LAYER, SHORT), Now(Check::NotStored), Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        quarantined: (1, 1),
        ..CASE
    },
    Case {
        name: "f09_a_length_that_promises_too_much_ends_with_fin",
        story: "1000 bytes more are announced than exist.",
        arrange: |g| g.blob(Fault::Promise(1000), ALWAYS),
        steps: &[Ask(LAYER, SHORT), Heal, Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        quarantined: (0, 1),
        ..CASE
    },
    Case {
        name: "f09_bytes_after_the_end_are_ignored",
        story: "1000 bytes follow after the announced ones.",
        arrange: |g| g.blob(Fault::Trailing(1000), ALWAYS),
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "f09_no_length_and_complete_is_served",
        story: "Neither length nor chunks; the end of the connection is the end.",
        arrange: |g| g.blob(Fault::NoLength, ALWAYS),
        steps: &[Ask(LAYER, UNSIZED), Now(Check::Stored), Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(1)],
        ..CASE
    },
    Case {
        name: "f09_no_length_and_cut_is_not_complete",
        story: "Cut short without a length, an orderly end for whoever does not hash.",
        arrange: |g| {
            g.blob(Fault::NoLength, 1);
            g.blob(Fault::FinAt(MIDDLE), 1);
        },
        steps: &[Ask(LAYER, WHOLE_OR_PREFIX), Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        quarantined: (0, 1),
        ..CASE
    },
    Case {
        name: "f09_chunks_and_complete_are_served",
        story: "Chunked, as some registries send.",
        arrange: |g| g.blob(Fault::Chunked, ALWAYS),
        steps: &[Ask(LAYER, UNSIZED), Now(Check::Stored), Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(1)],
        ..CASE
    },
    Case {
        name: "f09_chunks_that_break_off_are_not_complete",
        story: "Chunked, and no last chunk, once.",
        arrange: |g| {
            g.blob(Fault::Chunked, 1);
            g.blob(Fault::FinAt(MIDDLE), 1);
        },
        steps: &[Ask(LAYER, WHOLE_OR_PREFIX), Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        ..CASE
    },
    Case {
        name: "t07_a_coded_body_is_refused",
        story: "Content-Encoding: gzip, whatever was asked: not the blob's bytes.",
        arrange: |g| g.always(On::Any, Fault::Header("Content-Encoding", Some("gzip"))),
        steps: &[Ask(LAYER, UNAVAILABLE), Heal, Pause(6), Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        ..CASE
    },
    Case {
        name: "t05_a_login_page_instead_of_a_blob_is_refused",
        story: "200 text/html, as captive portals and expired sessions answer.",
        size: SMALL,
        arrange: |g| g.blob(LOGIN_PAGE, ALWAYS),
        steps: &[Ask(LAYER, UNAVAILABLE), Now(Check::NotStored), Heal, Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        quarantined: (0, 3),
        ..CASE
    },
    Case {
        name: "t05_a_wrong_digest_header_is_not_passed_on",
        story: "The bytes are right, the header names another digest.",
        arrange: |g| {
            g.always(On::Blobs, Fault::Header("Docker-Content-Digest", Some(WRONG)));
        },
        steps: &[Ask(LAYER, WHOLE_OR_503)],
        then: &[Check::BlobGetsWithin(1, 3)],
        ..CASE
    },
];

/// Clients that come late meet the retry, and it is good.
const WHOLE_OR_CUT: super::want::Want = super::want::WHOLE_OR_ALL_BUT_LAST;

pub const LOGIN_PAGE: Fault =
    Fault::Content("text/html", bytes::Bytes::from_static(b"<html>please log in</html>"));

pub const WRONG: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000ff";

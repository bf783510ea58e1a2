//! Upstreams whose manifests are not what they say.

use Step::{Ask, Check as Now, Heal};
use bytes::Bytes;

use super::{
    body::{LOGIN_PAGE, WRONG},
    case::{CASE, Case, Ground, Step},
    check::Check,
    want::{BY_TAG, LAYER, MANIFEST, NOTHING, NOTHING_OR_503, UNAVAILABLE, WHOLE, WHOLE_OR_503},
};
use crate::faulty::{Fault, OCI_INDEX, OCI_MANIFEST, On};

pub const CASES: &[Case] = &[
    Case {
        name: "a_good_manifest_is_fetched_once_and_stored",
        story: "By tag, by digest, with GET and HEAD.",
        steps: &[
            Ask(BY_TAG.head(), NOTHING),
            Ask(BY_TAG, WHOLE),
            Ask(MANIFEST, WHOLE),
            Now(Check::ManifestStored),
            Ask(MANIFEST.head(), NOTHING),
            Ask(MANIFEST, WHOLE),
            Ask(BY_TAG, WHOLE),
        ],
        // The index and the manifest.
        then: &[Check::ManifestGets(2)],
        ..CASE
    },
    Case {
        name: "no_content_type_is_read_from_the_manifest",
        story: "A missing Content-Type would fail the pull in containerd.",
        arrange: |g| g.always(On::Manifests, Fault::Header("Content-Type", None)),
        steps: &[Ask(BY_TAG, WHOLE), Ask(BY_TAG.head(), NOTHING), Ask(MANIFEST, WHOLE)],
        then: &[Check::ManifestStored],
        ..CASE
    },
    Case {
        name: "a_plain_text_content_type_is_read_from_the_manifest",
        story: "text/plain would be taken for schema 1.",
        arrange: |g| {
            g.always(On::Manifests, Fault::Header("Content-Type", Some("text/plain")));
        },
        steps: &[Ask(BY_TAG, WHOLE), Ask(BY_TAG.head(), NOTHING)],
        ..CASE
    },
    Case {
        name: "a_charset_in_the_content_type_is_left_out",
        story: "Some registries add parameters.",
        arrange: |g| {
            let odd = "application/vnd.oci.image.index.v1+json; charset=utf-8";
            g.always(On::Tags, Fault::Header("Content-Type", Some(odd)));
        },
        steps: &[Ask(BY_TAG, WHOLE), Ask(BY_TAG.head(), NOTHING)],
        ..CASE
    },
    Case {
        name: "no_digest_header_is_computed",
        story: "A registry that does not say what the tag points at.",
        arrange: |g| g.always(On::Manifests, Fault::Header("Docker-Content-Digest", None)),
        steps: &[Ask(BY_TAG, WHOLE), Ask(BY_TAG.head(), NOTHING), Ask(MANIFEST, WHOLE)],
        then: &[Check::ManifestStored],
        ..CASE
    },
    Case {
        name: "t05_a_malformed_digest_header_is_not_passed_on",
        story: "containerd would fail the pull and try no other host.",
        arrange: |g| {
            g.always(On::Manifests, Fault::Header("Docker-Content-Digest", Some("sha256:zz")));
        },
        steps: &[
            Ask(BY_TAG, WHOLE_OR_503),
            Ask(BY_TAG.head(), NOTHING_OR_503),
            Ask(MANIFEST, WHOLE_OR_503),
        ],
        ..CASE
    },
    Case {
        name: "t05_a_wrong_digest_header_of_a_tag_is_not_believed",
        story: "The header names another digest than that of the bytes.",
        arrange: |g| {
            g.always(On::Tags, Fault::Header("Docker-Content-Digest", Some(WRONG)));
        },
        steps: &[Ask(BY_TAG, WHOLE_OR_503)],
        ..CASE
    },
    Case {
        name: "t05_a_wrong_manifest_for_a_digest_is_never_sent",
        story: "One bit is wrong: an error before the first byte, and good bytes the next time.",
        arrange: |g| g.always(On::Manifests, Fault::FlipAt(20)),
        steps: &[
            Ask(MANIFEST, UNAVAILABLE),
            Now(Check::ManifestNotStored),
            Heal,
            Ask(MANIFEST, WHOLE),
        ],
        then: &[Check::ManifestStored],
        quarantined: (0, 3),
        ..CASE
    },
    Case {
        name: "f09_a_manifest_that_breaks_off_once_is_fetched_again",
        story: "FIN inside the manifest.",
        arrange: |g| {
            g.origin.inject("team/app", On::Manifests, Fault::FinAt(20), 2);
        },
        steps: &[Ask(MANIFEST, WHOLE_OR_503), Heal, Ask(MANIFEST, WHOLE)],
        then: &[Check::ManifestStored],
        ..CASE
    },
    Case {
        name: "t13_a_manifest_of_five_mebibytes_is_refused",
        story: "More than containerd itself would take.",
        arrange: |g| {
            let padding = "x".repeat(5 << 20);
            replace(
                g,
                format!("{{\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[],\"x\":\"{padding}\"}}"),
            );
        },
        steps: &[Ask(BY_TAG, UNAVAILABLE), Ask(MANIFEST, UNAVAILABLE), Ask(LAYER, WHOLE)],
        then: &[Check::ManifestNotStored],
        quarantined: (0, 2),
        ..CASE
    },
    Case {
        name: "t13_a_manifest_without_end_is_given_up",
        story: "White space for ever; the cache stops reading after a few MiB.",
        arrange: |g| g.always(On::Manifests, Fault::Endless),
        steps: &[
            Ask(BY_TAG, UNAVAILABLE.within(11)),
            Ask(MANIFEST, UNAVAILABLE.within(11)),
            Ask(LAYER, WHOLE),
        ],
        then: &[Check::ManifestNotStored, Check::SentAtMost(64 << 20)],
        quarantined: (0, 2),
        ..CASE
    },
    Case {
        name: "schema_1_is_refused",
        story: "Its digest does not cover its bytes.",
        arrange: |g| replace(g, "{\"schemaVersion\":1,\"fsLayers\":[],\"history\":[]}"),
        steps: &[Ask(BY_TAG, UNAVAILABLE)],
        ..CASE
    },
    Case {
        name: "a_login_page_instead_of_a_manifest_is_refused",
        story: "200 text/html: no client may see it.",
        arrange: |g| g.always(On::Manifests, LOGIN_PAGE),
        steps: &[
            Ask(BY_TAG, UNAVAILABLE),
            Ask(BY_TAG.head(), UNAVAILABLE),
            Ask(MANIFEST, UNAVAILABLE),
        ],
        then: &[Check::ManifestNotStored],
        quarantined: (0, 3),
        ..CASE
    },
    Case {
        name: "t07_an_index_that_is_an_image_too_is_refused",
        story: "Two readers would see two images.",
        arrange: |g| {
            replace(g, "{\"schemaVersion\":2,\"manifests\":[],\"layers\":[],\"config\":{}}");
        },
        steps: &[Ask(BY_TAG, UNAVAILABLE)],
        ..CASE
    },
    Case {
        name: "t07_a_body_of_another_type_than_its_header_is_refused",
        story: "The header says manifest, the body says index.",
        arrange: |g| {
            let body = format!("{{\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[]}}");
            let body = Fault::Content(OCI_MANIFEST, Bytes::from(body));
            g.always(On::Manifests, body);
        },
        steps: &[Ask(BY_TAG, UNAVAILABLE)],
        ..CASE
    },
    Case {
        name: "a_manifest_in_chunks_is_served_with_its_length",
        story: "Without Content-Length on HEAD containerd asks once more.",
        arrange: |g| g.always(On::Manifests, Fault::Chunked),
        steps: &[Ask(BY_TAG.head(), NOTHING), Ask(BY_TAG, WHOLE), Ask(MANIFEST, WHOLE)],
        then: &[Check::ManifestStored],
        ..CASE
    },
];

/// Every manifest of the repository is this one instead.
fn replace(ground: &Ground, body: impl Into<Bytes>) {
    ground.always(On::Manifests, Fault::Content(OCI_INDEX, body.into()));
}

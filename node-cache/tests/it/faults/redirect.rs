//! Upstreams that send the cache somewhere else.

use Step::{Ask, Check as Now};
use serde_json::json;

use super::{
    case::{CASE, Case, MIDDLE, REPOSITORY, Step},
    check::Check,
    want::{BY_TAG, LAYER, REFUSED, WHOLE, WHOLE_OR_REFUSED},
};
use crate::faulty::{Door, Fault, On};

pub const CASES: &[Case] = &[
    Case {
        name: "a_redirect_to_a_cdn_is_followed",
        story: "307 to another port, with a signature in the query.",
        arrange: |g| {
            let to = format!("{}{{path}}?X-Amz-Signature=canary-signature", g.second.url());
            g.always(On::BlobGets, Fault::Redirect(to));
        },
        steps: &[Ask(LAYER, WHOLE), Now(Check::Stored), Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(1), Check::SecondGets(1), Check::NoCredentialsElsewhere],
        ..CASE
    },
    Case {
        name: "t03_no_credentials_cross_a_redirect",
        story: "The upstream needs Basic, the CDN must not see it.",
        upstream: |_, upstream| upstream.shared(&["**"]),
        arrange: |g| {
            g.origin.close_door(REPOSITORY, Door::Basic);
            g.always(On::BlobGets, Fault::Redirect(format!("{}{{path}}", g.second.url())));
        },
        steps: &[Ask(BY_TAG, WHOLE), Ask(LAYER, WHOLE)],
        then: &[Check::SecondGets(1), Check::NoCredentialsElsewhere, Check::Stored],
        ..CASE
    },
    Case {
        name: "a_redirect_keeps_the_range",
        story: "The CDN breaks off; the resume goes through the registry again, with its range.",
        arrange: |g| {
            g.always(On::BlobGets, Fault::Redirect(format!("{}{{path}}", g.second.url())));
            g.second.inject(REPOSITORY, On::BlobGets, Fault::FinAt(MIDDLE), 1);
        },
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::BlobGets(2), Check::SecondRange("bytes=700000-"), Check::Stored],
        ..CASE
    },
    Case {
        name: "a_redirect_of_manifests_is_followed",
        story: "As registry.k8s.io does.",
        arrange: |g| {
            g.always(On::Manifests, Fault::Redirect(format!("{}{{path}}", g.second.url())));
        },
        steps: &[Ask(BY_TAG, WHOLE)],
        then: &[Check::NoCredentialsElsewhere],
        ..CASE
    },
    Case {
        name: "a_redirect_to_another_address_is_followed",
        story: "The endpoint itself is on loopback, so another loopback address may be.",
        arrange: |g| {
            g.always(On::BlobGets, Fault::Redirect(format!("{}{{path}}", g.foreign.url())));
            g.foreign.inject(REPOSITORY, On::BlobGets, Fault::FinAt(MIDDLE), 1);
        },
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::ForeignRange("bytes=700000-"), Check::NoCredentialsElsewhere],
        ..CASE
    },
    Case {
        name: "five_redirects_are_followed",
        story: "As many as are allowed.",
        arrange: |g| g.always(On::BlobGets, Fault::RedirectChain(5)),
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        ..CASE
    },
    Case {
        name: "t03_six_redirects_are_not_followed",
        story: "One more than is allowed.",
        arrange: |g| g.always(On::BlobGets, Fault::RedirectChain(6)),
        steps: &[Ask(LAYER, REFUSED.within(5))],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "t03_a_redirect_loop_is_given_up",
        story: "Every answer points at itself.",
        arrange: |g| g.always(On::BlobGets, Fault::Redirect("{own}{path}".to_owned())),
        steps: &[Ask(LAYER, REFUSED.within(5))],
        then: &[Check::NotStored, Check::RequestsAtMost(12)],
        ..CASE
    },
    Case {
        name: "t04_a_redirect_to_the_metadata_service_is_refused",
        story: "169.254.169.254, where clouds keep their credentials.",
        arrange: |g| {
            let to = "http://169.254.169.254/latest/meta-data/iam/";
            g.always(On::Any, Fault::Redirect(to.to_owned()));
        },
        steps: &[Ask(LAYER, REFUSED.within(3)), Ask(BY_TAG, REFUSED.within(3))],
        then: &[Check::NotStored, Check::NotLinked],
        ..CASE
    },
    Case {
        name: "t04_a_redirect_to_a_mapped_metadata_address_is_refused",
        story: "The same address in IPv6 clothes.",
        arrange: |g| {
            let to = "http://[::ffff:169.254.169.254]/latest/meta-data/";
            g.always(On::Any, Fault::Redirect(to.to_owned()));
        },
        steps: &[Ask(LAYER, REFUSED.within(3))],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "t04_a_redirect_to_a_decimal_address_is_refused",
        story: "The same address as one number.",
        arrange: |g| g.always(On::Any, Fault::Redirect("http://2852039166/x".to_owned())),
        steps: &[Ask(LAYER, REFUSED.within(3))],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "t04_a_remote_endpoint_may_not_redirect_to_loopback",
        story: "The endpoint is not on loopback (it is reached through a proxy), so the node's \
                own services are out of bounds.",
        upstream: |g, _| {
            crate::larder::Upstream::new(&g.host)
                .endpoint("http://reg.example.com")
                .set("tls", json!({"insecureReason": "a test"}))
                .set("proxy", json!(g.origin.url()))
        },
        arrange: |g| {
            g.always(On::Any, Fault::Redirect(format!("http://{}/x", g.sink.address())));
        },
        steps: &[Ask(LAYER, REFUSED.within(5))],
        then: &[Check::SinkUntouched, Check::ProxiedOnlyTo("reg.example.com"), Check::NotStored],
        ..CASE
    },
    Case {
        name: "a_proxy_is_used",
        story: "The endpoint's name is only known to the proxy.",
        upstream: |g, _| {
            crate::larder::Upstream::new(&g.host)
                .endpoint("http://reg.example.com")
                .set("tls", json!({"insecureReason": "a test"}))
                .set("proxy", json!(g.origin.url()))
        },
        steps: &[Ask(LAYER, WHOLE), Ask(BY_TAG, WHOLE)],
        then: &[Check::ProxiedOnlyTo("reg.example.com"), Check::BlobGets(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "t04_a_redirect_to_another_scheme_is_refused",
        story: "A file of the node is no blob.",
        arrange: |g| g.always(On::Any, Fault::Redirect("file:///etc/passwd".to_owned())),
        steps: &[Ask(LAYER, REFUSED.within(3)), Ask(BY_TAG, REFUSED.within(3))],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "t03_credentials_in_a_location_are_not_used",
        story: "The upstream would have us log in elsewhere.",
        arrange: |g| {
            let to = g.second.url().replace("http://", "http://robot:s3cret@") + "{path}";
            g.always(On::BlobGets, Fault::Redirect(to));
        },
        steps: &[Ask(LAYER, WHOLE_OR_REFUSED.within(5))],
        then: &[Check::NoCredentialsElsewhere],
        ..CASE
    },
    Case {
        name: "a_redirect_without_a_location_is_refused",
        story: "307 and nothing else.",
        arrange: |g| g.always(On::Any, Fault::Status(307)),
        steps: &[Ask(LAYER, REFUSED.within(5)), Ask(BY_TAG, REFUSED.within(5))],
        then: &[Check::NotStored],
        ..CASE
    },
];

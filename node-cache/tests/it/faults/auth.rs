//! Upstreams that want to know who is asking.

use Step::{Ask, Check as Now, Crowd};
use bytes::Bytes;
use serde_json::json;

use super::{
    case::{CASE, Case, Ground, REPOSITORY, Step},
    check::Check,
    want::{BY_TAG, DENIED, LAYER, MANIFEST, REFUSED, UNAVAILABLE, WHOLE},
};
use crate::faulty::{ALWAYS, Door, Fault, On, TOKENS};

pub const CASES: &[Case] = &[
    Case {
        name: "a_public_repository_behind_bearer_is_served",
        story: "An anonymous token opens it, and one is enough for everybody.",
        arrange: |g| bearer(g, g.origin.realm(), true),
        steps: &[Crowd(8, LAYER, WHOLE), Ask(BY_TAG, WHOLE), Ask(MANIFEST, WHOLE)],
        then: &[
            Check::TokensAsked { password: false },
            Check::TokenRequests(1),
            Check::Stored,
            Check::Linked,
        ],
        ..CASE
    },
    Case {
        name: "a_realm_at_another_port_of_the_same_address_is_used",
        story: "The same host: equality of addresses.",
        arrange: |g| bearer(g, g.second.realm(), true),
        steps: &[Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        ..CASE
    },
    Case {
        name: "t08_a_private_repository_is_403_and_never_401",
        story: "The cache has no credentials; containerd asks with the pod's own.",
        arrange: |g| bearer(g, g.origin.realm(), false),
        steps: &[
            Ask(BY_TAG.head(), DENIED),
            Ask(BY_TAG, DENIED),
            Ask(MANIFEST, DENIED),
            Ask(LAYER, DENIED),
            Ask(LAYER.head(), DENIED),
        ],
        then: &[Check::NotStored, Check::NotLinked, Check::ManifestNotStored],
        ..CASE
    },
    Case {
        name: "t08_a_private_repository_behind_basic_is_403",
        story: "The same with Basic.",
        arrange: |g| g.origin.close_door(REPOSITORY, Door::Basic),
        steps: &[Ask(BY_TAG.head(), DENIED), Ask(LAYER, DENIED)],
        then: &[Check::NotStored, Check::NotLinked],
        ..CASE
    },
    Case {
        name: "a_shared_repository_behind_bearer_is_served",
        story: "The cache's credential gets a token.",
        upstream: |_, upstream| upstream.shared(&["team/*"]),
        arrange: |g| bearer(g, g.origin.realm(), false),
        steps: &[Ask(BY_TAG, WHOLE), Ask(LAYER, WHOLE)],
        then: &[Check::TokensAsked { password: true }, Check::TokenRequests(1), Check::Stored],
        ..CASE
    },
    Case {
        name: "a_shared_repository_behind_basic_is_served",
        story: "The same with Basic.",
        upstream: |_, upstream| upstream.shared(&["team/*"]),
        arrange: |g| g.origin.close_door(REPOSITORY, Door::Basic),
        steps: &[Ask(BY_TAG, WHOLE), Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        ..CASE
    },
    Case {
        name: "t08_a_private_repository_not_on_the_list_is_403",
        story: "Shared for others only.",
        upstream: |_, upstream| upstream.shared(&["other/*"]),
        arrange: |g| bearer(g, g.origin.realm(), false),
        steps: &[Ask(BY_TAG, DENIED), Ask(LAYER, DENIED), Ask(MANIFEST, DENIED)],
        then: &[Check::NotLinked],
        ..CASE
    },
    Case {
        name: "t08_credentials_do_not_open_what_is_private",
        story: "Anonymous access with credentials: what only they can read is not served.",
        upstream: |_, upstream| upstream.with_credentials(),
        arrange: |g| bearer(g, g.origin.realm(), false),
        steps: &[
            Ask(BY_TAG.head(), DENIED),
            Ask(BY_TAG, DENIED),
            Ask(LAYER, DENIED),
            Ask(MANIFEST, DENIED),
        ],
        ..CASE
    },
    Case {
        name: "credentials_do_not_close_what_is_public",
        story: "Anonymous access with credentials (for the quota) to a public repository.",
        upstream: |_, upstream| upstream.with_credentials(),
        arrange: |g| bearer(g, g.origin.realm(), true),
        steps: &[Ask(BY_TAG, WHOLE), Ask(LAYER, WHOLE)],
        then: &[Check::Stored],
        ..CASE
    },
    Case {
        name: "t02_a_foreign_realm_never_sees_the_password",
        story: "The challenge names a token server at another address.",
        upstream: |_, upstream| upstream.shared(&["**"]),
        arrange: |g| bearer(g, g.foreign.realm(), false),
        steps: &[Ask(BY_TAG, REFUSED), Ask(LAYER, REFUSED)],
        then: &[Check::ForeignUntouched, Check::NotStored],
        ..CASE
    },
    Case {
        name: "t02_a_foreign_realm_without_tls_is_not_asked_at_all",
        story: "Anonymous requests may go to any https realm; this one is http.",
        arrange: |g| bearer(g, g.foreign.realm(), true),
        steps: &[Ask(LAYER, REFUSED)],
        then: &[Check::ForeignUntouched, Check::NotStored],
        ..CASE
    },
    Case {
        name: "a_realm_on_the_list_is_used",
        story: "tokenRealms names the foreign address.",
        upstream: |g, upstream| {
            let realm = g.foreign.url().replace("http://", "");
            upstream.shared(&["**"]).set("tokenRealms", json!(["127.0.0.2", realm]))
        },
        arrange: |g| bearer(g, g.foreign.realm(), false),
        steps: &[Ask(BY_TAG, WHOLE), Ask(LAYER, WHOLE)],
        then: &[Check::ForeignTokensAsked { password: true }, Check::Stored],
        ..CASE
    },
    Case {
        name: "t02_a_realm_with_user_info_is_not_the_host_it_looks_like",
        story: "http://127.0.0.1@127.0.0.3/ is at 127.0.0.3.",
        upstream: |_, upstream| upstream.shared(&["**"]),
        arrange: |g| {
            bearer(g, format!("http://127.0.0.1@{}/token", g.sink.address()), false);
        },
        steps: &[Ask(LAYER, REFUSED)],
        then: &[Check::SinkUntouched],
        ..CASE
    },
    Case {
        name: "t04_the_metadata_service_is_no_realm",
        story: "Neither with credentials nor without.",
        arrange: |g| {
            bearer(g, "http://169.254.169.254/latest/api/token".to_owned(), true);
        },
        steps: &[Ask(LAYER, REFUSED.within(3)), Ask(BY_TAG, REFUSED.within(3))],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "t02_a_token_redirect_does_not_carry_the_password",
        story: "The upstream's own token server sends us to a foreign one.",
        upstream: |_, upstream| upstream.shared(&["**"]),
        arrange: |g| {
            bearer(g, g.origin.realm(), false);
            tokens(g, Fault::Redirect(format!("{}?service=x", g.foreign.realm())));
        },
        steps: &[Ask(LAYER, REFUSED)],
        then: &[Check::NoCredentialsElsewhere, Check::NotStored],
        ..CASE
    },
    Case {
        name: "a_challenge_without_a_realm_is_refused",
        story: "Bearer, and no word where.",
        upstream: |_, upstream| upstream.shared(&["**"]),
        arrange: |g| challenge(g, "Bearer service=\"origin\""),
        steps: &[Ask(LAYER, REFUSED)],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "a_challenge_that_cannot_be_read_is_refused",
        story: "An open quote, commas, a realm that is no URL.",
        arrange: |g| challenge(g, "Bearer realm=\"not a url, ,,= \"\"\"x"),
        steps: &[Ask(LAYER, REFUSED), Ask(BY_TAG.head(), REFUSED)],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "a_challenge_of_an_unknown_scheme_is_refused",
        story: "Negotiate.",
        upstream: |_, upstream| upstream.shared(&["**"]),
        arrange: |g| challenge(g, "Negotiate"),
        steps: &[Ask(LAYER, REFUSED)],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "t13_a_token_answer_of_one_mebibyte_is_refused",
        story: "A token is never that long.",
        arrange: |g| {
            bearer(g, g.origin.realm(), true);
            let long = "x".repeat(1 << 20);
            tokens(g, json(format!("{{\"token\":\"{long}\"}}")));
        },
        steps: &[Ask(LAYER, REFUSED)],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "t13_a_token_answer_without_end_is_given_up",
        story: "White space for ever.",
        arrange: |g| {
            bearer(g, g.origin.realm(), true);
            tokens(g, Fault::Endless);
        },
        steps: &[Ask(LAYER, REFUSED.within(11))],
        then: &[Check::SentAtMost(32 << 20)],
        ..CASE
    },
    Case {
        name: "a_token_answer_without_a_token_is_refused",
        story: "200 and an empty object.",
        arrange: |g| {
            bearer(g, g.origin.realm(), true);
            tokens(g, json("{}"));
        },
        steps: &[Ask(LAYER, REFUSED)],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "t12_a_token_with_a_line_break_is_refused",
        story: "It would end the header and begin another.",
        arrange: |g| {
            bearer(g, g.origin.realm(), true);
            tokens(g, json("{\"token\":\"a\\r\\nX-Injected: yes\"}"));
        },
        steps: &[Ask(LAYER, REFUSED)],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "f10_a_token_endpoint_that_answers_429_is_503",
        story: "Out of quota before the registry is even asked.",
        arrange: |g| {
            bearer(g, g.origin.realm(), true);
            tokens(g, Fault::TooMany { retry_after: 30 });
        },
        steps: &[Ask(LAYER, UNAVAILABLE.within(5)), Ask(BY_TAG, UNAVAILABLE.within(5))],
        then: &[Check::NotStored],
        ..CASE
    },
    Case {
        name: "f10_a_token_endpoint_that_answers_500_is_503",
        story: "Broken.",
        arrange: |g| {
            bearer(g, g.origin.realm(), true);
            tokens(g, Fault::Status(500));
        },
        steps: &[Ask(LAYER, UNAVAILABLE.within(5)), Ask(BY_TAG, UNAVAILABLE.within(5))],
        ..CASE
    },
    Case {
        name: "f08_a_token_endpoint_that_hangs_is_503_within_ten_seconds",
        story: "One budget for the token, all endpoints and the answer.",
        arrange: |g| {
            bearer(g, g.origin.realm(), true);
            tokens(g, Fault::HangBeforeHeaders);
        },
        steps: &[Crowd(4, LAYER, UNAVAILABLE.within(11))],
        ..CASE
    },
    Case {
        name: "a_token_that_is_refused_is_not_fetched_for_ever",
        story: "The registry answers 401 to its own tokens.",
        arrange: |g| {
            bearer(g, g.origin.realm(), true);
            let realm = g.origin.realm();
            challenge(g, &format!("Bearer realm=\"{realm}\",error=\"insufficient_scope\""));
        },
        steps: &[Ask(LAYER, REFUSED.within(5)), Now(Check::RequestsAtMost(6))],
        then: &[Check::NotStored],
        ..CASE
    },
];

fn bearer(ground: &Ground, realm: String, public: bool) {
    ground.origin.close_door(REPOSITORY, Door::Bearer { realm, public });
}

fn challenge(ground: &Ground, challenge: &str) {
    ground.always(On::Any, Fault::Challenge(challenge.to_owned()));
}

fn tokens(ground: &Ground, fault: Fault) {
    ground.origin.inject(TOKENS, On::Tokens, fault, ALWAYS);
}

fn json(body: impl Into<Bytes>) -> Fault {
    Fault::Content("application/json", body.into())
}

//! Where redirects lead.

use super::{
    fake::{Reply, ok, redirect, start, start_on, status},
    *,
};
use crate::upstream::{ErrorClass, address::Reach, failure::Failure, resolver::FilteringResolver};

#[tokio::test]
async fn t03_credentials_stay_behind_and_the_range_goes_along() {
    let store = start_on("127.0.0.2", None, |seen| match &*seen.target {
        "/layer?sig=1" => redirect("/second"),
        _ => Reply::Answer(206, Vec::new(), "34".to_owned()),
    })
    .await;
    let location = store.url("/layer?sig=1");
    let registry = start(move |seen| match seen.header("authorization") {
        BASIC => redirect(&location),
        _ => status(401).with("www-authenticate", "Basic realm=\"x\""),
    })
    .await;
    let upstream = with_credentials(&[&registry.url("")], "");
    let request = Request {
        identity: Identity::Configured,
        accept: Some("a/b".to_owned()),
        ..blob(Some((3, Some(4))))
    };
    assert_eq!(body(&upstream, request).await, "34");
    let seen = store.seen();
    assert_eq!(store.targets(), ["/layer?sig=1", "/second"]);
    for hop in &seen {
        assert_eq!(hop.header("authorization"), "");
        assert_eq!(hop.header("cookie"), "");
        assert_eq!(hop.header("referer"), "");
        assert_eq!(hop.header("range"), "bytes=3-4");
        assert_eq!(hop.header("accept"), "a/b");
    }
}

#[tokio::test]
async fn t03_credentials_do_not_come_back_with_a_redirect_to_the_first_host() {
    let store = start_on("127.0.0.2", None, |seen| {
        redirect(&format!("http://127.0.0.1:{}/back", &seen.target[1..]))
    })
    .await;
    let away = store.url("/");
    let registry = start(move |seen| match (&*seen.target, seen.header("authorization")) {
        ("/back", "") => ok("back"),
        ("/same", "") => ok("same"),
        ("/v2/library/nginx/manifests/1.27", BASIC) => redirect("/same"),
        (target, BASIC) if target.contains("/blobs/") => {
            let port = seen.header("host").rsplit(':').next().unwrap();
            redirect(&format!("{away}{port}"))
        }
        (_, "") => status(401).with("www-authenticate", "Basic realm=\"x\""),
        other => panic!("{other:?}"),
    })
    .await;
    let upstream = with_credentials(&[&registry.url("")], "");
    let request = Request { identity: Identity::Configured, ..blob(None) };
    assert_eq!(body(&upstream, request).await, "back");
    assert_eq!(body(&upstream, get_as_configured()).await, "same");
}

#[tokio::test]
async fn five_redirects_are_followed_and_no_more() {
    let registry = start(|seen| match seen.target.strip_prefix("/hop/") {
        Some("0") => ok("there"),
        Some(left) => redirect(&format!("/hop/{}", left.parse::<u32>().unwrap() - 1)),
        None if seen.target.contains("/blobs/") => redirect("/hop/4"),
        None if seen.target.contains("/tags/") => redirect(&seen.target),
        None => redirect("/hop/5"),
    })
    .await;
    let upstream = upstream(&[&registry.url("")]);
    assert_eq!(body(&upstream, blob(None)).await, "there");
    let before = registry.seen().len();
    assert!(denied(&upstream, get()).await.contains("more than 5 times"));
    assert_eq!(registry.seen().len() - before, 6);
    let tags = Target::Tags("library/nginx".parse().unwrap(), "n=1".to_owned());
    let looping = Request { target: tags, ..get() };
    assert!(denied(&upstream, looping).await.contains("more than 5 times"));
}

#[tokio::test]
async fn every_kind_of_redirect_keeps_the_method() {
    for code in [301, 302, 303, 307, 308] {
        let registry = start(move |seen| match &*seen.target {
            "/there" => ok("there"),
            _ => status(code).with("location", "/there"),
        })
        .await;
        let upstream = upstream(&[&registry.url("")]);
        let head = manifest(Method::HEAD, Identity::Anonymous);
        assert_eq!(send(&upstream, head).await.unwrap().content_length(), Some(5));
        assert_eq!(body(&upstream, get()).await, "there");
        let methods: Vec<_> = registry.seen().into_iter().map(|seen| seen.method).collect();
        assert_eq!(methods, ["HEAD", "HEAD", "GET", "GET"]);
    }
}

#[tokio::test]
async fn a_url_signed_for_get_only_refuses_the_method_and_not_the_content() {
    let registry = start(|seen| match &*seen.target {
        "/signed" => status(403),
        _ => redirect("/signed"),
    })
    .await;
    let upstream = upstream(&[&registry.url("")]);
    let error = send(&upstream, manifest(Method::HEAD, Identity::Anonymous)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::MethodRefused { .. }), "{error}");
    assert_eq!(denied(&upstream, get()).await, "status 403 where it redirects to");
}

#[tokio::test]
async fn t04_redirects_to_forbidden_places_are_not_followed() {
    for location in [
        "http://169.254.169.254/latest/meta-data/iam/",
        "http://2852039166/",
        "http://[::ffff:169.254.169.254]/",
        "http://169.254.1.1/",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://100.100.100.200/",
        "http://user:password@127.0.0.1/",
        "gopher://127.0.0.1/",
        "file:///etc/passwd",
    ] {
        let hostile = start(move |_| redirect(location)).await;
        let good = start(|_| ok("good")).await;
        let alone = upstream(&[&hostile.url("")]);
        let reason = denied(&alone, get()).await;
        assert!(reason.contains("it leads to"), "{location}: {reason}");
        assert_eq!(alone.errors(ErrorClass::Refused), 1);
        let both = upstream(&[&hostile.url(""), &good.url("")]);
        assert_eq!(body(&both, get()).await, "good", "{location}");
    }
}

/// An HTTP proxy stands for a registry that is not on loopback: by its name and by its proxy.
async fn distant(location: String) -> (fake::Fake, Upstream) {
    let proxy = start(move |seen| match &*seen.target {
        target if target.starts_with("http://reg.example/v2/") => redirect(&location),
        "http://cdn.example/layer" => ok("layer"),
        other => panic!("{other}"),
    })
    .await;
    let more = format!("  proxy: \"{}\"\n  tls: {{insecureReason: test}}\n", proxy.url(""));
    let upstream = upstream_with(&["http://reg.example"], &more, &[]);
    (proxy, upstream)
}

#[tokio::test]
async fn t04_a_distant_registry_leads_nowhere_near() {
    let sink = start_on("127.0.0.2", None, |_| ok("secret")).await;
    let port = sink.port();
    for host in
        ["127.0.0.2", "127.2", "0x7f000002", "[::ffff:127.0.0.2]", "localhost", "a.localhost"]
    {
        let (_proxy, upstream) = distant(format!("http://{host}:{port}/")).await;
        let reason = denied(&upstream, get()).await;
        assert!(reason.contains("an address of this machine"), "{host}: {reason}");
    }
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn a_proxy_carries_requests_and_redirects_but_not_to_loopback() {
    let (proxy, upstream) = distant("http://cdn.example/layer".to_owned()).await;
    assert_eq!(body(&upstream, get()).await, "layer");
    assert_eq!(proxy.seen().len(), 2);

    let local = start(|_| ok("local")).await;
    let more = format!("  proxy: \"{}\"\n", proxy.url(""));
    let near = upstream_with(&[&local.url("")], &more, &[]);
    assert_eq!(body(&near, get()).await, "local");
    assert_eq!(proxy.seen().len(), 2);
}

#[tokio::test]
async fn t04_a_loopback_registry_may_lead_to_another_loopback_address() {
    let store = start_on("127.0.0.2", None, |_| ok("layer")).await;
    let location = store.url("/");
    let registry = start(move |_| redirect(&location)).await;
    assert_eq!(body(&upstream(&[&registry.url("")]), get()).await, "layer");
    // The same by name: what was dialled counts.
    let named = format!("http://localhost:{}", registry.port());
    assert_eq!(body(&upstream(&[&named]), get()).await, "layer");
}

#[tokio::test]
async fn t04_the_client_says_why_a_name_is_not_dialled() {
    let sink = start(|_| ok("secret")).await;
    let resolver = FilteringResolver { reach: Reach::Ordinary, proxies: Vec::new() };
    let client = reqwest::Client::builder().no_proxy().dns_resolver(resolver).build().unwrap();
    let url = format!("http://localhost:{}/?signature=canary", sink.port());
    let failure = Failure::of(client.get(url).send().await.unwrap_err());
    assert_eq!(failure.class(), ErrorClass::Refused, "{failure:?}");
    assert!(failure.reason().contains("an address of this machine"), "{failure:?}");
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn a_redirect_that_leads_nowhere_is_the_endpoints_fault() {
    let nowhere = start(|_| status(302)).await;
    assert!(unavailable(&upstream(&[&nowhere.url("")]), get()).await.contains("without Location"));
    let closed = start(|_| redirect("http://127.0.0.1:1/x?sig=canary")).await;
    let upstream = upstream(&[&closed.url("")]);
    let reason = unavailable(&upstream, get()).await;
    assert!(reason.contains("redirected to 127.0.0.1: ") && !reason.contains("canary"), "{reason}");
    assert!(upstream.health().reachable, "the registry itself answered");
    let missing = start(|seen| match &*seen.target {
        "/gone" => status(404),
        _ => redirect("/gone"),
    })
    .await;
    let error = send(&super::upstream(&[&missing.url("")]), get()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::NotFound { .. }));
}

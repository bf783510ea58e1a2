//! No log of any run names a secret (T17).

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    faulty::{
        ALWAYS, ANONYMOUS_TOKEN, CREDENTIALS, Door, Fault, Image, On, Origin, ROBOT_TOKEN, TOKENS,
    },
    larder::{Larder, NodeConfig, Upstream},
};

const APP: &str = "team/app";

#[tokio::test]
async fn t17_no_secret_and_no_control_character_is_logged() {
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", 1, 400_000);
    let open = origin.image("team/open", "v1", 2, 400_000);
    let cdn = origin.twin(std::net::Ipv4Addr::LOCALHOST).await;
    origin.close_door(APP, Door::Bearer { realm: origin.realm(), public: false });
    origin.close_door("team/open", Door::Bearer { realm: origin.realm(), public: true });
    let signed = format!("{}{{path}}?X-Amz-Signature=canary-signature&Expires=9", cdn.url());
    origin.inject(APP, On::BlobGets, Fault::Redirect(signed.clone()), ALWAYS);
    let proxied = Upstream::new("proxied.test")
        .endpoint("https://reg.example.com")
        .set("proxy", serde_json::json!("http://robot:canary-proxy@127.0.0.1:1"));
    let config = NodeConfig::new([
        Upstream::at("shared.test", &origin).shared(&[APP]),
        Upstream::at("open.test", &origin),
        proxied,
    ]);
    let larder = Larder::with(config.report_token("canary-report")).await;

    let blob = |image: &Image| format!("blobs/{}", image.layer.digest);
    let layer = format!("/v2/{APP}/{}?ns=shared.test", blob(&image));
    let tag = format!("/v2/{APP}/manifests/v1?ns=shared.test");
    larder.get(&tag).send().await.is_whole(&image.index.bytes);
    let call = larder.get(&layer).header("Authorization", "Basic canary-client");
    call.header("Cookie", "canary-cookie").send().await.is_whole(&image.layer.bytes);
    let anonymous = format!("/v2/team/open/{}?ns=open.test", blob(&open));
    larder.get(&anonymous).send().await.is_whole(&open.layer.bytes);

    everything_goes_wrong(&origin, &larder, &image).await;
    origin.inject(TOKENS, On::Tokens, Fault::Status(500), ALWAYS);
    let _ = larder.get("/v2/team/new/manifests/v1?ns=shared.test").send().await;
    let _ = larder.get("/v2/a/manifests/v1?ns=proxied.test").send().await;
    let hostile =
        "GET /v2/a/manifests/v1?ns=x%1b%5b31m%0d%0acanary-line HTTP/1.1\r\nHost: x\r\n\r\n";
    let _ = larder.raw(hostile.as_bytes()).await;
    let call = larder.admin("/report").header("Authorization", "Bearer canary-wrong");
    let _ = call.send().await;
    let report = larder.admin("/report").header("Authorization", "Bearer canary-report");
    let report = report.send().await;
    assert_eq!(report.status, 200, "{}", report.line());

    let told = larder.log().text() + &report.text() + &larder.admin("/metrics").send().await.text();
    names_no_secret(&told);
    for line in larder.log().text().lines() {
        let parsed = serde_json::from_str::<serde_json::Value>(line);
        assert!(parsed.is_ok(), "not one JSON object a line: {line}");
    }
}

/// Errors are what is logged most.
async fn everything_goes_wrong(origin: &Origin, larder: &Larder, image: &Image) {
    let tag = format!("/v2/{APP}/manifests/v1?ns=shared.test");
    origin.heal(APP);
    for fault in [
        Fault::Redirect("http://169.254.169.254/x?X-Amz-Signature=canary-signature".to_owned()),
        Fault::Redirect("http://127.0.0.1:1/x?X-Amz-Signature=canary-signature".to_owned()),
        Fault::Redirect("http://u:canary-userinfo@127.0.0.1:1/x".to_owned()),
        Fault::Challenge("Bearer realm=\"http://127.0.0.9/?canary-realm=1\"".to_owned()),
        Fault::Content("text/html", "<html>\u{1b}[31mcanary-body</html>".into()),
        Fault::Status(500),
    ] {
        origin.heal(APP);
        origin.inject(APP, On::Any, fault, ALWAYS);
        let config = format!("/v2/{APP}/blobs/{}?ns=shared.test", image.config.digest);
        for path in [&tag, &config, &format!("/v2/{APP}/manifests/v2?ns=shared.test")] {
            let call = larder.get(path).header("Authorization", "Basic canary-client");
            let answer = call.send().await;
            assert!(!answer.text().contains("canary"), "{}", answer.text());
        }
    }
}

fn names_no_secret(told: &str) {
    let password = CREDENTIALS.split_once(':').unwrap().1;
    let basic = BASE64_STANDARD.encode(CREDENTIALS);
    for secret in [
        password,
        &basic,
        ROBOT_TOKEN,
        ANONYMOUS_TOKEN,
        "canary-signature",
        "canary-client",
        "canary-cookie",
        "canary-report",
        "canary-wrong",
        "canary-proxy",
        "canary-userinfo",
        "canary-realm",
        "canary-body",
        "X-Amz-Signature",
    ] {
        let lines: Vec<_> = told.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{secret}: {lines:#?}");
    }
    assert!(!told.contains('\u{1b}'), "a terminal would obey");
}

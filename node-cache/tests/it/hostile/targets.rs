//! Request targets that name nothing, or something that is none of their business.

use super::Hostile;

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub(super) fn table(sink: &str) -> Vec<Hostile> {
    let mut table: Vec<_> = paths().iter().map(|path| Hostile::get(&with_ns(path))).collect();
    table.extend(paths().iter().take(12).map(|path| Hostile::get(path)));
    table.extend(
        namespaces(sink)
            .iter()
            .map(|query| Hostile::get(&format!("/v2/team/app/manifests/v1?{query}"))),
    );
    table
}

fn with_ns(path: &str) -> String {
    format!("{path}?ns=reg.test")
}

fn paths() -> Vec<String> {
    let blob = |digest: &str| format!("/v2/team/app/blobs/{digest}");
    let tag = |tag: &str| format!("/v2/team/app/manifests/{tag}");
    let named = |name: &str| format!("/v2/{name}/manifests/v1");
    vec![
        // Out of the store.
        "/v2/../../etc/passwd".to_owned(),
        "/v2/team/app/blobs/../../../../etc/passwd".to_owned(),
        "/v2/%2e%2e/%2e%2e/%2e%2e/etc/passwd".to_owned(),
        "/v2/..%2f..%2f..%2foutside/manifests/v1".to_owned(),
        "/../outside".to_owned(),
        "/v2/reg.test/../../outside/manifests/v1".to_owned(),
        tag("..%2f..%2f..%2f..%2foutside"),
        tag("%2e%2e"),
        tag(".."),
        blob("sha256:..%2f..%2f..%2foutside"),
        blob(&format!("sha256:../../{}", &HEX[6..])),
        blob(&format!("..%2fsha256:{HEX}")),
        // Digests that are none.
        blob(&format!("sha256:{}", &HEX[1..])),
        blob(&format!("sha256:{HEX}0")),
        blob(&format!("sha256:{}", HEX.to_uppercase())),
        blob(&format!("SHA256:{HEX}")),
        blob(&format!("sha512:{HEX}")),
        blob(&format!("md5:{}", &HEX[..32])),
        blob("sha256:"),
        blob("sha256"),
        blob("latest"),
        blob(&format!("sha256:{}%00", &HEX[1..])),
        blob(&format!("sha256:{HEX}/")),
        blob(&format!("sha256:{}", "g".repeat(64))),
        "/v2/team/app/blobs/".to_owned(),
        "/v2/team/app/blobs".to_owned(),
        "/v2/team/app/referrers/latest".to_owned(),
        // Tags that are none.
        tag(""),
        tag(".hidden"),
        tag("-dash"),
        tag(&"a".repeat(129)),
        tag("a%00b"),
        tag("a%0d%0ab"),
        tag("a%20b"),
        tag("%c3%a4"),
        tag("%ff"),
        tag("%zz"),
        tag("a;b"),
        tag("a%252fb"),
        tag(&format!("sha256:{}", &HEX[1..])),
        // Repositories that are none.
        named("TEAM/app"),
        named("team//app"),
        named("/team/app"),
        named("team/app/"),
        named("_catalog"),
        named("."),
        named("a..b"),
        named("a/../b"),
        named("a/./b"),
        named("-a"),
        named("a-"),
        named("a___b"),
        named("a%00b"),
        named("a\\b"),
        named("team%252fapp"),
        named(&"a".repeat(256)),
        named(&"a/".repeat(2000)),
        named(""),
        // Places that do not exist.
        "/V2/team/app/manifests/v1".to_owned(),
        "//v2/team/app/manifests/v1".to_owned(),
        "/v2/team/app".to_owned(),
        "/v2/team/app/manifests".to_owned(),
        "/v2/team/app/layers/v1".to_owned(),
        "/v2/team/app/tags".to_owned(),
        "/v2/team/app/tags/list/more".to_owned(),
        "/v2/team/app/blobs/uploads/".to_owned(),
        "/v1/repositories/team/app/images".to_owned(),
    ]
}

/// T1: `ns` is a key into the configured upstreams, never something to dial.
fn namespaces(sink: &str) -> Vec<String> {
    let port = sink.rsplit(':').next().unwrap_or_default();
    let mut queries = vec![
        "ns=reg.test&ns=reg.test".to_owned(),
        format!("ns=reg.test&ns={sink}"),
        format!("ns={sink}&ns=reg.test"),
        format!("n%73={sink}&ns=reg.test"),
        format!("ns=reg.test;ns={sink}"),
    ];
    let values = [
        String::new(),
        sink.to_owned(),
        format!("http://{sink}/"),
        format!("http:%2f%2f{sink}"),
        format!("reg.test@{sink}"),
        format!("reg.test%40{sink}"),
        format!("{sink}%23reg.test"),
        format!("{sink}%2freg.test"),
        format!("2130706436:{port}"),
        format!("0x7f000004:{port}"),
        format!("0177.0.0.4:{port}"),
        format!("127.4:{port}"),
        format!("[::ffff:127.0.0.4]:{port}"),
        format!("%5b::ffff:7f00:4%5d:{port}"),
        "169.254.169.254".to_owned(),
        "localhost".to_owned(),
        "reg.test%00".to_owned(),
        "reg.test%0d%0aX-Injected:%20yes".to_owned(),
        "reg.test:80".to_owned(),
        "reg.test%2f..%2f..".to_owned(),
        "..".to_owned(),
        "../reg.test".to_owned(),
        "%2e%2e%2freg.test".to_owned(),
        "reg%252etest".to_owned(),
        "xn--rg-bja.test".to_owned(),
        "r%C3%A9g.test".to_owned(),
        "*".to_owned(),
        "_default".to_owned(),
        "a".repeat(4000),
    ];
    queries.extend(values.iter().map(|value| format!("ns={value}")));
    queries
}

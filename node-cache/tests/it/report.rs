//! What a node says about itself: every field of the contract, and no more than fits.

use serde_json::Value;

use crate::{
    faulty::Origin,
    larder::{Larder, NodeConfig, Upstream},
};

const APP: &str = "team/app";
const HOST: &str = "reg.test";
/// What the operator reads of a report.
const MOST: usize = 256 << 10;

/// A field, and whether a value is one of its kind.
type Field<'a> = (&'a str, fn(&Value) -> bool);

/// Checks that an object has these fields, each of its kind.
#[track_caller]
fn has(object: &Value, fields: &[Field<'_>]) {
    for (name, is_right) in fields {
        assert!(object.get(name).is_some_and(is_right), "{name} in {object:#}");
    }
}

#[tokio::test]
async fn the_report_has_every_field_of_the_contract() {
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", 1, 1000);
    let larder = Larder::serving([Upstream::at(HOST, &origin), Upstream::new("other.test")]).await;
    let tag = format!("/v2/{APP}/manifests/v1?ns={HOST}");
    larder.get(&tag).send().await.is_whole(&image.index.bytes);
    let report = larder.admin("/report").send().await.json();
    has(
        &report,
        &[
            ("apiVersion", |value| value == "node.larder.dev/v1alpha1"),
            ("instance", |value| value == "test"),
            ("node", Value::is_string),
            ("version", |value| value == env!("CARGO_PKG_VERSION")),
            ("configHash", |value| value.as_str().is_some_and(|hash| hash.len() == 64)),
        ],
    );
    has(
        &report["mirror"],
        &[
            ("state", |value| value == "Unknown"),
            ("reason", Value::is_string),
            ("hosts", Value::is_array),
        ],
    );
    has(
        &report["store"],
        &[
            ("state", Value::is_string),
            ("usedBytes", Value::is_u64),
            ("capacityBytes", |value| value == 1 << 30),
            ("freeBytes", |value| value.as_u64() > Some(0)),
            ("blobs", Value::is_u64),
        ],
    );
    assert_eq!(report["upstreams"].as_object().unwrap().len(), 2, "{report:#}");
    for host in [HOST, "other.test"] {
        has(
            &report["upstreams"][host],
            &[
                ("accepted", Value::is_boolean),
                ("reachable", Value::is_boolean),
                ("lastError", Value::is_string),
                ("hits", Value::is_u64),
                ("misses", Value::is_u64),
                ("stale", Value::is_u64),
                ("passThrough", Value::is_u64),
                ("bytesServed", Value::is_u64),
                ("bytesFetched", Value::is_u64),
            ],
        );
    }
}

#[tokio::test]
async fn the_report_of_a_thousand_upstreams_with_long_names_and_errors_fits() {
    let upstreams = (0..1000).map(|number| {
        let host = format!("u{number}.{}.{}.test", "a".repeat(60), "b".repeat(60));
        // Refused, for a reason that is told.
        Upstream::new(&host).endpoint(&format!("gopher://{}", "c".repeat(300)))
    });
    let larder = Larder::with(NodeConfig::new(upstreams)).await;
    let answer = larder.admin("/report").send().await;
    assert_eq!(answer.status, 200, "{}", answer.line());
    assert!(answer.body.len() <= MOST, "{} bytes", answer.body.len());
    let report = answer.json();
    assert!(report["upstreams"].as_object().unwrap().len() > 500);
    assert_eq!(report["store"]["capacityBytes"], 1 << 30);
}

#[tokio::test]
async fn the_catalog_has_every_field_of_the_contract_also_for_a_pull_by_digest() {
    let origin = Origin::start().await;
    let tagged = origin.image(APP, "v1", 1, 1000);
    let other = origin.image("team/other", "v1", 2, 1000);
    let larder = Larder::serving([Upstream::at(HOST, &origin)]).await;
    let pulls = [
        (format!("/v2/{APP}/manifests/v1"), &tagged.index),
        // As containerd does, after the tag.
        (format!("/v2/{APP}/manifests/{}", tagged.index.digest), &tagged.index),
        (format!("/v2/{APP}/manifests/{}", tagged.manifest.digest), &tagged.manifest),
        (format!("/v2/team/other/manifests/{}", other.index.digest), &other.index),
        (format!("/v2/team/other/manifests/{}", other.manifest.digest), &other.manifest),
    ];
    for (path, manifest) in pulls {
        larder.get(&format!("{path}?ns={HOST}")).send().await.is_whole(&manifest.bytes);
        assert!(larder.store().gets(&manifest.digest).await);
    }
    let catalog = larder.admin("/catalog").send().await.json();
    let images = catalog["images"].as_array().unwrap();
    for image in images {
        has(
            image,
            &[
                ("upstream", |value| value == HOST),
                ("repository", Value::is_string),
                ("tag", Value::is_string),
                ("digest", |value| value.as_str().is_some_and(|text| text.starts_with("sha256:"))),
                ("size", |value| value.as_u64() > Some(0)),
                ("pulls", |value| value.as_u64() > Some(0)),
                ("lastPull", |value| value.as_str().is_some_and(|text| text.ends_with('Z'))),
                ("lastModified", |value| value.as_str().is_some_and(|text| text.ends_with('Z'))),
            ],
        );
    }
    let listed: Vec<_> = images
        .iter()
        .map(|image| (&image["repository"], &image["tag"], &image["digest"]))
        .collect();
    let expected: [(Value, Value, Value); 2] = [
        (APP.into(), "v1".into(), tagged.index.digest.clone().into()),
        ("team/other".into(), "".into(), other.index.digest.clone().into()),
    ];
    let expected: Vec<_> = expected.iter().map(|(r, t, d)| (r, t, d)).collect();
    assert_eq!(listed, expected, "{catalog:#}");
}

//! Tag lists and referrers: what is passed through.

use serde_json::{Value, json};

use crate::{
    faulty::{ALWAYS, Fault, Manifest, OCI_INDEX, On, Origin},
    larder::{Larder, Upstream},
};

const APP: &str = "team/app";
const LIST: &str = "/v2/team/app/tags/list";

async fn served() -> (Origin, Larder) {
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", 1, 1000);
    for tag in ["v2", "v3", "v4", "v5"] {
        origin.edit(APP, |repository| repository.put_image(tag, &image));
    }
    let larder = Larder::serving([Upstream::at("reg.test", &origin)]).await;
    (origin, larder)
}

fn tags(body: &Value) -> Vec<String> {
    let tags = body["tags"].as_array().cloned().unwrap_or_default();
    tags.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[tokio::test]
async fn tags_are_listed_as_the_upstream_lists_them() {
    let (_origin, larder) = served().await;
    let answer = larder.get(&format!("{LIST}?ns=reg.test")).send().await;
    assert_eq!(answer.status, 200, "{}", answer.line());
    assert_eq!(tags(&answer.json()), ["v1", "v2", "v3", "v4", "v5"]);
    assert_eq!(answer.json()["name"], APP);
    assert!(answer.header("content-type").unwrap().starts_with("application/json"));
    larder.get("/v2/team/none/tags/list?ns=reg.test").send().await.is_error(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn a_page_of_tags_links_to_the_next_one_at_the_cache() {
    let (origin, larder) = served().await;
    for form in ["ns", "path"] {
        let mut path = match form {
            "ns" => format!("{LIST}?ns=reg.test&n=2"),
            _ => "/v2/reg.test/team/app/tags/list?n=2".to_owned(),
        };
        let mut all = Vec::new();
        for _ in 0..5 {
            let answer = larder.get(&path).send().await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.line());
            all.extend(tags(&answer.json()));
            let Some(link) = answer.header("link") else {
                break;
            };
            assert!(!link.contains(&origin.url()), "{link}");
            let (target, rel) = link.trim_start_matches('<').split_once('>').unwrap();
            assert!(rel.contains("rel=\"next\""), "{link}");
            path = match target.find("/v2/") {
                Some(start) => target[start..].to_owned(),
                None => panic!("{link}"),
            };
        }
        assert_eq!(all, ["v1", "v2", "v3", "v4", "v5"], "{form}");
    }
}

#[tokio::test]
async fn no_tags_at_all_are_asked_for_with_n_zero() {
    let (_origin, larder) = served().await;
    let answer = larder.get(&format!("{LIST}?n=0&ns=reg.test")).send().await;
    assert_eq!((answer.status, tags(&answer.json()).len()), (200, 0));
    assert!(answer.header("link").is_none());
}

#[tokio::test]
async fn t13_a_tag_list_without_end_is_given_up() {
    let (origin, larder) = served().await;
    origin.inject(APP, On::Any, Fault::Endless, ALWAYS);
    let answer = larder.get(&format!("{LIST}?ns=reg.test")).send().await;
    answer.is_error(503, "UNAVAILABLE");
}

#[tokio::test]
async fn referrers_of_anything_are_an_index() {
    let (_origin, larder) = served().await;
    let digest = format!("sha256:{}", "1".repeat(64));
    let answer = larder.get(&format!("/v2/{APP}/referrers/{digest}?ns=reg.test")).send().await;
    assert_eq!(answer.status, 200, "{}", answer.line());
    assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
    let body = answer.json();
    assert_eq!(body["schemaVersion"], 2);
    assert_eq!(body["mediaType"], OCI_INDEX);
    assert_eq!(body["manifests"], json!([]));
}

#[tokio::test]
async fn referrers_are_read_from_the_tag_of_older_registries() {
    let (origin, larder) = served().await;
    let hex = "2".repeat(64);
    let descriptor = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": format!("sha256:{}", "3".repeat(64)), "size": 3,
        "artifactType": "application/vnd.example.signature",
    });
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor]});
    let index = Manifest::new(OCI_INDEX, index.to_string());
    origin.edit(APP, |repository| {
        repository.put_manifest(&index);
        repository.tags.insert(format!("sha256-{hex}"), index.digest.clone());
    });
    let path = format!("/v2/{APP}/referrers/sha256:{hex}?ns=reg.test");
    let answer = larder.get(&path).send().await;
    assert_eq!(answer.status, 200, "{}", answer.line());
    assert_eq!(answer.json()["manifests"], json!([descriptor]));
}

#[tokio::test]
async fn referrers_of_no_digest_are_refused() {
    let (origin, larder) = served().await;
    let answer = larder.get(&format!("/v2/{APP}/referrers/v1?ns=reg.test")).send().await;
    answer.is_error(400, "DIGEST_INVALID");
    assert_eq!(origin.seen().len(), 0);
}

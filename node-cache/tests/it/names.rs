//! How clients name an upstream, and what keeps upstreams apart.

use crate::{
    faulty::Origin,
    larder::{Larder, Upstream},
};

const HOST: &str = "reg.test";
const APP: &str = "team/app";

#[tokio::test]
async fn the_path_form_and_the_ns_form_are_one_cache() {
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", 1, 10_000);
    let larder = Larder::serving([Upstream::at(HOST, &origin)]).await;
    let path = format!("/v2/{HOST}/{APP}/blobs/{}", image.layer.digest);
    larder.get(&path).send().await.is_whole(&image.layer.bytes);
    larder
        .get(&format!("/v2/{APP}/blobs/{}?ns={HOST}", image.layer.digest))
        .send()
        .await
        .is_whole(&image.layer.bytes);
    let tag = larder.get(&format!("/v2/{HOST}/{APP}/manifests/v1")).send().await;
    tag.is_whole(&image.index.bytes);
    assert_eq!(origin.count("GET", "/blobs/"), 1);
    assert!(origin.seen().iter().all(|seen| seen.path.starts_with("/v2/team/app/")));
    let without = format!("/v2/{APP}/blobs/{}", image.layer.digest);
    larder.get(&without).send().await.is_error(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn ns_wins_over_the_path_form() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let outer = one.image("app", "v1", 1, 1000);
    let inner = two.image("one.test/app", "v1", 2, 1000);
    let upstreams = [Upstream::at("one.test", &one), Upstream::at("two.test", &two)];
    let larder = Larder::serving(upstreams).await;
    let by_path = larder.get("/v2/one.test/app/manifests/v1").send().await;
    by_path.is_whole(&outer.index.bytes);
    let by_ns = larder.get("/v2/one.test/app/manifests/v1?ns=two.test").send().await;
    by_ns.is_whole(&inner.index.bytes);
}

#[tokio::test]
async fn t06_one_tag_of_two_upstreams_is_two_tags() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let images = [one.image(APP, "v1", 1, 1000), two.image(APP, "v1", 2, 1000)];
    let upstreams = [Upstream::at("one.test", &one), Upstream::at("two.test", &two)];
    let larder = Larder::serving(upstreams).await;
    for _ in 0..5 {
        for (host, image) in ["one.test", "two.test"].iter().zip(&images) {
            let path = format!("/v2/{APP}/manifests/v1?ns={host}");
            larder.get(&path).send().await.is_whole(&image.index.bytes);
        }
    }
}

#[tokio::test]
async fn docker_hub_is_one_registry_of_many_names() {
    let origin = Origin::start().await;
    let nginx = origin.image("library/nginx", "1.27", 1, 1000);
    let larder = Larder::serving([Upstream::at("docker.io", &origin)]).await;
    for path in [
        "/v2/library/nginx/manifests/1.27?ns=docker.io",
        "/v2/nginx/manifests/1.27?ns=docker.io",
        "/v2/library/nginx/manifests/1.27?ns=registry-1.docker.io",
        "/v2/library/nginx/manifests/1.27?ns=index.docker.io",
        "/v2/docker.io/library/nginx/manifests/1.27",
        "/v2/docker.io/nginx/manifests/1.27",
        "/v2/registry-1.docker.io/library/nginx/manifests/1.27",
    ] {
        let answer = larder.get(path).send().await;
        answer.is_whole(&nginx.index.bytes);
        if path.contains("ns=docker.io") {
            assert_eq!(answer.header("oci-namespace"), Some("docker.io"), "{path}");
        }
    }
    assert_eq!(origin.count("GET", "/manifests/"), 1);
    assert!(origin.seen().iter().all(|seen| seen.path.starts_with("/v2/library/nginx/manifests/")));
}

#[tokio::test]
async fn a_port_is_part_of_a_registrys_name() {
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", 1, 1000);
    let larder = Larder::serving([Upstream::at("reg.test:5000", &origin)]).await;
    for path in [
        "/v2/team/app/manifests/v1?ns=reg.test%3A5000",
        "/v2/team/app/manifests/v1?ns=reg.test:5000",
        "/v2/reg.test:5000/team/app/manifests/v1",
    ] {
        larder.get(path).send().await.is_whole(&image.index.bytes);
    }
    let other = larder.get("/v2/team/app/manifests/v1?ns=reg.test").send().await;
    other.is_error(404, "NAME_UNKNOWN");
}

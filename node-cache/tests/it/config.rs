//! Configurations: good ones, bad ones, and changes while serving.

use std::{fs, os::unix::fs::symlink, time::Duration};

use serde_json::json;

use crate::{
    faulty::{ALWAYS, Fault, Image, On, Origin},
    larder::{Larder, NodeConfig, Upstream, eventually},
};

const APP: &str = "team/app";

async fn origin(seed: u64) -> (Origin, Image) {
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", seed, 1000);
    (origin, image)
}

fn tag(host: &str) -> String {
    format!("/v2/{APP}/manifests/v1?ns={host}")
}

async fn valid(larder: &Larder) -> f64 {
    let metrics = larder.metrics().await;
    assert!(metrics.has("larder_node_config_valid"));
    metrics.sum("larder_node_config_valid", &[])
}

#[tokio::test]
async fn a_new_upstream_is_served_without_a_restart() {
    let ((one, first), (two, second)) = (origin(1).await, origin(2).await);
    let larder = Larder::serving([Upstream::at("one.test", &one)]).await;
    larder.get(&tag("two.test")).send().await.is_error(404, "NAME_UNKNOWN");
    let upstreams = [Upstream::at("one.test", &one), Upstream::at("two.test", &two)];
    larder.write_config(&NodeConfig::new(upstreams));
    let served = async || larder.get(&tag("two.test")).send().await.status == 200;
    assert!(eventually(10, served).await, "{}", larder.log().text());
    larder.get(&tag("two.test")).send().await.is_whole(&second.index.bytes);
    larder.get(&tag("one.test")).send().await.is_whole(&first.index.bytes);
    assert!((valid(&larder).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn an_upstream_that_was_taken_out_is_unknown_again() {
    let ((one, _), (two, _)) = (origin(1).await, origin(2).await);
    let upstreams = [Upstream::at("one.test", &one), Upstream::at("two.test", &two)];
    let larder = Larder::serving(upstreams).await;
    assert_eq!(larder.get(&tag("two.test")).send().await.status, 200);
    larder.write_config(&NodeConfig::new([Upstream::at("one.test", &one)]));
    let gone = async || larder.get(&tag("two.test")).send().await.status == 404;
    assert!(eventually(10, gone).await, "{}", larder.log().text());
    assert_eq!(larder.get(&tag("one.test")).send().await.status, 200);
    // A gauge that stayed would keep an alert on it for ever.
    let metrics = larder.admin("/metrics").send().await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(metrics.contains("one.test") && !metrics.contains("two.test"), "{metrics}");
}

#[tokio::test]
async fn a_config_map_is_swapped_by_its_symlink() {
    let ((one, _), (two, _)) = (origin(1).await, origin(2).await);
    let mut larder = Larder::stopped(&NodeConfig::new([Upstream::at("one.test", &one)]));
    // As the kubelet writes a ConfigMap: node.yaml -> ..data/node.yaml, ..data -> ..version
    let folder = larder.config_path().parent().unwrap().to_owned();
    let text = fs::read_to_string(larder.config_path()).unwrap();
    fs::remove_file(larder.config_path()).unwrap();
    let publish = |version: &str, text: &str| {
        fs::create_dir(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("node.yaml"), text).unwrap();
        symlink(version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    publish("..one", &text);
    symlink("..data/node.yaml", larder.config_path()).unwrap();
    larder.start().await;
    assert_eq!(larder.get(&tag("one.test")).send().await.status, 200);
    let upstreams = [Upstream::at("one.test", &one), Upstream::at("two.test", &two)];
    publish("..two", &NodeConfig::new(upstreams).text(&larder.folder().join("store")));
    let served = async || larder.get(&tag("two.test")).send().await.status == 200;
    assert!(eventually(10, served).await, "{}", larder.log().text());
}

#[tokio::test]
async fn a_bad_new_configuration_leaves_the_old_one_in_force_and_says_so() {
    let (one, image) = origin(1).await;
    let good = NodeConfig::new([Upstream::at("one.test", &one)]);
    let larder = Larder::with(good.clone()).await;
    let store = larder.folder().join("store");
    let capacity = good.text(&store).replace("\"1Gi\"", "\"much\"");
    for (text, named) in [
        (capacity, "storage.capacity"),
        ("upstreams: [".to_owned(), "YAML"),
        (String::new(), "apiVersion"),
        (good.text(&store).replace("v1alpha1", "v9"), "apiVersion"),
    ] {
        larder.write_config_text(&text);
        let complained = async || {
            larder.metrics().await.sum("larder_node_config_valid", &[]) == 0.0
                && !larder.log().lines_with(named).is_empty()
        };
        assert!(eventually(10, complained).await, "{named}:\n{}", larder.log().text());
        larder.get(&tag("one.test")).send().await.is_whole(&image.index.bytes);
        larder.write_config(&good);
        let again = async || valid(&larder).await > 0.0;
        assert!(eventually(10, again).await, "{named}:\n{}", larder.log().text());
    }
}

#[tokio::test]
async fn a_configuration_that_disappears_leaves_the_old_one_in_force() {
    let (one, image) = origin(1).await;
    let good = NodeConfig::new([Upstream::at("one.test", &one)]);
    let larder = Larder::with(good.clone()).await;
    fs::remove_file(larder.config_path()).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    larder.get(&tag("one.test")).send().await.is_whole(&image.index.bytes);
    assert_eq!(larder.admin("/readyz").send().await.status, 200);
    larder.write_config(&good);
    let again = async || valid(&larder).await > 0.0;
    assert!(eventually(10, again).await, "{}", larder.log().text());
}

#[tokio::test]
async fn one_bad_upstream_is_left_out_and_the_others_stand() {
    for (broken, field) in [
        (Upstream::new("bad.test").set("access", json!({"mode": "Open"})), "access.mode"),
        (
            Upstream::new("bad.test").set("tags", json!({"refreshInterval": "soon"})),
            "refreshInterval",
        ),
        (Upstream::new("bad.test").endpoint("http://reg.example.com"), "endpoints[0].url"),
        (Upstream::new("bad.test").set("credentialsFile", json!("not-there")), "credentialsFile"),
        (Upstream::new("bad.test").set("timeouts", json!({"stall": "20s"})), "timeouts.stall"),
        (
            Upstream::new("bad.test").set("repositories", json!({"deny": ["["]})),
            "repositories.deny",
        ),
    ] {
        let (one, image) = origin(1).await;
        let larder = Larder::serving([broken, Upstream::at("one.test", &one)]).await;
        larder.get(&tag("one.test")).send().await.is_whole(&image.index.bytes);
        let answer = larder.get(&tag("bad.test")).send().await;
        assert!(matches!(answer.status, 404 | 503), "{field}: {}", answer.line());
        let told = larder.log().lines_with(field);
        assert!(told.iter().any(|line| line.contains("bad.test")), "{field}: {told:?}");
        let report = larder.admin("/report").send().await.json();
        assert_eq!(report["upstreams"]["bad.test"]["accepted"], false, "{report:#}");
        let error = report["upstreams"]["bad.test"]["lastError"].as_str().unwrap_or_default();
        assert!(error.contains(field), "{field}: {report:#}");
        assert_eq!(report["upstreams"]["one.test"]["accepted"], true, "{report:#}");
    }
}

#[tokio::test]
async fn a_field_of_a_newer_version_is_a_warning() {
    let (one, image) = origin(1).await;
    let upstream = Upstream::at("one.test", &one).set("peerPolicy", json!("Eager"));
    let larder = Larder::serving([upstream]).await;
    larder.get(&tag("one.test")).send().await.is_whole(&image.index.bytes);
    let told = larder.log().lines_with("upstreams[0].peerPolicy");
    assert!(told.iter().any(|line| line.contains("WARN")), "{told:?}");
}

#[tokio::test]
async fn a_server_does_not_start_on_a_configuration_that_it_cannot_read() {
    let (one, _) = origin(1).await;
    let good = NodeConfig::new([Upstream::at("one.test", &one)]);
    let mut larder = Larder::stopped(&good);
    let text = good.text(&larder.folder().join("store"));
    for (text, named) in [
        (text.replace("\"1Gi\"", "\"much\""), "storage.capacity"),
        (text.replace("NodeConfig", "Something"), "kind"),
        ("a: [b".to_owned(), "YAML"),
    ] {
        larder.write_config_text(&text);
        let failed = larder.try_start().await.expect_err(named);
        assert!(failed.status.is_some_and(|status| !status.success()), "{:?}", failed.status);
        assert!(failed.log.contains(named), "{named}:\n{}", failed.log);
        assert!(!failed.log.contains("panicked"), "{}", failed.log);
    }
    fs::remove_file(larder.config_path()).unwrap();
    let failed = larder.try_start().await.expect_err("without a file");
    assert!(failed.log.contains("node.yaml"), "{}", failed.log);
}

#[tokio::test]
async fn a_running_pull_does_not_notice_a_new_configuration() {
    let one = Origin::start().await;
    let blob = one.blob(APP, 1, 2 << 20);
    let drip = Fault::Drip { from: 0, step: 64 << 10, every: Duration::from_millis(100) };
    one.inject(APP, On::BlobGets, drip, ALWAYS);
    let larder = Larder::serving([Upstream::at("one.test", &one)]).await;
    let path = format!("/v2/{APP}/blobs/{}?ns=one.test", blob.digest);
    let mut reading = larder.get(&path).open().await;
    assert!(reading.reach(1000).await);
    let changed = Upstream::at("one.test", &one).tags(json!({"refreshInterval": "1h"}));
    larder.write_config(&NodeConfig::new([changed, Upstream::at("two.test", &one)]));
    let swapped = async || {
        larder.get("/v2/x/manifests/v1?ns=two.test").send().await.code()
            == Some("MANIFEST_UNKNOWN".to_owned())
    };
    assert!(eventually(10, swapped).await, "{}", larder.log().text());
    reading.finish().await.is_whole(&blob.bytes);
    assert_eq!(one.count("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn a_report_token_closes_the_report_and_the_catalog() {
    let (one, _) = origin(1).await;
    let open = Larder::serving([Upstream::at("one.test", &one)]).await;
    for path in ["/report", "/catalog"] {
        assert_eq!(open.admin(path).send().await.status, 200, "{path}");
    }
    let config = NodeConfig::new([Upstream::at("one.test", &one)]).report_token("canary-report");
    let larder = Larder::with(config).await;
    for path in ["/report", "/catalog"] {
        assert_eq!(larder.admin(path).send().await.status, 401, "{path}");
        let wrong = larder.admin(path).header("Authorization", "Bearer canary-repor");
        assert_eq!(wrong.send().await.status, 401, "{path}");
        let right = larder.admin(path).header("Authorization", "Bearer canary-report");
        assert_eq!(right.send().await.status, 200, "{path}");
    }
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(larder.admin(path).send().await.status, 200, "{path}");
    }
}

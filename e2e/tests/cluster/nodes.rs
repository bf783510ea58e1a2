//! Nodes come, fall silent and go: the status tells, and nothing waits for them.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    cluster::{Cluster, Options, PullPolicy, story},
    containerd::Version,
    image::{APP, Edition, Image},
    sandbox::{Sandbox, Told},
};
use serde_json::Value;

use crate::ground::{self, CACHE, FIRST, HUB_FOLDER, MINUTE};

/// How long the hook of `helm uninstall` waits for a node that is silent.
const GIVES_UP: &str = "uninstall.timeoutSeconds=15";
const GIVES_UP_AFTER: Duration = Duration::from_secs(15);
/// From the start of the hook's pod to the last object of the chart; Helm itself gives up after 120 s.
const TO_REMOVE: Duration = Duration::from_secs(45);
const APP_IMAGE: &str = "docker.io/library/app:1";

#[test]
fn a_node_is_added_one_falls_silent_and_one_goes() -> Told {
    story(Options::default(), async |sandbox, cluster| {
        let image = Image::of(&APP, Edition::First)?;
        cluster.upstreams.push_to_docker_hub("library/app:1", &image).await?;
        cluster.load_larder(FIRST).await?;
        cluster.install(FIRST, &[GIVES_UP]).await?;
        let before = cluster.node("n2")?.snapshot(CONTAINERD)?;
        let others = cluster.node("n1")?.snapshot(CONTAINERD)?;
        config_path_becomes_a_list(cluster).await?;
        ground::apply(cluster).await?;
        let repair = r#"{"spec":{"containerd":{"colonPathRepair":true}}}"#;
        cluster.kubectl(&["patch", "pcache", "default", "--type=merge", "--patch", repair]).await?;
        counts(cluster, 2).await?;
        a_pod_pulls_through_the_list(cluster).await?;
        a_new_node_gets_a_cache(sandbox, cluster).await?;
        a_silent_node_is_named_and_holds_nobody_up(cluster).await?;
        cluster.switch_off("n3").await?;
        cluster.delete(&["node", "n3"]).await?;
        counts(cluster, 2).await?;
        larder_goes_while_a_node_is_silent(cluster).await?;
        let after = cluster.node("n1")?.snapshot(CONTAINERD)?;
        ensure!(after == others, "before: {others:?}\nafter: {after:?}");
        a_node_that_is_back_is_rid_of_it(cluster).await?;
        let node = cluster.node("n2")?;
        fs::write(node.seen(CONFIG), fs::read_to_string(node.seen(CONFIG))?.replace(LIST, ONE))?;
        let after = node.snapshot(CONTAINERD)?;
        ensure!(after == before, "before: {before:?}\nafter: {after:?}");
        Ok(())
    })
}

const CONTAINERD: &str = "/etc/containerd";
const CONFIG: &str = "/etc/containerd/config.toml";
const ONE: &str = "config_path = \"/etc/containerd/certs.d\"";
const LIST: &str = "config_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"";

/// As containerd 2 is configured by default. It reads the list as one name, so nothing that speaks
/// plain HTTP can be pulled until the list leads somewhere.
async fn config_path_becomes_a_list(cluster: &mut Cluster) -> Result<()> {
    let own = cluster.upstreams.own.address();
    let node = cluster.node("n2")?;
    for image in [format!("{own}/pause:1"), format!("{own}/larder:{FIRST}")] {
        node.pull(&image).await?;
    }
    let config = node.seen(CONFIG);
    let text = fs::read_to_string(&config)?;
    ensure!(text.contains(ONE), "another configuration: {text}");
    fs::write(&config, text.replace(ONE, LIST))?;
    cluster.node_mut("n2")?.restart_containerd().await
}

async fn a_pod_pulls_through_the_list(cluster: &Cluster) -> Result<()> {
    let node = cluster.node("n2")?;
    let pod = cluster.pod("n2", APP_IMAGE, PullPolicy::Always).await?;
    cluster.delete_pod(&pod).await?;
    node.remove_image(APP_IMAGE).await?;
    let link = node.seen("/etc/containerd/certs.d:/etc/docker/certs.d");
    ensure!(link.is_symlink(), "the list was not repaired");
    let served = cluster.cache_metrics(node).await?.served("docker.io");
    ensure!(
        served > 0,
        "containerd goes past the cache: {}",
        cluster.kubectl(&["describe", "pcache"]).await?
    );
    Ok(())
}

/// That many nodes are desired, ready, mirrored and reporting.
async fn counts(cluster: &Cluster, nodes: u64) -> Result<()> {
    cluster
        .wait_for(&format!("{nodes} nodes in the status"), MINUTE * 3, async |cluster| {
            let status = status(cluster).await?;
            let counts = &status["nodes"];
            let all = ["desired", "ready", "mirrored", "reporting"].map(|count| &counts[count]);
            Ok(all.iter().all(|count| **count == nodes))
        })
        .await
}

async fn status(cluster: &Cluster) -> Result<Value> {
    Ok(cluster.get(CACHE).await?.context("the ProxyCache is there")?["status"].clone())
}

async fn a_new_node_gets_a_cache(sandbox: &Sandbox, cluster: &mut Cluster) -> Result<()> {
    let name = cluster.add_node(sandbox, Version::V1_7).await?;
    counts(cluster, 3).await?;
    let node = cluster.node(&name)?;
    let pod = cluster.pod(&name, APP_IMAGE, PullPolicy::Always).await?;
    ensure!(!pod.was_told("Failed"), "{:#?}", pod.events);
    cluster.delete_pod(&pod).await?;
    let served = cluster.cache_metrics(node).await?.served("docker.io");
    ensure!(served > 0, "the pod's image did not come through the cache of the new node");
    Ok(())
}

async fn a_silent_node_is_named_and_holds_nobody_up(cluster: &Cluster) -> Result<()> {
    let silent = cluster.node("n2")?;
    silent.disconnect().await?;
    cluster
        .wait_for("the silent node is named", MINUTE, async |cluster| {
            let problems = status(cluster).await?["problemNodes"].clone();
            let mut problems = problems.as_array().into_iter().flatten();
            Ok(problems.any(|problem| {
                problem["name"] == "n2"
                    && (problem["reason"] == "NotReporting" || problem["reason"] == "NotReady")
            }))
        })
        .await?;
    cluster.wait_for_condition(CACHE, ("Degraded", "True", None), MINUTE).await?;
    // A change reaches those that are there. 5 s, on a machine with other things to do.
    cluster.delete(&["ureg", "docker-io"]).await?;
    for name in ["n1", "n3"] {
        let node = cluster.node(name)?;
        let what = format!("the mirror of docker.io on {name} is gone");
        let gone = async |_: &Cluster| Ok(node.mirror_file(HUB_FOLDER).is_none());
        cluster.wait_for(&what, Duration::from_secs(15), gone).await?;
    }
    // As long again as a node that is reached may take.
    tokio::time::sleep(Duration::from_secs(5)).await;
    ensure!(silent.mirror_file(HUB_FOLDER).is_some(), "nobody has told n2, and its mirror is gone");
    silent.connect().await?;
    let followed = async |_: &Cluster| Ok(silent.mirror_file(HUB_FOLDER).is_none());
    cluster.wait_for("the node follows when it is back", MINUTE * 2, followed).await?;
    cluster.apply(&ground::resources(cluster)).await?;
    counts(cluster, 3).await?;
    cluster.wait_for_condition(CACHE, ("Degraded", "False", None), MINUTE * 2).await
}

async fn larder_goes_while_a_node_is_silent(cluster: &Cluster) -> Result<()> {
    let silent = cluster.node("n2")?;
    silent.disconnect().await?;
    // As the scheduler sees it 50 s later: the hook's pod must not be sent there.
    cluster.kubectl(&["cordon", "n2"]).await?;
    let asked = Instant::now();
    cluster.uninstall(&[]).await?;
    let took = asked.elapsed();
    ground::tell(&format!("helm uninstall without a node: {took:.1?}"));
    let bounds = GIVES_UP_AFTER..GIVES_UP_AFTER + TO_REMOVE;
    ensure!(bounds.contains(&took), "helm uninstall took {took:?}");
    ensure!(silent.mirror_file(HUB_FOLDER).is_some(), "nobody has told n2, and its mirror is gone");
    let pods = cluster.cache_pods().await?;
    ensure!(
        pods.iter().all(|pod| pod["spec"]["nodeName"] == "n2"),
        "a cache runs on a node that is not silent: {pods:#?}"
    );
    Ok(())
}

/// Nobody is left to tell it but Kubernetes itself.
async fn a_node_that_is_back_is_rid_of_it(cluster: &Cluster) -> Result<()> {
    cluster.node("n2")?.connect().await?;
    cluster.kubectl(&["uncordon", "n2"]).await?;
    cluster
        .wait_for("the last cache and the ProxyCache are gone", MINUTE * 2, async |cluster| {
            Ok(cluster.cache_pods().await?.is_empty() && cluster.get(CACHE).await?.is_none())
        })
        .await
}

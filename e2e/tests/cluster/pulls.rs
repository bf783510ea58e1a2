//! Helm install, kubectl apply, and pods whose images come through the node caches, whatever goes
//! down and whatever changes meanwhile.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    cluster::{Cluster, NAMESPACE, Node, PodRun, PullPolicy, story},
    image::{APP, Edition, Image},
    registry::Registry,
    sandbox::Told,
};

use crate::{
    ground::{
        self, CACHE, FIRST, HUB_FOLDER, MINUTE, PRIVATE_FOLDER, incarnations,
        until_a_pull_meets_the_gap, while_pods_start,
    },
    operators::{the_other_acts_when_the_leader_dies, they_may_do_no_more_than_they_need},
    own_registry::the_registry_that_larder_comes_from_is_cached_too,
    rights,
};

const HUB_APP: &str = "docker.io/library/app:1";
const PRIVATE_APP: &str = "registry.example:443/team/app:1";
const UPSTREAMS: [&str; 2] = ["docker.io", "registry.example:443"];

/// Somebody else's mirror on the second node, for an upstream that Larder caches too.
const FOREIGN: &str = "# by hand\nserver = \"https://registry.example:443\"\n\n\
                       [host.\"https://mirror.example:5443\"]\n  capabilities = [\"pull\"]\n";

#[test]
fn pods_pull_through_the_node_caches_whatever_happens() -> Told {
    story(rights::options(), async |_, cluster| {
        let image = Image::of(&APP, Edition::First)?;
        cluster.upstreams.push_to_docker_hub("library/app:1", &image).await?;
        cluster.upstreams.push_to_private("team/app:1", &image).await?;
        let foreign = cluster.node("n2")?.seen("/etc/containerd/certs.d/registry.example_443_");
        fs::create_dir(&foreign)?;
        fs::write(foreign.join("hosts.toml"), FOREIGN)?;
        let before = cluster.nodes().iter().map(Node::certs_dir).collect::<Result<Vec<_>>>()?;

        ground::install(cluster).await?;
        cluster.stages().done("helm install");
        ground::apply(cluster).await?;
        cluster.stages().done("a cache on every node");
        a_pod_on_each_node_pulls_through_its_cache(cluster, &image).await?;
        cluster.stages().done("pods through the caches");
        an_image_that_containerd_has_lost_costs_the_upstream_nothing(cluster).await?;
        cluster.stages().done("again from the cache");
        a_tag_that_moves_is_followed(cluster).await?;
        cluster.stages().done("a tag moves");
        pods_start_while_the_upstream_is_down(cluster).await?;
        cluster.stages().done("upstream down");
        mirrors_follow_the_resources(cluster).await?;
        cluster.stages().done("registries come and go");
        the_registry_that_larder_comes_from_is_cached_too(cluster).await?;
        cluster.stages().done("the cluster's own registry");
        they_may_do_no_more_than_they_need(cluster).await?;
        the_other_acts_when_the_leader_dies(cluster).await?;
        cluster.stages().done("the leader dies");
        no_pull_fails_during_an_upgrade(cluster).await?;
        cluster.stages().done("helm upgrade");
        no_pull_fails_whatever_dies(cluster).await?;
        cluster.stages().done("parts die");
        ground::tell(&cluster.kubectl(&["get", "pcache,ureg"]).await?);
        rights::an_event_repeats(cluster).await?;
        let of_the_operator = rights::granted(cluster, "manifest", rights::OPERATOR).await?;
        of_the_operator.are_what_was_used(cluster)?;
        let of_the_hook = rights::granted(cluster, "hooks", rights::HOOK).await?;
        cluster.stages().done("rights");
        cluster.uninstall(&[]).await?;
        of_the_hook.are_what_was_used(cluster)?;
        cluster.stages().done("helm uninstall");
        let after = cluster.nodes().iter().map(Node::certs_dir).collect::<Result<Vec<_>>>()?;
        ensure!(after == before, "before: {before:?}\nafter: {after:?}");
        for node in cluster.nodes() {
            node.remove_image(HUB_APP).await?;
            node.pull(HUB_APP).await.context("after helm uninstall")?;
        }
        ground::tell(&format!("{}", cluster.stages()));
        Ok(())
    })
}

async fn run(cluster: &Cluster, node: &Node, image: &str) -> Result<PodRun> {
    let pod = cluster.pod(node.name(), image, PullPolicy::Always).await?;
    ensure!(!pod.was_told("Failed"), "{}: {:#?}", node.name(), pod.events);
    cluster.delete_pod(&pod).await?;
    Ok(pod)
}

fn registries(cluster: &Cluster) -> [&Registry; 2] {
    [&cluster.upstreams.docker_hub, &cluster.upstreams.private]
}

async fn a_pod_on_each_node_pulls_through_its_cache(
    cluster: &Cluster,
    image: &Image,
) -> Result<()> {
    for node in cluster.nodes() {
        for (reference, upstream) in [HUB_APP, PRIVATE_APP].into_iter().zip(UPSTREAMS) {
            // The second one shares all its blobs with the first, and a busy containerd may not have
            // thrown them away yet: until it asks for them.
            let what = format!("all of {reference} through the cache of {}", node.name());
            cluster
                .wait_for(&what, MINUTE, async |cluster| {
                    let pod = run(cluster, node, reference).await?;
                    let id = &pod.image_id;
                    ensure!(id.contains(&image.index.digest), "another image: {id}");
                    node.remove_image(reference).await?;
                    Ok(cluster.cache_metrics(node).await?.served(upstream) >= image.size())
                })
                .await?;
        }
        let metrics = cluster.cache_metrics(node).await?;
        let fetched: u64 = UPSTREAMS.map(|upstream| metrics.fetched(upstream)).iter().sum();
        // Each byte once from whichever upstream was first, and manifests from both.
        ensure!(fetched < image.size() * 11 / 10, "{}: {fetched} bytes fetched", node.name());
    }
    for registry in registries(cluster) {
        let requests = registry.requests().await?;
        let past: Vec<_> =
            requests.iter().filter(|it| it.user_agent.starts_with("containerd/")).collect();
        ensure!(past.is_empty(), "containerd went past Larder: {past:#?}");
    }
    ground::says(cluster, CACHE, "MirrorEffective", "True").await
}

async fn an_image_that_containerd_has_lost_costs_the_upstream_nothing(
    cluster: &Cluster,
) -> Result<()> {
    let earlier = sent(cluster).await?;
    for node in cluster.nodes() {
        for reference in [HUB_APP, PRIVATE_APP] {
            run(cluster, node, reference).await?;
            node.remove_image(reference).await?;
        }
    }
    let later = sent(cluster).await?;
    ensure!(later == earlier, "{earlier} bytes before, {later} after");
    Ok(())
}

/// Bytes of bodies that both upstreams have sent.
async fn sent(cluster: &Cluster) -> Result<u64> {
    let mut sum = 0;
    for registry in registries(cluster) {
        let requests = registry.requests().await?;
        let bodies = requests.iter().filter(|request| request.method == "GET");
        sum += bodies.map(|request| request.bytes).sum::<u64>();
    }
    Ok(sum)
}

async fn a_tag_that_moves_is_followed(cluster: &Cluster) -> Result<()> {
    let second = Image::of(&APP, Edition::Second)?;
    cluster.upstreams.push_to_private("team/app:1", &second).await?;
    for node in cluster.nodes() {
        let pod = run(cluster, node, PRIVATE_APP).await?;
        let digest = &second.index.digest;
        ensure!(pod.image_id.contains(digest), "{} has {}", node.name(), pod.image_id);
        node.remove_image(PRIVATE_APP).await?;
    }
    Ok(())
}

async fn pods_start_while_the_upstream_is_down(cluster: &mut Cluster) -> Result<()> {
    cluster.upstreams.docker_hub.stop()?;
    cluster.upstreams.private.stop()?;
    for node in cluster.nodes() {
        for reference in [HUB_APP, PRIVATE_APP] {
            run(cluster, node, reference).await.context("while both upstreams are down")?;
            node.remove_image(reference).await?;
        }
    }
    cluster.upstreams.docker_hub.start_again().await?;
    cluster.upstreams.private.start_again().await
}

async fn mirrors_follow_the_resources(cluster: &Cluster) -> Result<()> {
    /// A mirror file follows its resource within 5 s; the machine may have other things to do.
    const SOON: Duration = Duration::from_secs(10);
    let pods = incarnations(cluster).await?;
    let on_all = async |there: bool| {
        let what = format!("quay.io on all nodes: {there}");
        cluster
            .wait_for(&what, SOON, async |cluster| {
                let files = cluster.nodes().iter().map(|node| node.mirror_file("quay.io"));
                Ok(files.into_iter().all(|file| file.is_some() == there))
            })
            .await
    };
    let quay = "apiVersion: larder.dev/v1alpha1\nkind: UpstreamRegistry\n\
                metadata: {name: quay-io}\nspec: {host: quay.io}\n";
    let changed = Instant::now();
    cluster.apply(quay).await?;
    on_all(true).await?;
    let came = changed.elapsed();
    let changed = Instant::now();
    cluster.delete(&["ureg", "quay-io"]).await?;
    on_all(false).await?;
    ground::tell(&format!(
        "in force on all nodes after {came:.1?}, and gone after {:.1?}",
        changed.elapsed()
    ));

    // What is denied is passed by, and containerd asks the upstream itself.
    let deny = |list: &str| format!(r#"{{"spec":{{"repositories":{{"deny":[{list}]}}}}}}"#);
    let patch = async |text: &str| {
        cluster.kubectl(&["patch", "ureg", "docker-io", "--type=merge", "--patch", text]).await
    };
    let answers = async |status: &str| {
        cluster
            .wait_for(&format!("denied repositories answer {status}"), SOON, async |cluster| {
                for node in cluster.nodes() {
                    let url = "http://127.0.0.1:5055/v2/library/app/manifests/1?ns=docker.io";
                    let asked = ["-s", "-o", "/dev/null", "-w", "%{http_code}", url];
                    if node.exec("curl", &asked).await?.stdout != status {
                        return Ok(false);
                    }
                }
                Ok(true)
            })
            .await
    };
    patch(&deny("\"library/app\"")).await?;
    answers("403").await?;
    for node in cluster.nodes() {
        run(cluster, node, HUB_APP).await?;
        node.remove_image(HUB_APP).await?;
    }
    patch(&deny("")).await?;
    answers("200").await?;
    let now = incarnations(cluster).await?;
    ensure!(now == pods, "pods were restarted: {pods:?}, now {now:?}");
    Ok(())
}

async fn no_pull_fails_during_an_upgrade(cluster: &Cluster) -> Result<()> {
    const SECOND: &str = "v2";
    cluster.load_larder(SECOND).await?;
    let pods = while_pods_start(cluster, HUB_APP, async {
        cluster.upgrade(SECOND).await?;
        cluster
            .wait_for("all caches are of the new image", MINUTE * 2, async |cluster| {
                let pods = cluster.cache_pods().await?;
                let new = |pod: &serde_json::Value| {
                    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
                    image.ends_with(&format!(":{SECOND}")) && ground::is_ready(pod)
                };
                Ok(pods.len() == cluster.nodes().len() && pods.iter().all(new))
            })
            .await
    })
    .await?;
    ground::tell(&format!("{pods} pods pulled while Helm replaced {FIRST} by {SECOND}"));
    Ok(())
}

async fn no_pull_fails_whatever_dies(cluster: &mut Cluster) -> Result<()> {
    let everybody_is_back = async |cluster: &Cluster| {
        cluster
            .wait_for("every cache is ready", MINUTE * 2, async |cluster| {
                let pods = cluster.cache_pods().await?;
                let ready = pods.iter().filter(|pod| ground::is_ready(pod)).count();
                Ok(pods.len() == cluster.nodes().len() && ready == pods.len())
            })
            .await
    };
    let namespace = format!("--namespace={NAMESPACE}");
    // Nobody repairs anything that the operator would have to.
    let operator = "deployment/larder-operator";
    cluster.kubectl(&["scale", operator, &namespace, "--replicas=0"]).await?;
    let caches = "--selector=app.kubernetes.io/name=larder-node";
    for force in [&[][..], &["--force", "--grace-period=0"]] {
        until_a_pull_meets_the_gap(cluster, HUB_APP, async || {
            cluster.delete(&[&["pods", &namespace, caches], force].concat()).await?;
            everybody_is_back(cluster).await
        })
        .await
        .with_context(|| format!("while the caches' pods were deleted {force:?}"))?;
    }
    until_a_pull_meets_the_gap(cluster, HUB_APP, async || {
        for node in cluster.nodes() {
            let killed = node.kill_all("larder-node serve").await?;
            ensure!(killed == 1, "{killed} servers on {}", node.name());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        everybody_is_back(cluster).await
    })
    .await
    .context("while the servers were killed")?;
    for name in ["n1", "n2"] {
        let node = cluster.node_mut(name)?;
        node.restart_containerd().await?;
        node.crash_containerd().await?;
        node.restart_kubelet().await?;
        let node = cluster.node(name)?;
        run(cluster, node, HUB_APP).await.context("after containerd and the kubelet came back")?;
        node.remove_image(HUB_APP).await?;
        let files = [HUB_FOLDER, PRIVATE_FOLDER].map(|folder| node.mirror_file(folder));
        ensure!(files.iter().flatten().count() == 2, "the mirrors of {name} are gone");
    }
    cluster.kubectl(&["scale", operator, &namespace, "--replicas=2"]).await?;
    ground::a_change_is_observed(cluster).await?;
    ground::says(cluster, CACHE, "Available", "True").await
}

//! Larder goes in every order in which a person would take it away: nothing hangs, and every node is
//! as it was.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    cluster::{Cluster, NAMESPACE, Node, Options, PullPolicy, story},
    image::{APP, Edition, Image},
    sandbox::Told,
};

use crate::ground::{self, FIRST, MINUTE};

const APP_IMAGE: &str = "docker.io/library/app:1";

/// What a person does to take it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// `kubectl` with those arguments.
    Kubectl(&'static [&'static str]),
    /// `helm uninstall`, which deletes the ProxyCaches first.
    Chart,
    /// `helm uninstall --no-hooks`: the operator is gone, the caches are not.
    ChartWithoutHooks,
}

const CACHE: Step = Step::Kubectl(&["delete", "pcache", "default", "--cascade=foreground"]);
const CACHE_IN_THE_BACKGROUND: Step = Step::Kubectl(&["delete", "pcache", "default"]);
const REGISTRIES: Step = Step::Kubectl(&["delete", "ureg", "--all"]);
const NAMESPACE_ITSELF: Step = Step::Kubectl(&["delete", "namespace", NAMESPACE]);
const DEFINITIONS: Step =
    Step::Kubectl(&["delete", "crd", "proxycaches.larder.dev", "upstreamregistries.larder.dev"]);

/// The first one is the slowest: the garbage collector looks for new kinds every 30 s, and whoever
/// removes a definition that is younger waits for it.
const ORDERS: [&[Step]; 6] = [
    &[Step::Chart, NAMESPACE_ITSELF, DEFINITIONS],
    &[CACHE, REGISTRIES, Step::Chart, DEFINITIONS],
    &[CACHE_IN_THE_BACKGROUND, DEFINITIONS, Step::Chart],
    &[DEFINITIONS, Step::Chart],
    &[NAMESPACE_ITSELF, DEFINITIONS, Step::ChartWithoutHooks],
    &[Step::ChartWithoutHooks, CACHE, DEFINITIONS],
];

/// After the installation: the garbage collector looks every 30 s, and then begins to watch.
const KNOWN: Duration = Duration::from_secs(40);

#[test]
fn whatever_is_removed_first_nothing_hangs_and_nodes_are_as_they_were() -> Told {
    story(Options::default(), async |_, cluster| {
        let image = Image::of(&APP, Edition::First)?;
        cluster.upstreams.push_to_docker_hub("library/app:1", &image).await?;
        cluster.load_larder(FIRST).await?;
        let before = snapshots(cluster)?;
        for order in ORDERS {
            let installed = Instant::now();
            cluster.install(FIRST, &[]).await.with_context(|| format!("before {order:?}"))?;
            ground::apply(cluster).await.with_context(|| format!("before {order:?}"))?;
            // Of an object whose definition went before the garbage collector knew it, all that it
            // owned stays: docs/guide/kubernetes.md says what to do then, and it is not told here.
            if order.contains(&DEFINITIONS) && order.last() == Some(&Step::Chart) {
                tokio::time::sleep(KNOWN.saturating_sub(installed.elapsed())).await;
            }
            let asked = Instant::now();
            for step in order {
                take(cluster, *step).await.with_context(|| format!("{step:?} of {order:?}"))?;
            }
            let removed = asked.elapsed();
            let asked = Instant::now();
            cluster
                .wait_for(&format!("nodes are as they were after {order:?}"), MINUTE, async |it| {
                    Ok(snapshots(it)? == before)
                })
                .await?;
            nothing_is_left(cluster).await.with_context(|| format!("after {order:?}"))?;
            for node in cluster.nodes() {
                let pod = cluster.pod(node.name(), APP_IMAGE, PullPolicy::Always).await?;
                ensure!(!pod.was_told("Failed"), "after {order:?}: {:#?}", pod.events);
                cluster.delete_pod(&pod).await?;
                node.remove_image(APP_IMAGE).await?;
            }
            ground::tell(&format!(
                "{:5.1} s, then {:5.1} s: {order:?}",
                removed.as_secs_f64(),
                asked.elapsed().as_secs_f64()
            ));
        }
        Ok(())
    })
}

fn snapshots(cluster: &Cluster) -> Result<Vec<larder_e2e::snapshot::Snapshot>> {
    cluster.nodes().iter().map(Node::certs_dir).collect()
}

async fn take(cluster: &Cluster, step: Step) -> Result<()> {
    match step {
        Step::Kubectl(arguments) => {
            let bounded = [arguments, &["--timeout=60s"]].concat();
            cluster.kubectl(&bounded).await?;
        }
        Step::Chart => {
            cluster.uninstall(&[]).await?;
        }
        // Without its namespace the release is gone too.
        Step::ChartWithoutHooks => {
            cluster.uninstall(&["--no-hooks", "--ignore-not-found"]).await?;
        }
    }
    Ok(())
}

/// No pod, no DaemonSet, no custom resource.
async fn nothing_is_left(cluster: &Cluster) -> Result<()> {
    cluster
        .wait_for("nothing of Larder runs", MINUTE, async |cluster| {
            Ok(cluster.cache_pods().await?.is_empty())
        })
        .await?;
    for path in ["/apis/apps/v1/daemonsets", "/apis/apps/v1/deployments"] {
        let list = cluster.get(path).await?.unwrap_or_default();
        ensure!(list["items"].as_array().is_some_and(Vec::is_empty), "{path}: {list:#}");
    }
    let definition = cluster.get("/apis/larder.dev/v1alpha1").await?;
    ensure!(definition.is_none(), "the definitions are still served");
    Ok(())
}

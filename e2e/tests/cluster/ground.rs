//! What the stories of a whole Larder start from.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    future::Future,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use larder_e2e::cluster::{Cluster, PullPolicy};
use serde_json::Value;

pub(crate) const MINUTE: Duration = Duration::from_mins(1);
/// The image of the first release.
pub(crate) const FIRST: &str = "v1";

pub(crate) const CACHE: &str = "/apis/larder.dev/v1alpha1/proxycaches/default";

/// Their folders in certs.d.
pub(crate) const HUB_FOLDER: &str = "docker.io";
pub(crate) const PRIVATE_FOLDER: &str = "registry.example_443_";

/// Helm install, as a user does it.
pub(crate) async fn install(cluster: &Cluster) -> Result<()> {
    cluster.load_larder(FIRST).await?;
    let notes = cluster.install(FIRST, &[]).await?;
    ensure!(notes.contains("kubectl apply"), "the notes say what to do next:\n{notes}");
    Ok(())
}

/// Both upstreams and a cache on every node. It is available, and mirrors are written, when this
/// returns.
pub(crate) async fn apply(cluster: &Cluster) -> Result<()> {
    cluster.apply(&resources(cluster)).await?;
    cluster.wait_for_condition(CACHE, ("Available", "True", None), MINUTE * 2).await?;
    for node in cluster.nodes() {
        let what = format!("the mirrors of {}", node.name());
        cluster
            .wait_for(&what, MINUTE, async |_| {
                let files = [HUB_FOLDER, PRIVATE_FOLDER].map(|folder| node.mirror_file(folder));
                Ok(files.iter().flatten().count() == 2)
            })
            .await?;
    }
    Ok(())
}

/// The machine of the test may have little room left, which is not what these stories are about.
pub(crate) fn resources(cluster: &Cluster) -> String {
    let indented = cluster.upstreams.private_ca().replace('\n', "\n        ");
    format!(
        r"apiVersion: larder.dev/v1alpha1
kind: UpstreamRegistry
metadata: {{name: docker-io}}
spec: {{host: docker.io, tags: {{refreshInterval: 60s}}}}
---
apiVersion: larder.dev/v1alpha1
kind: UpstreamRegistry
metadata: {{name: example}}
spec:
  host: registry.example:443
  tls:
    caBundle:
      inline: |
        {indented}
---
apiVersion: larder.dev/v1alpha1
kind: ProxyCache
metadata: {{name: default}}
spec: {{storage: {{capacity: 1Gi, minFree: 100Mi}}}}
"
    )
}

/// A condition of an object, within a minute.
pub(crate) async fn says(cluster: &Cluster, path: &str, kind: &str, status: &str) -> Result<()> {
    cluster.wait_for_condition(path, (kind, status, None), MINUTE).await
}

/// The status is about the newest spec: whatever it said before, it says what it says now of that.
pub(crate) async fn observed(cluster: &Cluster, path: &str) -> Result<()> {
    cluster
        .wait_for(&format!("{path}: the newest spec is observed"), MINUTE, async |cluster| {
            let object = cluster.get(path).await?.with_context(|| format!("no object {path}"))?;
            Ok(object["status"]["observedGeneration"] == object["metadata"]["generation"])
        })
        .await
}

/// A change of the cache's spec is observed: somebody acts, and what the status says is of now.
pub(crate) async fn a_change_is_observed(cluster: &Cluster) -> Result<()> {
    let patch = r#"{"spec":{"storage":{"minFree":"101Mi"}}}"#;
    cluster.kubectl(&["patch", "pcache", "default", "--type=merge", "--patch", patch]).await?;
    observed(cluster, CACHE).await
}

/// Whether the kubelet says that a pod is ready, and nobody has deleted it.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
}

/// Pods of node caches and how often their containers have been started anew.
pub(crate) async fn incarnations(cluster: &Cluster) -> Result<Vec<String>> {
    let pods = cluster.cache_pods().await?;
    let restarts = |pod: &Value| {
        let status = &pod["status"];
        let lists = ["containerStatuses", "initContainerStatuses"];
        let all = lists.iter().flat_map(|list| status[list].as_array().into_iter().flatten());
        all.filter_map(|container| container["restartCount"].as_u64()).sum::<u64>()
    };
    Ok(pods.iter().map(|pod| format!("{} {}", pod["metadata"]["uid"], restarts(pod))).collect())
}

/// Pods on each node at least, while something happens.
const LEAST_PODS: usize = 2;

/// On each node, pod after pod pulls an image that containerd does not have, until something is
/// done, and once more. No pull may fail. Returns how many there were.
pub(crate) async fn while_pods_start(
    cluster: &Cluster,
    image: &str,
    something: impl Future<Output = Result<()>>,
) -> Result<usize> {
    let done = Cell::new(false);
    let something = async {
        let result = something.await;
        done.set(true);
        result
    };
    let pods = cluster.nodes().iter().map(|node| async {
        let mut count = 0;
        loop {
            let last = done.get();
            let pod = cluster.pod(node.name(), image, PullPolicy::Always).await?;
            ensure!(!pod.was_told("Failed"), "{}: {:#?}", node.name(), pod.events);
            cluster.delete_pod(&pod).await?;
            node.remove_image(image).await?;
            count += 1;
            if last && count >= LEAST_PODS {
                return anyhow::Ok(count);
            }
        }
    });
    let ((), counts) = tokio::try_join!(something, try_join_all(pods))?;
    Ok(counts.iter().sum())
}

/// The same, again and again until a pull of each version of containerd has met the gap: it has asked
/// the upstream itself, because nobody listened where its mirror file leads, or there was none.
pub(crate) async fn until_a_pull_meets_the_gap(
    cluster: &Cluster,
    image: &str,
    something: impl AsyncFn() -> Result<()>,
) -> Result<()> {
    /// Measured: the first one does. A container that dies again comes back 10 s later only.
    const TRIES: usize = 5;
    let upstream = &cluster.upstreams.docker_hub;
    let versions: BTreeSet<_> = cluster.nodes().iter().map(|it| it.version().to_string()).collect();
    let earlier = upstream.requests().await?.len();
    for _ in 0..TRIES {
        let pods = while_pods_start(cluster, image, something()).await?;
        let requests = upstream.requests().await?;
        let past: BTreeSet<_> = requests
            .iter()
            .skip(earlier)
            .filter(|request| request.user_agent.starts_with("containerd/"))
            .map(|request| request.user_agent.as_str())
            .collect();
        tell(&format!("{pods} pods pulled; past the caches: {past:?}"));
        if past.len() == versions.len() {
            return Ok(());
        }
    }
    bail!("not every containerd has met the gap in {TRIES} tries")
}

/// A file of the repository.
pub(crate) fn read(path: &str) -> Result<String> {
    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// For a moment definitions are there and their storage is not.
pub(crate) async fn definitions_are_served(cluster: &Cluster) -> Result<()> {
    cluster
        .wait_for("the definitions are served", MINUTE, async |cluster| {
            let listed = cluster.try_kubectl(&["get", "pcache,ureg"]).await?;
            Ok(listed.status.success())
        })
        .await
}

/// Prints what was measured, for whoever reads the log.
pub(crate) fn tell(measured: &str) {
    // safe to ignore: it is printed for people, who may have gone
    let _ = writeln!(io::stdout(), "{measured}");
}

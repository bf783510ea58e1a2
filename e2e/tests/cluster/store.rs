//! The folder of a store goes while its cache runs.

use std::{fs, os::unix::fs::MetadataExt};

use anyhow::{Context, Result, ensure};
use larder_e2e::cluster::{Cluster, NAMESPACE};

use crate::ground::{self, CACHE, MINUTE};

/// `hostPath` of the ProxyCache.
const FOLDER: &str = "/var/lib/larder/store";
/// User of the servers.
const USER: u32 = 50555;

/// Not what is in it, but the folder itself, which is mounted into the pod: what the server has is a
/// folder without a name, in which nothing can be made. Pulls go on, the status says so, and the next
/// pod makes another one.
pub(crate) async fn its_folder_is_deleted(cluster: &Cluster, image: &str) -> Result<()> {
    let node = cluster.node("n1")?;
    let removed = node.exec("rm", &["-rf", FOLDER]).await?;
    ensure!(removed.status.success() && !node.seen(FOLDER).exists(), "{}", removed.stderr);
    ground::while_pods_start(cluster, image, async {
        problem(cluster, Some("DiskFailing")).await?;
        let pod = pod_on(cluster, node.name()).await?;
        let namespace = format!("--namespace={NAMESPACE}");
        cluster.delete(&["pod", &pod, &namespace]).await?;
        problem(cluster, None).await
    })
    .await?;
    let folder = fs::metadata(node.seen(FOLDER)).context("the next pod makes the folder")?;
    ensure!(folder.uid() == USER, "it belongs to {}", folder.uid());
    let blobs = node.seen(FOLDER).join("blobs/sha256");
    ensure!(blobs.exists() && fs::read_dir(blobs)?.next().is_some(), "nothing is kept");
    Ok(())
}

/// What is said of n1, once every cache is ready.
async fn problem(cluster: &Cluster, reason: Option<&str>) -> Result<()> {
    cluster
        .wait_for(&format!("n1 has problem {reason:?}"), MINUTE, async |cluster| {
            let cache = cluster.get(CACHE).await?.context("the ProxyCache is there")?;
            let ready = cluster.cache_pods().await?.iter().all(ground::is_ready);
            let mut problems = cache["status"]["problemNodes"].as_array().into_iter().flatten();
            let found = problems.find(|problem| problem["name"] == "n1");
            let found = found.and_then(|problem| problem["reason"].as_str());
            Ok(ready && cache["status"]["nodes"]["reporting"] == 2 && found == reason)
        })
        .await
}

async fn pod_on(cluster: &Cluster, node: &str) -> Result<String> {
    let pods = cluster.cache_pods().await?;
    let pod = pods.iter().find(|pod| pod["spec"]["nodeName"] == node).context("it has a cache")?;
    Ok(pod["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}

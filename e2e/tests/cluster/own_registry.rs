//! An UpstreamRegistry for the registry that the cluster's own images come from, Larder's among
//! them: the cache must not be needed for starting the cache.

use anyhow::{Context, Result};
use larder_e2e::cluster::{Cluster, NAMESPACE};

use crate::ground::{self, FIRST, MINUTE};

const PATH: &str = "/apis/larder.dev/v1alpha1/upstreamregistries/own";

/// Nodes are as they were when this returns, but for the pod of one cache.
pub(crate) async fn the_registry_that_larder_comes_from_is_cached_too(
    cluster: &Cluster,
) -> Result<()> {
    let own = cluster.upstreams.own.address();
    let registry = format!(
        "apiVersion: larder.dev/v1alpha1\nkind: UpstreamRegistry\nmetadata: {{name: own}}\nspec:\n  \
         host: {own}\n  endpoints: [{{url: 'http://{own}'}}]\n  tls: {{insecure: {{reason: a test network}}}}\n"
    );
    cluster.apply(&registry).await?;
    ground::says(cluster, PATH, "Accepted", "True").await?;
    let node = cluster.node("n1")?;
    let pause = format!("{own}/pause:1");
    cluster
        .wait_for("its images come through the cache", MINUTE, async |cluster| {
            node.remove_image(&pause).await?;
            node.pull(&pause).await?;
            Ok(cluster.cache_metrics(node).await?.served(&own.to_string()) > 0)
        })
        .await?;
    let old = cache_of(cluster, "n1").await?;
    node.remove_image(&format!("{own}/larder:{FIRST}")).await?;
    let namespace = format!("--namespace={NAMESPACE}");
    cluster.delete(&["pod", &old, &namespace]).await?;
    cluster
        .wait_for("the cache comes back without a cache", MINUTE, async |cluster| {
            let pods = cluster.cache_pods().await?;
            let new = |pod: &&serde_json::Value| {
                pod["spec"]["nodeName"] == "n1" && pod["metadata"]["name"] != old.as_str()
            };
            Ok(pods.iter().find(new).is_some_and(ground::is_ready))
        })
        .await?;
    cluster.delete(&["ureg", "own"]).await?;
    Ok(())
}

/// Name of the cache pod of a node.
async fn cache_of(cluster: &Cluster, node: &str) -> Result<String> {
    let pods = cluster.cache_pods().await?;
    let pod = pods.iter().find(|pod| pod["spec"]["nodeName"] == node);
    let name = pod.and_then(|pod| pod["metadata"]["name"].as_str());
    Ok(name.with_context(|| format!("{node} has a cache"))?.to_owned())
}

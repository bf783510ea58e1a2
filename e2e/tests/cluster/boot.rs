//! The cluster itself works, and nothing of it stays.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    cluster::{Cluster, Options, PullPolicy, story},
    image::{APP, Edition, Image},
    sandbox::Told,
};

const DAEMON_SET: &str = r"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: waiters, namespace: default}
spec:
  selector: {matchLabels: {app: waiters}}
  template:
    metadata: {labels: {app: waiters}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: wait, image: '10.77.0.1:5000/pause:1'}]
";

#[test]
fn a_cluster_boots_pulls_from_docker_hub_and_leaves_nothing() -> Told {
    story(Options::default(), async |_, cluster| {
        a_daemon_set_runs_on_both(cluster).await?;
        cluster.stages().done("DaemonSet on both nodes");
        a_pod_on_each_node_pulls_from_docker_hub(cluster).await?;
        cluster.stages().done("a pod on each node from docker.io");
        println!("{}", cluster.stages());
        Ok(())
    })
}

async fn a_daemon_set_runs_on_both(cluster: &Cluster) -> Result<()> {
    cluster.apply(DAEMON_SET).await?;
    let path = "/apis/apps/v1/namespaces/default/daemonsets/waiters";
    cluster
        .wait_for("the DaemonSet is ready", Duration::from_secs(60), async |cluster| {
            let set = cluster.get(path).await?.context("it was created")?;
            Ok(set["status"]["numberReady"] == 2)
        })
        .await
}

async fn a_pod_on_each_node_pulls_from_docker_hub(cluster: &Cluster) -> Result<()> {
    let image = Image::of(&APP, Edition::First)?;
    cluster.upstreams.push_to_docker_hub("library/app:1", &image).await?;
    for node in cluster.nodes() {
        let pod = cluster.pod(node.name(), "docker.io/library/app:1", PullPolicy::Always).await?;
        println!("{pod} on {}", node.version());
        ensure!(pod.image_id.contains(&image.index.digest), "another image: {}", pod.image_id);
        ensure!(pod.was_told("Pulled") && !pod.was_told("Failed"), "{:#?}", pod.events);
        cluster.delete_pod(&pod).await?;
    }
    let requests = cluster.upstreams.docker_hub.requests().await?;
    for blob in image.blobs() {
        let sent = requests.iter().filter(|request| request.sent(&blob.digest)).count();
        ensure!(sent == cluster.nodes().len(), "{} was sent {sent} times", blob.digest);
    }
    Ok(())
}

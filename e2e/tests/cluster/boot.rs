//! The cluster itself works, and nothing of it stays.

use std::{io::ErrorKind, net::TcpStream, time::Duration};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    cluster::{Cluster, Options, PullPolicy, story},
    containerd::Version,
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
        pods_and_services_are_reached(cluster).await?;
        cluster.stages().done("pods, Services and exec");
        let pods = a_pod_on_each_node_pulls_from_docker_hub(cluster).await?;
        cluster.stages().done("a pod on each node from docker.io");
        println!("{}\n{}", pods.join("\n"), cluster.stages());
        Ok(())
    })
}

async fn a_daemon_set_runs_on_both(cluster: &Cluster) -> Result<()> {
    cluster.apply(DAEMON_SET).await?;
    let path = "/apis/apps/v1/namespaces/default/daemonsets/waiters";
    cluster
        .wait_for("the DaemonSet is ready", Duration::from_mins(1), async |cluster| {
            let set = cluster.get(path).await?.context("it was created")?;
            Ok(set["status"]["numberReady"] == 2)
        })
        .await
}

/// From the story and from either node. A pod in which nobody listens refuses: it is there.
async fn pods_and_services_are_reached(cluster: &Cluster) -> Result<()> {
    const LIST: &str = "/api/v1/namespaces/default/pods?labelSelector=app%3Dwaiters";
    let pods = cluster.get(LIST).await?.context("the list of pods")?;
    let pods = pods["items"].as_array().context("a list has items")?;
    ensure!(pods.len() == 2, "{} pods", pods.len());
    for pod in pods {
        let address = pod["status"]["podIP"].as_str().context("a pod has an address")?;
        let refused = TcpStream::connect((address, 1)).map_err(|error| error.kind());
        let kind = refused.err().context("somebody listens in a pod")?;
        ensure!(kind == ErrorKind::ConnectionRefused, "{address} from the story: {kind}");
        let name = pod["metadata"]["name"].as_str().context("a pod has a name")?;
        cluster.kubectl(&["exec", name, "--", "/wait", "done"]).await?;
        for node in cluster.nodes() {
            let connect = format!("timeout 5 bash -c '</dev/tcp/{address}/1'");
            let refused = node.exec("bash", &["-c", &connect]).await?.stderr;
            ensure!(refused.contains("refused"), "{address} from {}: {refused}", node.name());
        }
    }
    for node in cluster.nodes() {
        let service = node.exec("bash", &["-c", "timeout 5 bash -c '</dev/tcp/10.96.0.1/443'"]);
        let service = service.await?;
        ensure!(service.status.success(), "10.96.0.1 from {}: {}", node.name(), service.stderr);
    }
    Ok(())
}

/// Returns how long each took, to be printed.
async fn a_pod_on_each_node_pulls_from_docker_hub(cluster: &Cluster) -> Result<Vec<String>> {
    let mut told = Vec::new();
    let image = Image::of(&APP, Edition::First)?;
    cluster.upstreams.push_to_docker_hub("library/app:1", &image).await?;
    for node in cluster.nodes() {
        let pod = cluster.pod(node.name(), "docker.io/library/app:1", PullPolicy::Always).await?;
        told.push(format!("{pod} on {}", node.version()));
        ensure!(pod.image_id.contains(&image.index.digest), "another image: {}", pod.image_id);
        ensure!(pod.was_told("Pulled") && !pod.was_told("Failed"), "{:#?}", pod.events);
        cluster.delete_pod(&pod).await?;
    }
    let requests = cluster.upstreams.docker_hub.requests().await?;
    for blob in image.blobs() {
        let sent = requests.iter().filter(|request| request.sent(&blob.digest)).count();
        ensure!(sent == cluster.nodes().len(), "{} was sent {sent} times", blob.digest);
    }
    Ok(told)
}

#[test]
fn a_story_that_panics_is_told_with_what_the_cluster_says_and_leaves_nothing() {
    let options = Options { nodes: vec![Version::V2_4], ..Options::default() };
    let told = story(options, async |_, cluster| {
        cluster.create_pod("n1", "docker.io/library/missing:1", PullPolicy::Always).await?;
        panic!("the reason");
    });
    let failure = format!("{:?}", told.expect_err("it panics"));
    for part in ["the reason", "--- kubectl get nodes,pods", "pod-1", "kubelet.log", "etcd.log"] {
        assert!(failure.contains(part), "no {part} in:\n{failure}");
    }
    // What `Cluster::stop` has to say would be told last.
    assert!(!failure.contains("and then:"), "{failure}");
}

//! What a story can do to a cluster: each part goes and comes back on its own.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    cluster::{Cluster, Options, PullPolicy, story},
    containerd::Version,
    image::{
        APP, Edition, Image,
        static_image::{self, Contents},
        waiting_program,
    },
    sandbox::{Sandbox, Told},
};

#[test]
fn every_part_goes_and_comes_back_on_its_own() -> Told {
    story(Options::default(), async |sandbox, cluster| {
        an_image_of_static_programs_runs_on_both(sandbox, cluster).await?;
        only_a_private_registry_is_not_trusted(cluster).await?;
        an_upstream_stops_and_comes_back(cluster).await?;
        a_pod_outlives_containerd_and_kubelet(cluster).await?;
        the_api_server_comes_back(cluster).await?;
        a_foreign_file_shows_in_the_snapshot(cluster)?;
        a_node_comes_is_cut_off_and_goes(sandbox, cluster).await
    })
}

async fn an_image_of_static_programs_runs_on_both(
    sandbox: &Sandbox,
    cluster: &Cluster,
) -> Result<()> {
    let folder = sandbox.folder("static")?;
    let program = folder.join("waiter");
    fs::write(&program, waiting_program()?)?;
    let layout = folder.join("layout");
    let ca_bundle = "/etc/ssl/certs/ca-certificates.crt".into();
    let digest = static_image::write(&layout, &Contents { binaries: vec![program], ca_bundle })?;
    let source = format!("oci:{}:{}", layout.display(), static_image::TAG);
    let image = cluster.load_image(&source, "waiter:1").await?;
    for node in cluster.nodes() {
        let pod = cluster.pod(node.name(), &image, PullPolicy::IfNotPresent).await?;
        ensure!(pod.image_id.contains(&digest), "{} is not {digest}", pod.image_id);
    }
    Ok(())
}

async fn only_a_private_registry_is_not_trusted(cluster: &Cluster) -> Result<()> {
    let image = Image::of(&APP, Edition::First)?;
    cluster.upstreams.push_to_private("team/app:1", &image).await?;
    cluster.upstreams.push_to_docker_hub("library/app:1", &image).await?;
    for node in cluster.nodes() {
        let refused = node.pull("registry.example:443/team/app:1").await;
        let refused = format!("{:#}", refused.err().context("a strange certificate is trusted")?);
        ensure!(refused.contains("unknown authority"), "another error: {refused}");
        node.pull("docker.io/library/app:1").await?;
    }
    Ok(())
}

async fn an_upstream_stops_and_comes_back(cluster: &mut Cluster) -> Result<()> {
    cluster.upstreams.docker_hub.stop()?;
    let node = cluster.node("n2")?;
    node.remove_image("docker.io/library/app:1").await?;
    let refused = node.pull("docker.io/library/app:1").await;
    let refused = format!("{:#}", refused.err().context("a stopped registry answers")?);
    ensure!(refused.contains("refused"), "another error: {refused}");
    cluster.upstreams.docker_hub.start_again().await?;
    cluster.node("n2")?.pull("docker.io/library/app:1").await
}

async fn a_pod_outlives_containerd_and_kubelet(cluster: &mut Cluster) -> Result<()> {
    for name in ["n1", "n2"] {
        let pod = cluster.pod(name, "docker.io/library/app:1", PullPolicy::IfNotPresent).await?;
        let before = container(cluster, &pod.name).await?;
        let node = cluster.node_mut(name)?;
        node.restart_containerd().await?;
        node.crash_containerd().await?;
        node.restart_kubelet().await?;
        // The kubelet works again when another pod runs.
        cluster.pod(name, "docker.io/library/app:1", PullPolicy::Always).await?;
        let after = container(cluster, &pod.name).await?;
        ensure!(before == after, "the container of {name} was replaced: {before}, {after}");
    }
    Ok(())
}

/// The id of the pod's running container.
async fn container(cluster: &Cluster, pod: &str) -> Result<String> {
    let path = format!("/api/v1/namespaces/default/pods/{pod}");
    let pod = cluster.get(&path).await?.context("the pod is there")?;
    let status = &pod["status"]["containerStatuses"][0];
    ensure!(status["state"]["running"].is_object(), "not running: {status:#}");
    Ok(status["containerID"].as_str().context("a container has an id")?.to_owned())
}

async fn the_api_server_comes_back(cluster: &mut Cluster) -> Result<()> {
    cluster.stop_api_server()?;
    let refused = cluster.try_kubectl(&["get", "nodes"]).await?;
    ensure!(!refused.status.success(), "a dead API server answers: {}", refused.stdout);
    cluster.start_api_server().await?;
    let nodes = cluster.kubectl(&["get", "nodes", "--output=name"]).await?;
    ensure!(nodes == "node/n1\nnode/n2\n", "{nodes}");
    Ok(())
}

fn a_foreign_file_shows_in_the_snapshot(cluster: &Cluster) -> Result<()> {
    let node = cluster.node("n1")?;
    let before = node.certs_dir()?;
    let folder = node.seen("/etc/containerd/certs.d/quay.io");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("hosts.toml"), "server = \"https://quay.io\"\n")?;
    let with = node.certs_dir()?;
    ensure!(with != before && with.file("quay.io/hosts.toml").is_some(), "not seen:\n{with}");
    fs::remove_dir_all(&folder)?;
    let after = node.certs_dir()?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

async fn a_node_comes_is_cut_off_and_goes(sandbox: &Sandbox, cluster: &mut Cluster) -> Result<()> {
    let name = cluster.add_node(sandbox, Version::V1_7).await?;
    ensure!(name == "n3", "{name}");
    let pod = cluster.pod(&name, "docker.io/library/app:1", PullPolicy::Always).await?;
    ensure!(pod.was_told("Pulled"), "{:#?}", pod.events);
    let node = cluster.node(&name)?;
    node.disconnect().await?;
    ensure!(
        !reaches_api_server(cluster, &name).await?,
        "a node without a cable reaches the API server"
    );
    cluster.node(&name)?.connect().await?;
    let path = "/api/v1/nodes/n3";
    cluster
        .wait_for("the node reaches it again", Duration::from_secs(10), async |cluster| {
            reaches_api_server(cluster, "n3").await
        })
        .await?;
    cluster.switch_off(&name).await?;
    ensure!(cluster.get(path).await?.is_some(), "nobody has told the API server");
    cluster.delete(&["node", &name]).await?;
    ensure!(cluster.get(path).await?.is_none(), "the node is deleted");
    Ok(())
}

/// Whether the node reaches the API server.
async fn reaches_api_server(cluster: &Cluster, node: &str) -> Result<bool> {
    let node = cluster.node(node)?;
    let asked = node.exec("bash", &["-c", "timeout 1 bash -c '</dev/tcp/10.77.0.1/6443'"]).await?;
    Ok(asked.status.success())
}

//! The operator against a real API server: the definitions are taken, the examples are, and an
//! object becomes a DaemonSet, a configuration and a status.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    cluster::{Cluster, NAMESPACE, Options, story},
    process::{self, Daemon},
    sandbox::{Sandbox, Told},
    tools,
};

use crate::{
    conditions::what_is_wrong_is_a_condition,
    ground::{self, CACHE, MINUTE},
    rules::every_rule_is_kept,
    turns_bad::what_turns_bad_stays_as_it_was,
};

const HUB: &str = "/apis/larder.dev/v1alpha1/upstreamregistries/docker-io";
const CONFIG: &str = "/api/v1/namespaces/larder/configmaps/larder-default";

#[test]
fn definitions_and_examples_are_taken_and_an_operator_makes_a_cache_of_them() -> Told {
    story(Options::default(), async |sandbox, cluster| {
        for name in ["proxycaches", "upstreamregistries"] {
            cluster.apply(&ground::read(&format!("crds/yaml/{name}.yaml"))?).await?;
        }
        cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
        ground::definitions_are_served(cluster).await?;
        examples_are_taken(cluster).await?;
        every_rule_is_kept(cluster).await?;
        let mut operator = start_operator(sandbox, cluster, "one")?;
        an_operator_makes_a_cache(cluster).await?;
        operator.check_running()?;
        // It gives the lease back: another one need not wait for its end.
        ensure!(operator.terminate(Duration::from_secs(10)).await?.success(), "SIGTERM fails it");
        let log = fs::read_to_string(sandbox.folder("one")?.join("operator.log"))?;
        ensure!(log.contains("gave the lease back"), "it keeps the lease:\n{log}");
        let mut operator = start_operator(sandbox, cluster, "another")?;
        a_change_reaches_the_configuration(cluster).await?;
        what_is_wrong_is_a_condition(cluster).await?;
        what_turns_bad_stays_as_it_was(cluster).await?;
        cluster
            .kubectl(&["delete", "pcache", "--all", "--cascade=foreground", "--timeout=60s"])
            .await?;
        let sets = cluster.get("/apis/apps/v1/namespaces/larder/daemonsets").await?;
        ensure!(
            sets.is_some_and(|list| list["items"] == serde_json::json!([])),
            "a DaemonSet is left"
        );
        operator.check_running()
    })
}

async fn examples_are_taken(cluster: &Cluster) -> Result<()> {
    const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples");
    for entry in fs::read_dir(Path::new(EXAMPLES))? {
        let path = entry?.path();
        let path = path.to_string_lossy();
        let applied = cluster.try_kubectl(&["apply", "--dry-run=server", "-f", &path]).await?;
        let errors = applied.stderr;
        ensure!(applied.status.success() && errors.is_empty(), "{path}: {errors}");
    }
    Ok(())
}

fn start_operator(sandbox: &Sandbox, cluster: &Cluster, name: &str) -> Result<Daemon> {
    let folder = sandbox.folder(name)?;
    let mut command = process::command(&tools::larder_operator()?, &folder);
    command
        .args(["run", "--namespace", NAMESPACE, "--node-image", "10.77.0.1:5000/pause:1"])
        .args(["--admin", "127.0.0.1:8080", "--identity", name])
        .env("KUBECONFIG", cluster.kubeconfig());
    let log = folder.join("operator.log");
    Daemon::start("the operator", command, &log, &log)
}

async fn an_operator_makes_a_cache(cluster: &Cluster) -> Result<()> {
    cluster.apply(&ground::read("docs/examples/proxy-cache.yaml")?).await?;
    cluster.apply(&ground::read("docs/examples/common-registries.yaml")?).await?;
    for path in [CACHE, HUB] {
        let accepted = ("Accepted", "True", Some("Accepted"));
        cluster.wait_for_condition(path, accepted, MINUTE).await?;
    }
    let set = "/apis/apps/v1/namespaces/larder/daemonsets/larder-default";
    cluster
        .wait_for("a pod is meant for each node", MINUTE, async |cluster| {
            let set = cluster.get(set).await?;
            Ok(set.is_some_and(|set| set["status"]["desiredNumberScheduled"] == 2))
        })
        .await?;
    let printed = cluster.kubectl(&["get", "pcache,ureg"]).await?;
    for column in ["AVAILABLE", "HIT RATE", "REACHABLE", "registry.k8s.io"] {
        ensure!(printed.contains(column), "kubectl get prints no {column}:\n{printed}");
    }
    Ok(())
}

async fn a_change_reaches_the_configuration(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["delete", "ureg", "nvcr-io"]).await?;
    cluster
        .wait_for("the registry is gone from the configuration", MINUTE, async |cluster| {
            let config = cluster.get(CONFIG).await?.context("the configuration is there")?;
            let text = config["data"]["node.yaml"].as_str().unwrap_or_default();
            Ok(!text.contains("nvcr.io") && text.contains("docker.io"))
        })
        .await
}

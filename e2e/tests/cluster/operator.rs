//! The operator against a real API server: the definitions are taken, the examples are, and an
//! object becomes a DaemonSet, a configuration and a status.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    cluster::{Cluster, Options, story},
    process::{self, Daemon},
    sandbox::{Sandbox, Told},
    tools,
};
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const MINUTE: Duration = Duration::from_mins(1);

#[test]
#[ignore = "a command of its own: make cluster"]
fn definitions_and_examples_are_taken_and_an_operator_makes_a_cache_of_them() -> Told {
    story(Options::default(), async |sandbox, cluster| {
        for name in ["proxycaches", "upstreamregistries"] {
            cluster.apply(&read(&format!("crds/yaml/{name}.yaml"))?).await?;
        }
        cluster.kubectl(&["create", "namespace", "larder"]).await?;
        cluster
            .wait_for("the definitions are served", MINUTE, async |cluster| {
                // For a moment they are there and their storage is not.
                let listed = cluster.try_kubectl(&["get", "pcache,ureg"]).await?;
                Ok(listed.status.success())
            })
            .await?;
        examples_are_taken(cluster).await?;
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

fn read(path: &str) -> Result<String> {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

async fn examples_are_taken(cluster: &Cluster) -> Result<()> {
    for entry in fs::read_dir(Path::new(ROOT).join("docs/examples"))? {
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
        .args(["run", "--namespace", "larder", "--node-image", "10.77.0.1:5000/pause:1"])
        .args(["--admin", "127.0.0.1:8080", "--identity", name])
        .env("KUBECONFIG", cluster.kubeconfig());
    let log = folder.join("operator.log");
    Daemon::start("the operator", command, &log, &log)
}

async fn condition(cluster: &Cluster, path: &str, kind: &str) -> Result<Option<Value>> {
    let object = cluster.get(path).await?.context("the object is there")?;
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    Ok(conditions.into_iter().find(|condition| condition["type"] == kind))
}

async fn says(cluster: &Cluster, path: &str, kind: &str, status: &str, reason: &str) -> Result<()> {
    let what = format!("{path}: {kind} is {status}, {reason}");
    cluster
        .wait_for(&what, MINUTE, async |cluster| {
            let found = condition(cluster, path, kind).await?;
            Ok(found.is_some_and(|found| found["status"] == status && found["reason"] == reason))
        })
        .await
}

const CACHE: &str = "/apis/larder.dev/v1alpha1/proxycaches/default";
const HUB: &str = "/apis/larder.dev/v1alpha1/upstreamregistries/docker-io";
const CONFIG: &str = "/api/v1/namespaces/larder/configmaps/larder-default";

async fn an_operator_makes_a_cache(cluster: &Cluster) -> Result<()> {
    cluster.apply(&read("docs/examples/proxy-cache.yaml")?).await?;
    cluster.apply(&read("docs/examples/common-registries.yaml")?).await?;
    says(cluster, CACHE, "Accepted", "True", "Accepted").await?;
    says(cluster, HUB, "Accepted", "True", "Accepted").await?;
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

async fn what_is_wrong_is_a_condition(cluster: &Cluster) -> Result<()> {
    cluster
        .apply(
            "apiVersion: larder.dev/v1alpha1\nkind: UpstreamRegistry\nmetadata: {name: twin}\n\
             spec: {host: docker.io}\n---\n\
             apiVersion: larder.dev/v1alpha1\nkind: UpstreamRegistry\nmetadata: {name: secretive}\n\
             spec: {host: reg.example.com, credentials: {secretName: missing}}\n---\n\
             apiVersion: larder.dev/v1alpha1\nkind: ProxyCache\nmetadata: {name: second}\nspec: {}\n",
        )
        .await?;
    let at = |plural: &str, name: &str| format!("/apis/larder.dev/v1alpha1/{plural}/{name}");
    says(cluster, &at("upstreamregistries", "twin"), "Accepted", "False", "HostTaken").await?;
    says(cluster, &at("upstreamregistries", "secretive"), "Accepted", "False", "SecretNotFound")
        .await?;
    says(cluster, &at("proxycaches", "second"), "Accepted", "False", "NodesTaken").await?;
    // What the API server itself refuses.
    for (spec, wanted) in [
        ("{host: docker.io/library}", "spec.host"),
        ("{host: x.example, endpoints: [{url: 'https://user:pw@x.example'}]}", "credentials"),
        ("{host: x.example, access: {mode: Shared}}", "repositories"),
        ("{host: x.example, timeouts: {stall: 11s}}", "spec.timeouts.stall"),
    ] {
        let object = format!(
            "apiVersion: larder.dev/v1alpha1\nkind: UpstreamRegistry\nmetadata: {{name: bad}}\nspec: {spec}\n"
        );
        let refused = cluster.try_apply(&object).await?;
        let errors = refused.stderr;
        ensure!(!refused.status.success() && errors.contains(wanted), "{spec}: {errors}");
    }
    Ok(())
}

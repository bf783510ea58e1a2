//! Two operators: what they may do, and what happens when the one that acts dies.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use larder_e2e::cluster::{Cluster, NAMESPACE};
use serde_json::Value;

use crate::ground::{self, MINUTE};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/larder/leases/larder-operator";
const ACCOUNT: &str = "--as=system:serviceaccount:larder:larder-operator";
/// A leader that dies is waited for 10 s (formats.md 9); then its work is done within 5 s.
const TAKEN_OVER: Duration = Duration::from_secs(15);

/// What the stories have shown to be enough, and what must not be in it.
pub(crate) async fn they_may_do_no_more_than_they_need(cluster: &Cluster) -> Result<()> {
    let inside = format!("--namespace={NAMESPACE}");
    for (allowed, verb, resource, namespace) in [
        (true, "list", "secrets", inside.as_str()),
        (true, "patch", "daemonsets.apps", &inside),
        (true, "patch", "proxycaches.larder.dev --subresource=status", "--all-namespaces"),
        (false, "delete", "secrets", &inside),
        (false, "get", "secrets", "--namespace=default"),
        (false, "list", "secrets", "--all-namespaces"),
        (false, "patch", "proxycaches.larder.dev", "--all-namespaces"),
        (false, "delete", "upstreamregistries.larder.dev", "--all-namespaces"),
        (false, "create", "pods", &inside),
        (false, "create", "pods --subresource=exec", &inside),
        (false, "get", "nodes --subresource=proxy", "--all-namespaces"),
        (false, "patch", "nodes", "--all-namespaces"),
        (false, "create", "clusterrolebindings.rbac.authorization.k8s.io", "--all-namespaces"),
        (false, "*", "*", "--all-namespaces"),
    ] {
        let mut question = vec!["auth", "can-i", verb];
        question.extend(resource.split(' '));
        question.extend([namespace, ACCOUNT]);
        let answer = cluster.try_kubectl(&question).await?.stdout;
        let may = answer.trim() == "yes";
        ensure!(may == allowed, "{verb} {resource} {namespace}: {answer}");
    }
    Ok(())
}

/// kill -9 of the leader, whose kubelet is stopped before: its pod cannot come back, so whoever acts
/// then is the other one.
pub(crate) async fn the_other_acts_when_the_leader_dies(cluster: &mut Cluster) -> Result<()> {
    let before = operators(cluster).await?;
    let leader = holder(cluster).await?;
    let name = node_of(&before, &leader)?;
    let (other, safe) = before
        .iter()
        .find(|(_, node)| *node != name)
        .with_context(|| format!("both operators are on {name}: {before:?}"))?;
    let node = cluster.node_mut(&name)?;
    node.stop_kubelet().await?;
    let killed = node.kill_all("larder-operator run").await?;
    let died = Instant::now();
    ensure!(killed > 0, "no operator ran on {name}");
    let quay = "apiVersion: larder.dev/v1alpha1\nkind: UpstreamRegistry\n\
                metadata: {name: quay-io}\nspec: {host: quay.io}\n";
    cluster.apply(quay).await?;
    let in_force = async |cluster: &Cluster| {
        Ok(cluster.node(safe)?.mirror_file("quay.io").is_some() && holder(cluster).await? == *other)
    };
    cluster.wait_for("the other one acts", TAKEN_OVER, in_force).await?;
    ground::tell(&format!("in force {:.1?} after the death of the leader", died.elapsed()));
    cluster.node_mut(&name)?.start_kubelet()?;
    cluster
        .wait_for("the dead one is back, and its node follows", MINUTE, async |cluster| {
            let restarted = restarts(cluster, &leader).await?.is_some_and(|count| count > 0);
            Ok(restarted && cluster.node(&name)?.mirror_file("quay.io").is_some())
        })
        .await?;
    let leads = holder(cluster).await?;
    ensure!(leads == *other, "the lease went from {other} to {leads}");
    cluster.delete(&["ureg", "quay-io"]).await?;
    cluster
        .wait_for("the registry is gone from every node", TAKEN_OVER, async |cluster| {
            Ok(cluster.nodes().iter().all(|node| node.mirror_file("quay.io").is_none()))
        })
        .await
}

/// Names of the operators' pods, and their nodes.
async fn operators(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let path = format!(
        "/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io%2Fname%3Dlarder-operator"
    );
    let list = cluster.get(&path).await?.context("the list of pods")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = list["items"].as_array().into_iter().flatten();
    Ok(pods.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]))).collect())
}

fn node_of(operators: &[(String, String)], pod: &str) -> Result<String> {
    let found = operators.iter().find(|(name, _)| name == pod);
    Ok(found.with_context(|| format!("{pod} leads, and there are {operators:?}"))?.1.clone())
}

/// How often the container of a pod was started anew, if the pod is ready.
async fn restarts(cluster: &Cluster, pod: &str) -> Result<Option<u64>> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}");
    let pod = cluster.get(&path).await?.context("the pod is there")?;
    let count = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    Ok(count.filter(|_| ground::is_ready(&pod)))
}

async fn holder(cluster: &Cluster) -> Result<String> {
    let lease = cluster.get(LEASE).await?.context("there is a lease")?;
    Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
}

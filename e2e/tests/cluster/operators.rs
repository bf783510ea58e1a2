//! Two operators: what they may do, and what happens when the one that acts dies.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use larder_e2e::cluster::{Cluster, NAMESPACE};

use crate::ground;

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

/// kill -9 of the leader. Whether its pod comes back in time or the other one takes over: somebody
/// acts.
pub(crate) async fn the_other_acts_when_the_leader_dies(cluster: &Cluster) -> Result<()> {
    let leader = leader(cluster).await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{leader}");
    let pod = cluster.get(&path).await?.context("the leader is a pod")?;
    let node = pod["spec"]["nodeName"].as_str().context("it runs somewhere")?;
    let node = cluster.node(node)?;
    let killed = node.kill_all("larder-operator run").await?;
    ensure!(killed > 0, "no operator ran on {}", node.name());
    let died = Instant::now();
    let quay = "apiVersion: larder.dev/v1alpha1\nkind: UpstreamRegistry\n\
                metadata: {name: quay-io}\nspec: {host: quay.io}\n";
    cluster.apply(quay).await?;
    cluster
        .wait_for("somebody acts", TAKEN_OVER, async |cluster| {
            Ok(cluster.nodes().iter().all(|node| node.mirror_file("quay.io").is_some()))
        })
        .await?;
    ground::tell(&format!("in force {:.1?} after the death of the leader", died.elapsed()));
    cluster.delete(&["ureg", "quay-io"]).await?;
    Ok(())
}

async fn leader(cluster: &Cluster) -> Result<String> {
    let lease = cluster.get(LEASE).await?.context("there is a lease")?;
    Ok(lease["spec"]["holderIdentity"].as_str().context("somebody holds it")?.to_owned())
}

//! A ProxyCache that was good and turns bad: a condition says so, and what was in force stays in
//! force. Mended, it is in force again.

use anyhow::{Context, Result, ensure};
use larder_crds::resources::CacheReason;
use larder_e2e::cluster::Cluster;
use serde_json::{Value, json};

use crate::ground::{self, CACHE, MINUTE};

const CONFIG: &str = "/api/v1/namespaces/larder/configmaps/larder-default";
const SET: &str = "/apis/apps/v1/namespaces/larder/daemonsets/larder-default";

/// A change of the spec, what is said about it, what the message must name, and what mends it.
struct Turn {
    bad: &'static str,
    says: CacheReason,
    message: &'static str,
    mended: &'static str,
}

const TURNS: [Turn; 3] = [
    Turn {
        bad: r#"{"upstreams": {"selector": {"matchExpressions": [{"key": "a", "operator": "Maybe"}]}}}"#,
        says: CacheReason::InvalidSpec,
        message: "spec.upstreams.selector",
        mended: r#"{"upstreams": null}"#,
    },
    Turn {
        bad: r#"{"upstreams": {"names": ["nobody"]}}"#,
        says: CacheReason::UpstreamNotFound,
        message: "nobody",
        mended: r#"{"upstreams": null}"#,
    },
    // The API server knows, and no rule of the definition.
    Turn {
        bad: r#"{"pod": {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Mi"}}}}"#,
        says: CacheReason::ApplyFailed,
        message: "memory limit",
        mended: r#"{"pod": {"resources": null}}"#,
    },
];

/// What is met here besides the reasons of [`conditions`](crate::conditions).
pub(crate) fn reasons() -> Vec<CacheReason> {
    let mut reasons: Vec<_> = TURNS.iter().map(|turn| turn.says).collect();
    reasons.push(CacheReason::ConfigTooLarge);
    reasons
}

/// Needs an operator and a ProxyCache `default` that is accepted.
pub(crate) async fn what_turns_bad_stays_as_it_was(cluster: &Cluster) -> Result<()> {
    let good = in_force(cluster).await?;
    for Turn { bad, says, message, mended } in &TURNS {
        change(cluster, bad).await?;
        stays(cluster, &good, *says, message).await.with_context(|| format!("after {bad}"))?;
        change(cluster, mended).await?;
        accepted(cluster).await.with_context(|| format!("after {mended}"))?;
    }
    too_large(cluster, &good).await
}

/// 18 bundles of 61 kB are more than an object may hold. They are chosen when all are there: of those
/// that come one by one the first ones fit.
async fn too_large(cluster: &Cluster, good: &[Value]) -> Result<()> {
    let authority = cluster.upstreams.private_ca();
    let bundle = authority.repeat(61_000 / authority.len());
    let registries: Vec<_> = (0..18)
        .map(|number| {
            json!({
                "apiVersion": "larder.dev/v1alpha1",
                "kind": "UpstreamRegistry",
                "metadata": {"name": format!("large-{number}"), "labels": {"size": "large"}},
                "spec": {
                    "host": format!("large-{number}.example"),
                    "tls": {"caBundle": {"inline": bundle}},
                },
            })
        })
        .collect();
    let others = r#"{"upstreams": {"selector": {"matchExpressions": [{"key": "size", "operator": "DoesNotExist"}]}}}"#;
    change(cluster, others).await?;
    ground::observed(cluster, CACHE).await?;
    cluster
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": registries}).to_string())
        .await?;
    change(cluster, r#"{"upstreams": null}"#).await?;
    stays(cluster, good, CacheReason::ConfigTooLarge, "fewer UpstreamRegistries").await?;
    cluster.delete(&["ureg", "--selector=size=large"]).await?;
    accepted(cluster).await
}

async fn change(cluster: &Cluster, spec: &str) -> Result<()> {
    let patch = format!(r#"{{"spec": {spec}}}"#);
    cluster.kubectl(&["patch", "pcache", "default", "--type=merge", "--patch", &patch]).await?;
    Ok(())
}

/// The configuration and the pods, as the operator has told them to be.
async fn in_force(cluster: &Cluster) -> Result<Vec<Value>> {
    let config = cluster.get(CONFIG).await?.context("the configuration is there")?;
    let set = cluster.get(SET).await?.context("the DaemonSet is there")?;
    Ok(vec![config["data"].clone(), set["spec"].clone()])
}

async fn stays(cluster: &Cluster, good: &[Value], says: CacheReason, message: &str) -> Result<()> {
    cluster.wait_for_condition(CACHE, ("Accepted", "False", Some(says.as_str())), MINUTE).await?;
    let condition = cluster.condition(CACHE, "Accepted").await?.context("it was there")?;
    let text = condition["message"].as_str().unwrap_or_default();
    ensure!(text.contains(message), "the message does not name {message:?}: {text}");
    let now = in_force(cluster).await?;
    ensure!(now == good, "in force: {good:?}, now {now:?}");
    Ok(())
}

async fn accepted(cluster: &Cluster) -> Result<()> {
    cluster.wait_for_condition(CACHE, ("Accepted", "True", None), MINUTE).await
}

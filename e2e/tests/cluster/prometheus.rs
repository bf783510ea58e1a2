//! A real Prometheus scrapes operators and node caches, and has everything that the alerts and the
//! dashboard ask for.

use std::{fmt::Write, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    cluster::{Cluster, NAMESPACE, Options, PullPolicy, story},
    image::{APP, Edition, Image},
    prometheus::Prometheus,
    sandbox::{Sandbox, Told},
};

use crate::ground;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);

#[test]
fn prometheus_finds_everything_that_alerts_and_dashboard_ask_for() -> Told {
    story(Options::default(), async |sandbox, cluster| {
        let image = Image::of(&APP, Edition::First)?;
        cluster.upstreams.push_to_docker_hub("library/app:1", &image).await?;
        ground::install(cluster).await?;
        ground::apply(cluster).await?;
        let pod = cluster.pod("n1", "docker.io/library/app:1", PullPolicy::Always).await?;
        cluster.delete_pod(&pod).await?;
        // Two operators and a cache on each node.
        let targets = 2 + cluster.nodes().len();
        every_query_of_rules_and_dashboard_is_answered(sandbox, cluster, NAMESPACE, targets).await
    })
}

/// `targets` are the ready pods of Larder in `namespace`. Some pull should have come through a cache
/// before.
pub(crate) async fn every_query_of_rules_and_dashboard_is_answered(
    sandbox: &Sandbox,
    cluster: &Cluster,
    namespace: &str,
    targets: usize,
) -> Result<()> {
    let jobs = scrape_configs(cluster, namespace).await?;
    let folder = sandbox.folder("prometheus")?;
    let prometheus = Prometheus::start(&folder, SocketAddr::from(ADDRESS), &jobs).await?;
    prometheus.scrapes(targets, Duration::from_mins(1)).await?;
    for job in ["larder-node", "larder-operator"] {
        let found = prometheus.query(&format!("up{{job=\"{job}\"}}")).await?;
        ensure!(!found.is_empty(), "no target of job {job}");
    }
    let read =
        |name: &str| fs::read_to_string(Path::new(ROOT).join("charts/larder/files").join(name));
    prometheus.every_query(&read("alerts.yaml")?, &read("dashboard.json")?).await?;
    Ok(())
}

/// Debian's Prometheus is built without `kubernetes_sd_configs`: the targets that the configuration of
/// docs/guide/alerts.md finds, with the labels that it gives them.
async fn scrape_configs(cluster: &Cluster, namespace: &str) -> Result<String> {
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let pods = cluster.get(&path).await?.context("the namespace is there")?;
    let mut jobs = String::new();
    for (job, port) in [("larder-node", 5056), ("larder-operator", 8080)] {
        writeln!(jobs, "- job_name: {job}\n  static_configs:")?;
        for pod in pods["items"].as_array().into_iter().flatten() {
            let labels = &pod["metadata"]["labels"];
            if labels["app.kubernetes.io/name"] != job {
                continue;
            }
            let address = pod["status"]["podIP"].as_str().context("a pod has an address")?;
            let more = match job {
                "larder-node" => {
                    let (node, cache) =
                        (&pod["spec"]["nodeName"], &labels["larder.dev/proxycache"]);
                    format!("node: {node}, proxycache: {cache}")
                }
                _ => format!("pod: {}", pod["metadata"]["name"]),
            };
            writeln!(jobs, "  - targets: ['{address}:{port}']\n    labels: {{{more}}}")?;
        }
    }
    Ok(jobs)
}

//! A real Prometheus finds operators and node caches by the scrape configuration that the guide gives,
//! and in them everything that the alerts and the dashboard ask for.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

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
    let jobs = scrape_configs(namespace, &cluster.kubeconfig())?;
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

/// The one of docs/guide/alerts.md, for a Prometheus that is outside of the cluster.
fn scrape_configs(namespace: &str, kubeconfig: &Path) -> Result<String> {
    let guide = fs::read_to_string(Path::new(ROOT).join("docs/guide/alerts.md"))?;
    let (_, rest) =
        guide.split_once("\nscrape_configs:\n").context("the guide has a configuration")?;
    let (jobs, _) = rest.split_once("```").context("it ends")?;
    let own = "    namespaces: {names: [larder]}\n";
    ensure!(jobs.matches(own).count() == 2, "two jobs look for targets in the namespace:\n{jobs}");
    let found = format!(
        "    namespaces: {{names: [{namespace}]}}\n    kubeconfig_file: {}\n",
        kubeconfig.display()
    );
    Ok(jobs.replace(own, &found))
}

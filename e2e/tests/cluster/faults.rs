//! An API server that is slow, refuses, fails and drops watches: the operator takes up every change
//! when it is over, and does not ask in a loop meanwhile.

use std::{
    cell::Cell,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    cluster::{Cluster, Fault, FaultProxy, NAMESPACE, Options, story},
    containerd::Version,
    process::{self, Daemon},
    sandbox::Told,
    tools,
};

use crate::ground::{self, CACHE, MINUTE};

/// Longer than a lease lasts (10 s): the operator loses it, ends and is started again, as the
/// kubelet would.
const FAULT_LASTS: Duration = Duration::from_secs(14);
/// While leases are spared. Two of them are longer than a lease as well.
const SPARING_LASTS: Duration = Duration::from_secs(6);
/// Requests a second of an operator that waits between its tries. Measured: up to 3.1.
const CALM: f64 = 6.0;

#[test]
fn the_operator_outlives_an_api_server_that_fails() -> Told {
    let options = Options { nodes: vec![Version::V2_4], ..Options::default() };
    story(options, async |sandbox, cluster| {
        for name in ["proxycaches", "upstreamregistries"] {
            cluster.apply(&ground::read(&format!("crds/yaml/{name}.yaml"))?).await?;
        }
        cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
        ground::definitions_are_served(cluster).await?;
        cluster.apply(&ground::resources(cluster)).await?;
        let proxy = FaultProxy::start(cluster).await?;
        let folder = sandbox.folder("operator")?;
        let starts = Cell::new(0);
        tokio::select! {
            ended = keep_running(&folder, proxy.kubeconfig(), &starts) => ended.context("the operator"),
            told = tell(cluster, &proxy, &starts) => told,
        }
    })
}

/// As the kubelet does, but without its growing pauses. Counts the starts.
async fn keep_running(folder: &Path, kubeconfig: &Path, starts: &Cell<u32>) -> Result<()> {
    let log = folder.join("operator.log");
    loop {
        let mut command = process::command(&tools::larder_operator()?, folder);
        command
            .args(["run", "--namespace", NAMESPACE, "--node-image", "10.77.0.1:5000/pause:1"])
            .args(["--admin", "127.0.0.1:8080", "--identity", "one"])
            .env("KUBECONFIG", kubeconfig);
        starts.set(starts.get() + 1);
        let mut operator = Daemon::start("the operator", command, &log, &log)?;
        while operator.check_running().is_ok() {
            tokio::time::sleep(process::POLL).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn tell(cluster: &Cluster, proxy: &FaultProxy, starts: &Cell<u32>) -> Result<()> {
    ground::says(cluster, CACHE, "Accepted", "True").await?;
    one_that_leads_goes_on(cluster, proxy, starts).await?;
    let faults = [
        Fault::Always(500),
        Fault::Always(429),
        Fault::Writes(409),
        Fault::Writes(500),
        Fault::Slow(Duration::from_secs(2)),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let host = format!("fault-{number}.example");
        proxy.fail(fault);
        add(cluster, &host).await?;
        let rate = requests_per_second(proxy, FAULT_LASTS).await;
        proxy.fail(Fault::None);
        let recovered = Instant::now();
        configured(cluster, &host).await.with_context(|| format!("after {fault:?}"))?;
        ground::tell(&format!(
            "{fault:?}: {rate:.1} requests/s, in force {:.1?} later",
            recovered.elapsed()
        ));
        ensure!(rate < CALM, "{fault:?}: {rate:.1} requests a second");
    }
    // Watches that break again and again.
    let host = "dropped.example";
    let until = Instant::now() + FAULT_LASTS;
    let before = proxy.requests();
    add(cluster, host).await?;
    while Instant::now() < until {
        proxy.drop_watches();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let asked = proxy.requests() - before;
    configured(cluster, host).await.context("after dropped watches")?;
    ground::tell(&format!("watches dropped every second: {asked} requests in {FAULT_LASTS:?}"));
    ensure!(asked < 400, "{asked} requests");
    // At rest again: the lease, and nothing else.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = proxy.writes();
    let rate = requests_per_second(proxy, Duration::from_secs(20)).await;
    let writes = proxy.writes() - before;
    ground::tell(&format!("at rest: {rate:.1} requests/s, {writes} writes"));
    ensure!(writes == 0, "at rest: {writes} writes beside the lease");
    ensure!(rate < 2.0, "at rest: {rate:.1} requests a second");
    Ok(())
}

/// Everything fails but the lease: it must take that for what it is, and neither end nor forget.
async fn one_that_leads_goes_on(
    cluster: &Cluster,
    proxy: &FaultProxy,
    starts: &Cell<u32>,
) -> Result<()> {
    let before = starts.get();
    let faults = [
        Fault::Always(500),
        Fault::Always(429),
        Fault::Writes(409),
        Fault::Slow(Duration::from_secs(2)),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        proxy.fail_but_for_leases(fault);
        add(cluster, &format!("spared-{number}.example")).await?;
        let rate = requests_per_second(proxy, SPARING_LASTS).await;
        ground::tell(&format!("{fault:?} but for leases: {rate:.1} requests/s"));
        ensure!(rate < CALM, "{fault:?} but for leases: {rate:.1} requests a second");
    }
    proxy.fail(Fault::None);
    let recovered = Instant::now();
    for number in 0..faults.len() {
        configured(cluster, &format!("spared-{number}.example")).await?;
    }
    ground::tell(&format!("all in force {:.1?} later", recovered.elapsed()));
    let after = starts.get();
    ensure!(after == before, "the operator ended, though it led: {} starts more", after - before);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "few requests")]
async fn requests_per_second(proxy: &FaultProxy, lasts: Duration) -> f64 {
    let before = proxy.requests();
    tokio::time::sleep(lasts).await;
    (proxy.requests() - before) as f64 / lasts.as_secs_f64()
}

/// Past the proxy: by a user whose API server is well.
async fn add(cluster: &Cluster, host: &str) -> Result<()> {
    let name = host.replace('.', "-");
    let object = format!(
        "apiVersion: larder.dev/v1alpha1\nkind: UpstreamRegistry\nmetadata: {{name: {name}}}\n\
         spec: {{host: {host}}}\n"
    );
    cluster.apply(&object).await?;
    Ok(())
}

async fn configured(cluster: &Cluster, host: &str) -> Result<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/larder-default");
    cluster
        .wait_for(&format!("{host} is in the configuration"), MINUTE, async |cluster| {
            let config = cluster.get(&path).await?.unwrap_or_default();
            Ok(config["data"]["node.yaml"].as_str().is_some_and(|text| text.contains(host)))
        })
        .await
}

//! `make scale`: an operator, 1,000 nodes and 100 registries.

use std::{
    fs,
    io::{self, Write},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    cluster::{Arguments, Cluster, Crowd, FaultProxy, NAMESPACE, Options, story, up_to_date},
    process::{self, Daemon},
    sandbox::Told,
    tools,
};

const NODES: u16 = 1000;
const REGISTRIES: usize = 100;
const PATIENCE: Duration = Duration::from_mins(5);
const CACHE: &str = "/apis/larder.dev/v1alpha1/proxycaches/default";

#[test]
#[ignore = "a command of its own: make scale"]
fn a_thousand_nodes_cost_nothing_at_rest_and_follow_within_half_a_minute() -> Told {
    let arguments = Arguments {
        // By default the controllers make 5 to 20 pods a second.
        controller_manager: vec![
            "--kube-api-qps=200".to_owned(),
            "--kube-api-burst=400".to_owned(),
        ],
        ..Arguments::default()
    };
    let options = Options { nodes: Vec::new(), arguments };
    story(options, async |sandbox, cluster| {
        for name in ["proxycaches", "upstreamregistries"] {
            let path = format!("{}/../crds/yaml/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
            cluster.apply(&fs::read_to_string(path)?).await?;
        }
        cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
        let served = async |cluster: &Cluster| {
            Ok(cluster.try_kubectl(&["get", "pcache,ureg"]).await?.status.success())
        };
        cluster.wait_for("the definitions are served", PATIENCE, served).await?;
        let hosts: Vec<_> = (0..REGISTRIES).map(|number| format!("r{number}.example")).collect();
        let started = Instant::now();
        let _crowd = Crowd::start(cluster, NODES, &hosts).await?;
        tell(&format!("{NODES} nodes made in {:.1?}", started.elapsed()));
        let proxy = FaultProxy::start(cluster).await?;
        let folder = sandbox.folder("operator")?;
        let mut command = process::command(&tools::larder_operator()?, &folder);
        command
            .args(["run", "--namespace", NAMESPACE, "--node-image", "10.77.0.1:5000/pause:1"])
            .args(["--admin", "127.0.0.1:8080", "--identity", "one"])
            // As the chart has it.
            .env("MALLOC_ARENA_MAX", "1")
            .env("KUBECONFIG", proxy.kubeconfig());
        let log = folder.join("operator.log");
        let mut operator = Daemon::start("the operator", command, &log, &log)?;
        roll_out(cluster, &hosts).await?;
        rest(&proxy, operator.pid()).await?;
        change(cluster).await?;
        operator.check_running()
    })
}

async fn roll_out(cluster: &Cluster, hosts: &[String]) -> Result<()> {
    let registries: String = hosts.iter().map(|host| registry(host, "")).collect();
    let cache =
        "apiVersion: larder.dev/v1alpha1\nkind: ProxyCache\nmetadata: {name: default}\nspec: {}\n";
    cluster.apply(&format!("{registries}{cache}")).await?;
    let started = Instant::now();
    for (count, what) in [("ready", "pods ready"), ("reporting", "reports in the status")] {
        cluster
            .wait_for(what, PATIENCE, async |cluster| {
                let cache = cluster.get(CACHE).await?.context("it was applied")?;
                Ok(cache["status"]["nodes"][count] == NODES)
            })
            .await?;
        tell(&format!("{NODES} {what} after {:.1?}", started.elapsed()));
    }
    Ok(())
}

fn registry(host: &str, more: &str) -> String {
    let name = host.replace('.', "-");
    format!(
        "apiVersion: larder.dev/v1alpha1\nkind: UpstreamRegistry\nmetadata: {{name: {name}}}\n\
         spec: {{host: {host}{more}}}\n---\n"
    )
}

/// What begins with the roll-out may go on for a while: counters are written once a minute.
async fn rest(proxy: &FaultProxy, operator: u32) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(75)).await;
    let (writes, requests) = (proxy.writes(), proxy.requests());
    let mut most = 0;
    let until = Instant::now() + Duration::from_mins(2);
    while Instant::now() < until {
        most = most.max(resident(operator)?);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (writes, requests) = (proxy.writes() - writes, proxy.requests() - requests);
    tell(&format!(
        "2 min at rest: {writes} writes beside the lease, {requests} requests, {most} KiB"
    ));
    ensure!(writes == 0, "{writes} writes at rest");
    ensure!(most < 100 << 10, "{most} KiB resident");
    Ok(())
}

/// KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("a process has a size")?.parse()?)
}

async fn change(cluster: &Cluster) -> Result<()> {
    cluster.apply(&registry("r0.example", ", tags: {refreshInterval: 61s}")).await?;
    let started = Instant::now();
    let all = async |cluster: &Cluster| Ok(up_to_date(cluster).await? == usize::from(NODES));
    cluster.wait_for("every pod is told", PATIENCE, all).await?;
    let took = started.elapsed();
    tell(&format!("a change has reached {NODES} pods after {took:.1?}"));
    ensure!(took < Duration::from_secs(30), "{took:?}");
    Ok(())
}

fn tell(measured: &str) {
    // safe to ignore: it is printed for people, who may have gone
    let _ = writeln!(io::stdout(), "{measured}");
}

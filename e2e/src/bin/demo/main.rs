//! `make demo`: what Larder does for a cluster, with real parts and measured numbers.
//!
//! Kubernetes 1.36 with two nodes; a registry plays docker.io behind a line of 1 Gbit/s and 20 ms.
//! Helm installs the chart, kubectl applies the examples of the documentation, and pods run an image
//! of 300 MB. Bytes from the upstream are what the line carried, bytes from the cache what the node
//! caches count.

mod table;

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    cluster::{Cluster, Node, Options, PullPolicy, story},
    image::{BIG, Edition, Image},
    relay::{Mode, Shape},
};

use table::{Row, Table, megabytes};

const IMAGE: &str = "docker.io/library/app:1";
const TAG: &str = "demo";
const CACHE: &str = "/apis/larder.dev/v1alpha1/proxycaches/default";
/// What the line may carry besides the image: TLS, headers, and the tag that is asked for.
const BESIDES: u64 = 2 << 20;

fn main() -> ExitCode {
    let started = Instant::now();
    let told = say("Starting Kubernetes 1.36 with two nodes, and registries")
        .map(|()| story(Options::default(), async |_, cluster| show(cluster, started).await));
    match told {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => fail(&format!("{failure:?}")),
        Err(error) => fail(&format!("{error:?}")),
    }
}

fn fail(failure: &str) -> ExitCode {
    // safe to ignore: without a terminal there is nobody to tell
    let _ = writeln!(io::stderr(), "\nThe demo failed: {failure}");
    ExitCode::FAILURE
}

async fn show(cluster: &mut Cluster, started: Instant) -> Result<()> {
    for node in cluster.nodes() {
        say(&format!("  {}: {}", node.name(), node.version()))?;
    }
    let image = Image::of(&BIG, Edition::First)?;
    say(&format!(
        "Pushing {IMAGE} ({}) to the docker.io of this demo, behind a line of 1 Gbit/s and 20 ms",
        megabytes(image.size())
    ))?;
    cluster.upstreams.push_to_docker_hub("library/app:1", &image).await?;
    cluster.upstreams.lay_line(Shape::GIGABIT).await?;
    let before = cluster.nodes().iter().map(Node::certs_dir).collect::<Result<Vec<_>>>()?;
    let mut table = Table::default();

    say("A pod on each node, without Larder (once before, because a node's first pull is slower)")?;
    for node in cluster.nodes() {
        pod(cluster, node).await?;
        let meter = Meter { node, upstream: carried(cluster), cache: None };
        let took = pod(cluster, node).await?;
        meter.read(cluster, &mut table, "without Larder", took).await?;
    }

    say(
        "helm install larder charts/larder, and kubectl apply of two examples of the documentation",
    )?;
    cluster.load_larder(TAG).await?;
    cluster.install(TAG, &[]).await?;
    for file in ["common-registries.yaml", "proxy-cache.yaml"] {
        cluster.apply(&example(file)?).await?;
    }
    leave_enough_room(cluster).await?;
    cluster.wait_for_condition(CACHE, ("Available", "True", None), Duration::from_mins(2)).await?;
    for node in cluster.nodes() {
        let written = async |_: &Cluster| Ok(node.mirror_file("docker.io").is_some());
        cluster.wait_for("the mirror of docker.io", Duration::from_mins(1), written).await?;
    }
    let file = cluster.node("n1")?.mirror_file("docker.io").context("it was there")?;
    say(&format!("  n1:/etc/containerd/certs.d/docker.io/hosts.toml\n{}", indented(&file)))?;

    say("A pod on each node, through node caches that have nothing yet")?;
    pods(cluster, &mut table, "cold", image.size() + BESIDES).await?;
    say("The image is removed from containerd, and a pod started again")?;
    pods(cluster, &mut table, "warm", BESIDES).await?;
    say("The line to docker.io is cut")?;
    cluster.upstreams.line()?.set(Mode::Refuse).await?;
    pods(cluster, &mut table, "upstream down", 0).await?;
    cluster.upstreams.line()?.set(Mode::Open).await?;

    cluster
        .wait_for_condition(CACHE, ("MirrorEffective", "True", None), Duration::from_mins(1))
        .await?;
    say("\nkubectl get pcache,ureg")?;
    say(&cluster.kubectl(&["get", "pcache,ureg"]).await?)?;
    say("helm uninstall larder")?;
    let asked = Instant::now();
    cluster.uninstall(&[]).await?;
    let took = asked.elapsed().as_secs_f64();
    let after = cluster.nodes().iter().map(Node::certs_dir).collect::<Result<Vec<_>>>()?;
    ensure!(after == before, "a node is not as it was: {before:?}, now {after:?}");
    say(&format!(
        "  {took:.1} s, and /etc/containerd/certs.d of both nodes is as before, byte for byte"
    ))?;
    say(&format!("\n{table}"))?;
    say(&format!("{}", cluster.stages()))?;
    say(&format!("All of it in {:.0} s. Nothing is left running.", started.elapsed().as_secs_f64()))
}

/// A pod on each node. The line may carry `at_most` so many bytes for each.
async fn pods(
    cluster: &Cluster,
    table: &mut Table,
    step: &'static str,
    at_most: u64,
) -> Result<()> {
    for node in cluster.nodes() {
        let cache = Some(served(cluster, node).await?);
        let meter = Meter { node, upstream: carried(cluster), cache };
        let took = pod(cluster, node).await.with_context(|| step.to_owned())?;
        let upstream = meter.read(cluster, table, step, took).await?;
        ensure!(upstream <= at_most, "{step}: the line carried {upstream} bytes of {at_most}");
    }
    Ok(())
}

/// From the pod's creation to its running container. The image is gone from containerd after it.
async fn pod(cluster: &Cluster, node: &Node) -> Result<Duration> {
    rustix::fs::sync();
    let pod = cluster.pod(node.name(), IMAGE, PullPolicy::Always).await?;
    ensure!(!pod.was_told("Failed"), "{:#?}", pod.events);
    cluster.delete_pod(&pod).await?;
    node.remove_image(IMAGE).await?;
    Ok(pod.took)
}

/// Where the counters stood. Without Larder there is no cache.
struct Meter<'a> {
    node: &'a Node,
    upstream: u64,
    cache: Option<u64>,
}

impl Meter<'_> {
    async fn read(
        self,
        cluster: &Cluster,
        table: &mut Table,
        step: &'static str,
        took: Duration,
    ) -> Result<u64> {
        let upstream = carried(cluster) - self.upstream;
        let cache = match self.cache {
            Some(before) => served(cluster, self.node).await? - before,
            None => 0,
        };
        let row = Row { step, node: self.node.name().to_owned(), took, upstream, cache };
        say(&format!("  {row}"))?;
        table.add(row);
        Ok(upstream)
    }
}

async fn served(cluster: &Cluster, node: &Node) -> Result<u64> {
    Ok(cluster.cache_metrics(node).await?.served("docker.io"))
}

fn carried(cluster: &Cluster) -> u64 {
    cluster.upstreams.line().map_or(0, |line| line.carried().down)
}

fn example(file: &str) -> Result<String> {
    const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples");
    let path = Path::new(EXAMPLES).join(file);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// By default a cache keeps a fifth of the disk free, which this machine may not have.
async fn leave_enough_room(cluster: &Cluster) -> Result<()> {
    let disk = rustix::fs::statvfs(cluster.node("n1")?.seen("/var/lib/larder"))?;
    if disk.f_bavail * 4 < disk.f_blocks {
        say("  (this disk is nearly full: the caches may fill it up to 1 GiB)")?;
        let patch = r#"{"spec":{"storage":{"minFree":"1Gi"}}}"#;
        cluster.kubectl(&["patch", "pcache", "default", "--type=merge", "--patch", patch]).await?;
    }
    Ok(())
}

fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}

fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

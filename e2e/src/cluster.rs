//! A whole Kubernetes of two nodes, with upstream registries, without a way out.
//!
//! The story's own network namespace holds the control plane and the registries; a node is a set
//! of namespaces ([`Node`]) on a bridge of it. Everything is tied to the story: when it ends, or is
//! killed, the kernel ends all of it. Only the cgroups of a killed one stay, and the next boot
//! removes them.

mod api;
mod audit;
mod cgroup;
mod control_plane;
mod crowd;
mod dump;
mod fault_proxy;
mod installation;
mod kubeconfig;
mod kubelet;
mod machine;
mod network;
mod node;
mod pki;
mod pod;
mod runtime;
mod stage;
mod story;
mod trust;
mod upstreams;

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub use audit::Request;
pub use control_plane::Arguments;
pub use crowd::{Crowd, up_to_date};
pub use fault_proxy::{Fault, FaultProxy};
pub use installation::NAMESPACE;
pub use node::Node;
pub use pki::{Authority, Certificate};
pub use pod::{Event, PodRun, PullPolicy};
pub use stage::Stages;
pub use story::story;
pub use upstreams::Upstreams;

use crate::{
    containerd::Version,
    process::{Output, POLL},
    sandbox::{self, Sandbox},
};
use api::{Api, succeeded};
use control_plane::ControlPlane;

/// How long a node may take to be Ready, on a machine with other things to do.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// What kube-proxy may do is not among what the API server grants by itself.
const GRANTS: &str = r"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kube-proxy}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:node-proxier}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: system:kube-proxy}]
";

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// One node for each, called `n1`, `n2`, ...
    pub nodes: Vec<Version>,
    /// Of the control plane.
    pub arguments: Arguments,
}

/// Two nodes: the oldest containerd that is supported, and the newest.
impl Default for Options {
    fn default() -> Self {
        Self { nodes: vec![Version::V1_6, Version::V2_4], arguments: Arguments::default() }
    }
}

/// A running cluster. Dropping it ends it.
pub struct Cluster {
    // Dropped in this order.
    nodes: Vec<Node>,
    plane: ControlPlane,
    /// The registries.
    pub upstreams: Upstreams,
    api: Api,
    /// The authority of the API server.
    authority: Authority,
    /// The authority that nodes trust for upstreams.
    trusted: Authority,
    folder: PathBuf,
    number: Cell<u32>,
    stages: Stages,
}

impl Cluster {
    /// Boots one. All nodes are Ready, and pods can be created, when this returns.
    pub async fn boot(sandbox: &Sandbox, options: Options) -> Result<Self> {
        let mut stages = Stages::default();
        sandbox::sweep();
        let folder = sandbox.folder("cluster")?;
        network::build(&folder).await?;
        let (authority, trusted) = (Authority::new("Cluster CA")?, Authority::new("Public CA")?);
        let (plane_folder, upstream_folder) = (sandbox.folder("plane")?, folder.join("upstreams"));
        let numbered = (1..).zip(&options.nodes);
        let nodes = numbered.map(|(number, version)| {
            let (cluster_ca, trusted_ca) = (authority.pem(), trusted.pem());
            let folder = sandbox.folder(&format!("n{number}"));
            async move { Node::start(&folder?, number, *version, cluster_ca, trusted_ca).await }
        });
        let plane = ControlPlane::start(&plane_folder, &authority, options.arguments.clone());
        let (nodes, plane, upstreams) = tokio::try_join!(
            futures_util::future::try_join_all(nodes),
            plane,
            Upstreams::start(&upstream_folder, &trusted),
        )?;
        stages.done("API server, registries, containerds");
        let api = Api::new(&folder.join("kubectl"), &plane.kubeconfig(), authority.pem())?;
        let number = Cell::new(0);
        let mut cluster =
            Self { nodes, plane, upstreams, api, authority, trusted, folder, number, stages };
        cluster.plane.start_deciders()?;
        cluster.apply(GRANTS).await?;
        for node in &mut cluster.nodes {
            node.start_kubelet()?;
        }
        for node in &cluster.nodes {
            cluster.wait_for_ready(node.name()).await?;
        }
        cluster.stages.done("nodes Ready");
        // Without it no pod is admitted.
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        cluster
            .wait_for("the default service account", READY_WITHIN, async |cluster| {
                Ok(cluster.get(account).await?.is_some())
            })
            .await?;
        cluster.stages.done("default service account");
        Ok(cluster)
    }

    /// How long each stage of the boot took, and what the story adds.
    pub fn stages(&mut self) -> &mut Stages {
        &mut self.stages
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let node = self.nodes.iter().find(|node| node.name() == name);
        node.with_context(|| format!("no node {name}"))
    }

    /// A node by its name, to stop and start parts of it.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        let node = self.nodes.iter_mut().find(|node| node.name() == name);
        node.with_context(|| format!("no node {name}"))
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Adds a node. It is Ready when this returns; its name is its number's.
    pub async fn add_node(&mut self, sandbox: &Sandbox, version: Version) -> Result<String> {
        let last = self.nodes.iter().map(Node::number).max().unwrap_or_default();
        let number = last + 1;
        ensure!(number <= kubeconfig::NODES, "a cluster has {} nodes at most", kubeconfig::NODES);
        let folder = sandbox.folder(&format!("n{number}"))?;
        let (cluster_ca, trusted_ca) = (self.authority.pem(), self.trusted.pem());
        let mut node = Node::start(&folder, number, version, cluster_ca, trusted_ca).await?;
        node.start_kubelet()?;
        let name = node.name().to_owned();
        self.nodes.push(node);
        self.wait_for_ready(&name).await?;
        Ok(name)
    }

    /// Switches a node off, as a power cut does. The API server is told nothing.
    pub async fn switch_off(&mut self, name: &str) -> Result<()> {
        let index = self.nodes.iter().position(|node| node.name() == name);
        self.nodes.remove(index.with_context(|| format!("no node {name}"))?).end().await
    }

    /// The file with which kubectl and Helm are the admin.
    pub fn kubeconfig(&self) -> PathBuf {
        self.plane.kubeconfig()
    }

    /// kubectl, which must succeed. Returns what it prints.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        succeeded(arguments, self.try_kubectl(arguments).await?)
    }

    /// kubectl, however it ends.
    pub async fn try_kubectl(&self, arguments: &[&str]) -> Result<Output> {
        self.api.kubectl(arguments).await
    }

    /// `kubectl apply` of a manifest, which must succeed.
    pub async fn apply(&self, yaml: &str) -> Result<String> {
        succeeded(&["apply"], self.try_apply(yaml).await?)
    }

    /// `kubectl apply` of a manifest, however it ends.
    pub async fn try_apply(&self, yaml: &str) -> Result<Output> {
        self.api.manifest(&["apply"], yaml).await
    }

    /// `kubectl delete`, which must succeed.
    pub async fn delete(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl(&[&["delete"], arguments].concat()).await
    }

    /// An object or a list by its path in the API; `None` if there is none.
    pub async fn get(&self, path: &str) -> Result<Option<Value>> {
        self.api.get(path).await
    }

    /// Waits until `ready` says so.
    pub async fn wait_for(
        &self,
        what: &str,
        patience: Duration,
        mut ready: impl AsyncFnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let asked = Instant::now();
        while !ready(self).await? {
            if asked.elapsed() > patience {
                bail!("{what}: not within {patience:?}");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Copies an image (`oci:DIR:TAG`, `docker://HOST/NAME:TAG`) into the cluster's own registry
    /// as `NAME:TAG`. Returns the reference that pods use.
    pub async fn load_image(&self, source: &str, name: &str) -> Result<String> {
        self.upstreams.load(source, name).await
    }

    /// What Larder's service accounts have asked the API server for, from its audit log.
    pub fn audited(&self) -> Result<Vec<Request>> {
        self.plane.audited()
    }

    /// SIGKILL to the API server: connections are refused.
    pub fn stop_api_server(&mut self) -> Result<()> {
        self.plane.stop_api_server()
    }

    /// Starts it again. It is ready when this returns.
    pub async fn start_api_server(&mut self) -> Result<()> {
        self.plane.start_api_server().await
    }

    /// `Err` if a program of the cluster has ended that nobody stopped.
    pub fn check_running(&mut self) -> Result<()> {
        self.plane.check_running()?;
        self.nodes.iter_mut().try_for_each(Node::check_running)
    }

    /// Ends it. An error if anything is left: a process, a mount or a cgroup.
    pub async fn stop(self) -> Result<()> {
        let Self { nodes, plane, upstreams, folder, .. } = self;
        for node in nodes {
            node.end().await?;
        }
        drop((plane, upstreams));
        let cgroups = cgroup::left()?;
        ensure!(cgroups.is_empty(), "cgroups are left: {cgroups:?}");
        let mounts = mounts_below(folder.parent().unwrap_or(&folder))?;
        ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
        Ok(())
    }

    /// A number that no other object of the story has.
    fn next_number(&self) -> u32 {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }

    async fn wait_for_ready(&self, node: &str) -> Result<()> {
        let path = format!("/api/v1/nodes/{node}");
        self.wait_for(&format!("{node} is Ready"), READY_WITHIN, async |cluster| {
            let node = cluster.get(&path).await?.unwrap_or_default();
            let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
            Ok(conditions.any(|it| it["type"] == "Ready" && it["status"] == "True"))
        })
        .await
    }
}

/// What is mounted below a folder, as this process sees it.
fn mounts_below(folder: &Path) -> Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("listing mounts")?;
    let below =
        |line: &&str| line.split(' ').nth(1).is_some_and(|at| Path::new(at).starts_with(folder));
    Ok(mounts.lines().filter(below).map(str::to_owned).collect())
}

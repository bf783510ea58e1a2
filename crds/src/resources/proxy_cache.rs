//! `ProxyCache`: one fleet of node caches.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{EnvVar, NodeAffinity, ResourceRequirements, SELinuxOptions, Toleration},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ProxyCacheStatus;

/// A cache of container images on every node, and the mirror configuration that sends containerd
/// to it.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "larder.dev",
    version = "v1alpha1",
    kind = "ProxyCache",
    plural = "proxycaches",
    shortname = "pcache",
    category = "larder",
    status = "ProxyCacheStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name must have at most 40 characters: names of pods are made of it"),
    doc = "A cache of container images on every node, and the mirror configuration that sends containerd to it.",
    printcolumn(
        name = "Available",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Available")].status"#
    ),
    printcolumn(
        name = "Nodes",
        type_ = "string",
        json_path = ".status.printed.nodes",
        description = "Node caches that are ready, of those that should be"
    ),
    printcolumn(
        name = "Mirrored",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="MirrorEffective")].status"#,
        description = "Whether containerd asks the caches"
    ),
    printcolumn(
        name = "Hit rate",
        type_ = "string",
        json_path = ".status.printed.hitRate",
        description = "Share of the requests that were answered from the caches' disks"
    ),
    printcolumn(
        name = "Used",
        type_ = "string",
        json_path = ".status.printed.used",
        description = "Of the capacity of all nodes"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ProxyCacheSpec {
    /// Which UpstreamRegistries are cached. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstreams: Option<Upstreams>,
    /// Which nodes have a cache. Default: every linux node of the image's architectures, also
    /// tainted ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Nodes>,
    /// Where and how much a node cache stores.
    #[serde(default)]
    pub storage: Storage,
    /// Where the node caches listen.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// How containerd on the nodes is told.
    #[serde(default)]
    pub containerd: Containerd,
    /// The pods of the node caches.
    #[serde(default)]
    pub pod: Pod,
}

/// Which UpstreamRegistries are cached: all, those that are named, or those with certain labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.names) && self.names.size() > 0 && has(self.selector))").message("upstreams takes names or a selector, not both"))]
pub struct Upstreams {
    /// Names of UpstreamRegistry objects. At most 200. Example: `docker-io`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 253)))]
    pub names: Vec<String>,
    /// Labels of UpstreamRegistry objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Which nodes have a cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Nodes {
    /// Labels that a node must have, besides `kubernetes.io/os: linux`. Example:
    /// `node-role.example.com/worker: ""`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that do not keep a cache away. Default: all are tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 32))]
    pub tolerations: Option<Vec<Toleration>>,
    /// Node affinity, for what labels alone cannot say. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<NodeAffinity>,
}

/// Where and how much a node cache stores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Folder on the node; made if it is not there, kept when the ProxyCache is deleted. Cannot be
    /// changed. Default: `/var/lib/larder`. Allowed below `/var/lib`, `/var/cache`, `/mnt`,
    /// `/data`, `/srv` and `/opt`.
    #[serde(default = "Storage::default_path")]
    #[schemars(length(max = 253))]
    #[schemars(regex(
        pattern = r"^/(var/lib|var/cache|mnt|data|srv|opt)(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$"
    ))]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("hostPath cannot be changed: create another ProxyCache and delete this one"),
        validation = Rule::new("!['/var/lib/kubelet', '/var/lib/containerd', '/var/lib/docker', '/var/lib/etcd', '/var/lib/rancher', '/var/lib/cni'].exists(used, self == used || self.startsWith(used + '/'))").message("hostPath belongs to another program of the node")
    )]
    pub host_path: String,
    /// Most that a node cache occupies: a quantity of at least 1Gi. Default: `20Gi`.
    #[serde(default = "Storage::default_capacity")]
    #[schemars(length(max = 20))]
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]{1,9})?(Mi|Gi|Ti|Pi|M|G|T|P)?$"))]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).compareTo(quantity('1Gi')) >= 0 && quantity(self).compareTo(quantity('1Pi')) <= 0").message("capacity must be a quantity between 1Gi and 1Pi, for example 20Gi"))]
    pub capacity: String,
    /// What the file system keeps free, whatever `capacity` allows: a share of its size or a
    /// quantity. Default: `20%`, above the 15 % at which the kubelet removes images. Example: `50Gi`.
    #[serde(default = "Storage::default_min_free")]
    #[schemars(length(max = 20))]
    #[schemars(regex(
        pattern = r"^([0-9]{1,2}%|[0-9]+(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?)$"
    ))]
    pub min_free: String,
}

impl Storage {
    fn default_path() -> String {
        "/var/lib/larder".to_owned()
    }

    fn default_capacity() -> String {
        "20Gi".to_owned()
    }

    fn default_min_free() -> String {
        "20%".to_owned()
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            host_path: Self::default_path(),
            capacity: Self::default_capacity(),
            min_free: Self::default_min_free(),
        }
    }
}

/// Where the node caches listen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.port != self.adminPort").message("port and adminPort must differ"))]
pub struct Endpoint {
    /// Port on 127.0.0.1 of every node, where containerd pulls. Default: 5055.
    #[serde(default = "Endpoint::default_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
    /// Port of every node with metrics, health and report. Default: 5056.
    #[serde(default = "Endpoint::default_admin_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub admin_port: i32,
}

impl Endpoint {
    fn default_port() -> i32 {
        5055
    }

    fn default_admin_port() -> i32 {
        5056
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { port: Self::default_port(), admin_port: Self::default_admin_port() }
    }
}

/// How containerd on the nodes is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.certsDir) == has(self.configFile)").message("certsDir and configFile belong together: set both or none"),
    validation = Rule::new("!has(self.certsDir) || !has(self.distribution)").message("containerd takes distribution, or certsDir and configFile, not both")
)]
pub struct Containerd {
    /// Kubernetes distribution of the nodes, which decides where containerd's files are. Default:
    /// `Generic` (`/etc/containerd`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// Folder of mirror files, containerd's `config_path`. Example: `/etc/containerd/certs.d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[schemars(regex(pattern = r"^(/[A-Za-z0-9_.-]+)+$"))]
    #[x_kube(validation = Rule::new("!self.contains('/../') && !self.endsWith('/..')").message("certsDir must not contain .."))]
    pub certs_dir: Option<String>,
    /// containerd's own configuration file; it is only read. Example:
    /// `/etc/containerd/config.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[schemars(regex(pattern = r"^(/[A-Za-z0-9_.-]+){2,}$"))]
    #[x_kube(validation = Rule::new("!self.contains('/../') && !self.endsWith('/..')").message("configFile must not contain .."))]
    pub config_file: Option<String>,
    /// What happens to mirrors that are configured already. `Prepend` (the default): the cache is
    /// put in front of them. `Leave`: that registry is not cached, and named as a problem.
    #[serde(default)]
    pub existing: Existing,
    /// Whether a symbolic link may repair a `config_path` that is a list with colons, which
    /// containerd 2.1 and later take for one name. The link lies beside `configFile`, so the folder of
    /// that file is mounted writable into the configurator, which runs as root; without, it is
    /// mounted read-only. Nothing but the link is written there. Default: false.
    #[serde(default)]
    pub colon_path_repair: bool,
}

/// A Kubernetes distribution, for where containerd's files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Distribution {
    /// `/etc/containerd`: kubeadm, EKS, AKS, GKE, kind.
    #[default]
    Generic,
    /// `/var/lib/rancher/k3s/agent/etc/containerd`.
    K3s,
    /// `/var/lib/rancher/rke2/agent/etc/containerd`.
    #[serde(rename = "RKE2")]
    Rke2,
    /// `/var/snap/microk8s/current/args`.
    MicroK8s,
    /// `/etc/k0s/containerd.d`.
    K0s,
}

/// What happens to mirrors that are configured already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Existing {
    /// The cache is put in front of them.
    #[default]
    Prepend,
    /// That registry is not cached.
    Leave,
}

/// The pods of the node caches. A change here replaces them, a few nodes at a time; changes
/// elsewhere do not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Image of the node cache. Default: the one that the operator was installed with. Example:
    /// `registry.example.com/larder:0.1.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$"))]
    pub image: Option<String>,
    /// Resources of the cache's container. Default: requests 50m CPU and 64Mi, limit 256Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Environment of the cache's container, for `HTTPS_PROXY` and the like. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64))]
    pub env: Vec<EnvVar>,
    /// Priority class. Default: `system-node-critical`, so that the cache is there before the pods
    /// that need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// SELinux context of the pod's containers; a confined type may not write
    /// `/etc/containerd/certs.d`. Default: the runtime's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub se_linux_options: Option<SELinuxOptions>,
    /// How many nodes are updated at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
}

/// How many nodes are updated at once. While its cache is replaced, about a second, a node pulls
/// directly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// A number of nodes or a percentage, at least 1. Default: `10%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("type(self) == int ? self > 0 : self.matches('^[1-9][0-9]?%$|^100%$')").message("maxUnavailable must be a number of nodes or a percentage of at least 1, for example 10%"))]
    pub max_unavailable: Option<IntOrString>,
}

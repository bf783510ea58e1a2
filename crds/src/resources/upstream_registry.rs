//! `UpstreamRegistry`: one registry that is cached.
#![allow(
    clippy::duplicated_attributes,
    reason = "kube has one attribute for a print column, and there are several"
)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::UpstreamRegistryStatus;

/// A container registry that the node caches keep images of.
///
/// Image names in pods stay as they are: `docker.io/library/nginx:1.27` is served by the node's
/// cache as soon as an UpstreamRegistry with `host: docker.io` exists.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "larder.dev",
    version = "v1alpha1",
    kind = "UpstreamRegistry",
    plural = "upstreamregistries",
    shortname = "ureg",
    category = "larder",
    status = "UpstreamRegistryStatus",
    derive = "PartialEq",
    doc = "A container registry that the node caches keep images of.",
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Reachable")].status"#
    ),
    printcolumn(
        name = "Pulls left",
        type_ = "integer",
        json_path = ".status.rateLimit.remaining",
        description = "What is left of the pull limit that the registry announces"
    ),
    printcolumn(
        name = "Last error",
        type_ = "string",
        json_path = ".status.lastError.class",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.host"
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.endpoints) || (has(self.tls) && has(self.tls.insecure)) || !self.endpoints.exists(endpoint, endpoint.url.lowerAscii().startsWith('http:'))").message("an endpoint without TLS (http://) needs tls.insecure, with the reason why that is acceptable"),
    validation = Rule::new("!has(self.access) || self.access.mode != 'Shared' || has(self.credentials)").message("access.mode Shared needs credentials: it is with them that pods read")
)]
pub struct UpstreamRegistrySpec {
    /// The registry as image names spell it, with its port if they have one. Lower case. Cannot be
    /// changed. Examples: `docker.io`, `registry.example.com:5000`.
    #[schemars(length(min = 1, max = 259))]
    #[schemars(regex(
        pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[1-9][0-9]{0,4})?$"
    ))]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("host cannot be changed: create another UpstreamRegistry and delete this one"),
        validation = Rule::new("!(self in ['registry-1.docker.io', 'index.docker.io'])").message("Docker Hub is docker.io in image names")
    )]
    pub host: String,

    /// Base URLs that are asked in this order; the next one is taken when one fails. Without any,
    /// `https://<host>` (and `https://registry-1.docker.io` for `docker.io`). At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub endpoints: Vec<UpstreamEndpoint>,

    /// How the registry's TLS certificate is checked. Default: against the public
    /// authorities that the image of the node cache brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// What the cache logs in with. Default: nothing; the cache asks as an anonymous client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,

    /// Hosts that may see the credentials besides those of the registry's own domain: token
    /// services elsewhere. At most 16. Example: `auth.example.net`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 259)))]
    #[schemars(inner(regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[1-9][0-9]{0,4})?$")))]
    pub token_realms: Vec<String>,

    /// Proxy through which this registry is reached. Default: the proxy variables of
    /// `ProxyCache.spec.pod.env`, if any. Example: `http://proxy.example.com:3128`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(
        validation = Rule::new("isURL(self) && url(self).getScheme() in ['http', 'https', 'socks5'] && url(self).getHost() != ''").message("proxy must be a URL such as http://proxy.example.com:3128 (http, https or socks5)"),
        validation = Rule::new("!self.contains('@')").message("proxy must not contain credentials")
    )]
    pub proxy: Option<String>,

    /// Who may read what through the cache. Default: `{mode: Anonymous}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,

    /// How tags are kept fresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,

    /// Which repositories are cached. Others are passed by: containerd asks the registry itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repositories: Option<Repositories>,

    /// How long the registry may take before it counts as failing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

/// One base URL of a registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamEndpoint {
    /// `https://host[:port][/path]`, without credentials. `http://` needs `tls.insecure`. Example:
    /// `https://mirror.example.com`.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(
        validation = Rule::new("isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHost() != ''").message("url must be a URL such as https://mirror.example.com"),
        validation = Rule::new("!self.contains('@')").message("url must not contain credentials: put them into a Secret and name it in credentials.secretName"),
        validation = Rule::new("!self.contains('?') && !self.contains('#')").message("url must have neither a query nor a fragment")
    )]
    pub url: String,
}

/// How the registry's TLS certificate is checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Certificate authorities (PEM) that are trusted besides the public ones. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// Secret of type `kubernetes.io/tls` in Larder's namespace with the certificate that the cache
    /// shows to the registry. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<SecretName>,
    /// Accepts any certificate, and endpoints without TLS. Everybody between the node and the
    /// registry can then read, and change what tags point to. Default: not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure: Option<Insecure>,
}

/// Where certificate authorities are. Exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.inline), has(self.configMap), has(self.secret)].filter(given, given).size() == 1").message("caBundle needs exactly one of inline, configMap and secret"))]
pub struct CaBundle {
    /// The certificates themselves, PEM. At most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    #[x_kube(validation = Rule::new("self.contains('-----BEGIN CERTIFICATE-----')").message("inline must hold PEM certificates (-----BEGIN CERTIFICATE-----)"))]
    pub inline: Option<String>,
    /// A key of a ConfigMap in Larder's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<KeyRef>,
    /// A key of a Secret in Larder's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<KeyRef>,
}

/// A key of a ConfigMap or Secret in Larder's namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// Name of the object. Example: `company-ca`.
    #[schemars(length(min = 1, max = 253))]
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub name: String,
    /// Its key. Default: `ca.crt`.
    #[serde(default = "KeyRef::default_key")]
    #[schemars(length(min = 1, max = 253))]
    #[schemars(regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

impl KeyRef {
    fn default_key() -> String {
        "ca.crt".to_owned()
    }
}

/// A Secret in Larder's namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// Name of the Secret. Example: `registry-client`.
    #[schemars(length(min = 1, max = 253))]
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub secret_name: String,
}

/// What the cache logs in with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Name of a Secret in Larder's namespace: of type `kubernetes.io/dockerconfigjson` (as
    /// `kubectl create secret docker-registry` makes it) or `kubernetes.io/basic-auth`. Example:
    /// `docker-hub`.
    #[schemars(length(min = 1, max = 253))]
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub secret_name: String,
}

/// That, and why, the registry's identity is not checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Insecure {
    /// Why this is acceptable; shown in a condition. Example: `lab registry without TLS`.
    #[schemars(length(min = 8, max = 512))]
    pub reason: String,
}

/// Who may read what through the cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode != 'Shared' || (has(self.repositories) && self.repositories.size() > 0)").message("mode Shared needs repositories: the list of what everybody on a node may read"),
    validation = Rule::new("self.mode == 'Shared' || !has(self.repositories) || self.repositories.size() == 0").message("repositories belongs to mode Shared")
)]
pub struct Access {
    /// `Anonymous` (the default): only what an anonymous client may read is cached; for the rest
    /// containerd asks the registry with the pod's own pull secret. `Shared`: the cache's
    /// credentials serve every pod of a node, for the listed repositories; needs `credentials`.
    #[serde(default)]
    pub mode: AccessMode,
    /// Mode `Shared`: globs of the repositories that every pod may read. `*` stands for anything
    /// within a path segment, `**` for anything across segments. At most 100. Example: `team/*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 255)))]
    pub repositories: Vec<String>,
}

/// How access is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// Only what an anonymous client may read is cached.
    #[default]
    Anonymous,
    /// The cache's credentials serve every pod of a node.
    Shared,
}

/// How tags are kept fresh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tags {
    /// How long a tag is served without asking the registry. A duration; default `0s`: one small
    /// request (HEAD) for every pull, which does not count against Docker Hub's limit. Example:
    /// `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[schemars(regex(pattern = r"^(0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$"))]
    #[x_kube(validation = Rule::new("self != ''").message("write a duration such as 60s"))]
    pub refresh_interval: Option<String>,
    /// How long after its last check a tag is still served while the registry is down, hangs or
    /// refuses for lack of quota. A duration; default `24h`. `0s`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[schemars(regex(pattern = r"^(0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$"))]
    #[x_kube(validation = Rule::new("self != ''").message("write a duration such as 24h"))]
    pub stale_if_error: Option<String>,
    /// Globs of tags that never move, so that the registry is not asked again. At most 50. Example:
    /// `v*.*.*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 128)))]
    pub immutable: Vec<String>,
}

/// Which repositories are cached. `*` stands for anything within a path segment, `**` for anything
/// across segments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Repositories {
    /// Globs of what is cached. Default: everything (`**`). At most 100. Example: `library/*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 255)))]
    pub allow: Vec<String>,
    /// Globs of what is not cached; wins over `allow`. Default: nothing. At most 100. Example:
    /// `internal/**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 255)))]
    pub deny: Vec<String>,
}

/// How long the registry may take. Durations between 100ms and 10s: a request has 10 s until its
/// headers, and containerd gives up on bodies that are silent for longer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Until a connection stands. Default `3s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), regex(pattern = r"^([1-9][0-9]{2,3}ms|[1-9]s|10s)$"))]
    pub connect: Option<String>,
    /// Until the answer's headers. Default `8s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), regex(pattern = r"^([1-9][0-9]{2,3}ms|[1-9]s|10s)$"))]
    pub first_byte: Option<String>,
    /// Between two bytes of a body. Default `10s`, which is also the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), regex(pattern = r"^([1-9][0-9]{2,3}ms|[1-9]s|10s)$"))]
    pub stall: Option<String>,
}

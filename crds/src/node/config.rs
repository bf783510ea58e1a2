//! The configuration of one node cache.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{ByteSize, Duration};

/// What a node cache does: where it stores, which upstreams it serves. Written by the operator
/// into a ConfigMap volume, or by hand.
///
/// File names in it (`caFile`, `credentialsFile`, ...) are relative to the folder of the file that
/// holds this document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// Always [`API_VERSION`](super::API_VERSION).
    pub api_version: String,
    /// Always `NodeConfig`.
    pub kind: String,
    /// Where and how much the node cache stores.
    #[serde(default)]
    pub storage: Storage,
    /// How containerd on this node is told about the cache. Read by `larder-node configure`.
    #[serde(default)]
    pub containerd: Containerd,
    /// File with the bearer token that `/report` and `/catalog` ask for. Empty: no token, and
    /// both answer on loopback only.
    #[serde(default)]
    pub report_token_file: String,
    /// The registries that are cached. A request for any other registry is refused.
    #[serde(default)]
    pub upstreams: Vec<Upstream>,
}

/// Where and how much a node cache stores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Storage {
    /// Folder of the store. Default `/var/lib/larder`. Read at start only.
    pub path: PathBuf,
    /// Upper bound of allocated bytes, unfinished downloads included. Default `20Gi`.
    pub capacity: ByteSize,
    /// What the file system keeps free whatever `capacity` allows: a percentage of its size
    /// (`20%`, the default: below the kubelet's image garbage collection) or a size.
    pub min_free: MinFree,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/larder"),
            capacity: ByteSize::from_bytes(20 << 30),
            min_free: MinFree::Percent(20),
        }
    }
}

/// A floor of free space: `"20%"` of the file system or a size such as `5Gi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinFree {
    /// Percent of the file system's size, 0 to 99.
    Percent(u8),
    /// Bytes.
    Bytes(ByteSize),
}

impl FromStr for MinFree {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(percent) = text.strip_suffix('%') else {
            return text.parse().map(Self::Bytes).map_err(|error| error.to_string());
        };
        match percent.parse::<u8>() {
            Ok(percent) if percent < 100 => Ok(Self::Percent(percent)),
            _ => Err(format!("{text:?} is not a share of the disk: write 0% to 99%")),
        }
    }
}

impl fmt::Display for MinFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => bytes.fmt(f),
        }
    }
}

impl Serialize for MinFree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MinFree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Where containerd on this node looks for mirrors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Containerd {
    /// containerd's `config_path`. Default `/etc/containerd/certs.d`.
    pub certs_dir: PathBuf,
    /// containerd's own configuration. Default `/etc/containerd/config.toml`.
    pub config_file: PathBuf,
    /// What happens to mirrors that are there already. Default `Prepend`.
    pub existing: ExistingHosts,
    /// Whether a symlink may repair a colon-separated `config_path`. Default false.
    pub colon_path_repair: bool,
}

impl Default for Containerd {
    fn default() -> Self {
        Self {
            certs_dir: PathBuf::from("/etc/containerd/certs.d"),
            config_file: PathBuf::from("/etc/containerd/config.toml"),
            existing: ExistingHosts::default(),
            colon_path_repair: false,
        }
    }
}

/// What happens to mirrors that somebody else configured for the same registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExistingHosts {
    /// Larder's mirror is put in front of them.
    #[default]
    Prepend,
    /// They are left alone, and that registry is not mirrored.
    Leave,
}

/// One registry that is cached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// The registry as image names spell it: `docker.io`, `reg.example.com:5000`.
    pub host: String,
    /// Base URLs, asked in order. Default: derived from `host`.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Who may read what through the cache.
    #[serde(default)]
    pub access: Access,
    /// File with the upstream's credentials: a Docker `config.json` (`dockerconfigjson`) or a
    /// YAML mapping of `username` and `password`. Empty: none.
    #[serde(default)]
    pub credentials_file: String,
    /// How the upstream's TLS certificate is checked.
    #[serde(default)]
    pub tls: Tls,
    /// Hosts that may see the credentials besides the upstream's own registrable domain.
    #[serde(default)]
    pub token_realms: Vec<String>,
    /// URL of an HTTP, HTTPS or SOCKS5 proxy for this upstream. Empty: none.
    #[serde(default)]
    pub proxy: String,
    /// How tags are kept fresh.
    #[serde(default)]
    pub tags: Tags,
    /// Which repositories are served.
    #[serde(default)]
    pub repositories: Repositories,
    /// How long the upstream may take.
    #[serde(default)]
    pub timeouts: Timeouts,
}

impl Upstream {
    /// The registry `host` with every default.
    pub fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            endpoints: Vec::new(),
            access: Access::default(),
            credentials_file: String::new(),
            tls: Tls::default(),
            token_realms: Vec::new(),
            proxy: String::new(),
            tags: Tags::default(),
            repositories: Repositories::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// One base URL of an upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `https://host[:port][/path]`. `http://` is allowed for loopback, or with
    /// `tls.insecureReason`.
    pub url: String,
}

/// Who may read what through the cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Access {
    /// Default `Anonymous`.
    pub mode: AccessMode,
    /// `Shared` only: globs of the repositories that everybody on the node may read with the
    /// cache's credentials (`team/*`, `public/**`). Others are served as in `Anonymous`.
    pub repositories: Vec<String>,
}

/// How access is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessMode {
    /// Only what an anonymous client may read at the upstream is cached and served.
    #[default]
    Anonymous,
    /// The cache's credentials serve everybody on the node, for the listed repositories.
    Shared,
}

/// How the upstream's TLS certificate is checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tls {
    /// PEM file of certificate authorities, trusted besides the system's.
    pub ca_file: String,
    /// PEM file of the client certificate (chain). Needs `clientKeyFile`.
    pub client_cert_file: String,
    /// PEM file of the client certificate's private key.
    pub client_key_file: String,
    /// Why this upstream may be reached without a trusted certificate or without TLS. Empty: it
    /// may not.
    pub insecure_reason: String,
}

/// How tags are kept fresh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tags {
    /// How long a tag is served without asking the upstream. Default `0s`: one HEAD for every
    /// request.
    pub refresh_interval: Duration,
    /// How long after its last check a tag is still served while the upstream fails. Default `24h`.
    pub stale_if_error: Duration,
    /// How long "no such tag" is remembered. Default `5s`.
    #[serde(rename = "negativeTTL")]
    pub negative_ttl: Duration,
    /// Globs of tags that never move (`v*.*.*`) and are not asked for again.
    pub immutable: Vec<String>,
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            refresh_interval: Duration::from_secs(0),
            stale_if_error: Duration::from_secs(24 * 60 * 60),
            negative_ttl: Duration::from_secs(5),
            immutable: Vec::new(),
        }
    }
}

/// Which repositories are served. In the globs `*` stands for anything within a path segment and
/// `**` for anything across segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Repositories {
    /// Default `["**"]`.
    pub allow: Vec<String>,
    /// Wins over `allow`. Default none.
    pub deny: Vec<String>,
}

impl Default for Repositories {
    fn default() -> Self {
        Self { allow: vec!["**".to_owned()], deny: Vec::new() }
    }
}

/// How long the upstream may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Timeouts {
    /// Until a connection stands. Default `3s`.
    pub connect: Duration,
    /// Until the response's headers. Default `8s`.
    pub first_byte: Duration,
    /// Between two bytes of a body as a client sees it. Default `10s`, which is also the most.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            first_byte: Duration::from_secs(8),
            stall: Duration::from_secs(10),
        }
    }
}

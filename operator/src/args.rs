//! The command line. Every flag has an environment variable.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};

use crate::{proxy_cache::placement::Architecture, telemetry::LogFormat};

/// Turns ProxyCaches and UpstreamRegistries into a cache of container images on every node.
#[derive(Debug, Parser)]
#[command(name = "larder-operator", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator. Several may run; one of them acts.
    Run(RunArgs),
    /// Print the definitions of both resources (YAML).
    Crds,
    /// Delete every ProxyCache and wait until the nodes are as they were. Ends with 0 and a warning
    /// if some node cannot be reached: an uninstall must not hang.
    Uninstall(UninstallArgs),
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Namespace of the operator, in which everything is made and Secrets are looked for.
    #[arg(long, env = "LARDER_NAMESPACE", default_value = "larder")]
    pub namespace: String,
    /// Image of the node cache, for ProxyCaches that name none.
    #[arg(long, env = "LARDER_NODE_IMAGE")]
    pub node_image: String,
    /// Pull policy of that image.
    #[arg(long, env = "LARDER_NODE_PULL_POLICY", default_value = "IfNotPresent")]
    pub node_pull_policy: String,
    /// Pull secrets of that image, in the namespace.
    #[arg(long, env = "LARDER_NODE_PULL_SECRETS", value_delimiter = ',')]
    pub node_pull_secrets: Vec<String>,
    /// Architectures that the image is built for; other nodes get no cache.
    #[arg(
        long,
        env = "LARDER_NODE_ARCHITECTURES",
        value_enum,
        value_delimiter = ',',
        default_value = "amd64"
    )]
    pub node_architectures: Vec<Architecture>,
    /// Name of this operator among several; in a cluster, the pod's.
    #[arg(long, env = "LARDER_IDENTITY", default_value = "standalone")]
    pub identity: String,
    /// Address of metrics and health.
    #[arg(long, env = "LARDER_ADMIN", default_value = "[::]:8080")]
    pub admin: SocketAddr,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `uninstall`.
#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// Seconds after which it gives up.
    #[arg(long, env = "LARDER_UNINSTALL_TIMEOUT", default_value_t = 50)]
    pub timeout: u64,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The log on standard error.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Form of the log.
    #[arg(long, env = "LARDER_LOG", value_enum, default_value_t = LogFormat::Pretty)]
    pub log: LogFormat,
    /// What is logged: error, warn, info, debug, trace; or filters.
    #[arg(long, env = "LARDER_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

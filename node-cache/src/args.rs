//! The command line. Every flag has an environment variable.

mod mirror;

use std::{convert::Infallible, net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};
use larder_crds::{
    ByteSize, Duration,
    node::{API_VERSION, Endpoint, NodeConfig, Storage, Upstream},
};

pub use mirror::{ConfigureArgs, WithdrawArgs};

use crate::config::ConfigSource;

/// Container images kept next to the kubelet: the cache that runs on every node.
#[derive(Debug, Parser)]
#[command(name = "larder-node", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the OCI pull API from a local store, fetching from the upstream registries on a miss.
    ///
    /// Configure it with a file (`--config`, see docs/configuration.md), or for one machine with
    /// `--data` and `--upstream`. Clients name the registry in the path
    /// (`127.0.0.1:5055/docker.io/library/nginx`) or, as containerd mirrors do, in `?ns=`.
    Serve(ServeArgs),
    /// Send containerd on this machine to the cache.
    ///
    /// Writes a hosts.toml for every configured registry while the cache answers, in front of
    /// mirrors that are there already, and takes it away when the cache does not answer or on
    /// SIGTERM. containerd is not restarted.
    Configure(ConfigureArgs),
    /// Take away what `configure` wrote and bring back what was there before.
    Withdraw(WithdrawArgs),
    /// Give the store's folder to the user that `serve` runs as; needs the capability CHOWN.
    Own(OwnArgs),
}

/// Flags of `own`.
#[derive(Debug, Args)]
pub struct OwnArgs {
    /// Folder of the store. Links in it are not followed, and no other file system is entered.
    #[arg(long, env = "LARDER_DATA")]
    pub data: PathBuf,
    /// User that gets it.
    #[arg(long, env = "LARDER_UID", default_value_t = 50555)]
    pub uid: u32,
    /// Group that gets it.
    #[arg(long, env = "LARDER_GID", default_value_t = 50555)]
    pub gid: u32,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// NodeConfig document (YAML); it is followed while running.
    #[arg(long, env = "LARDER_CONFIG", conflicts_with_all = ["data", "upstream", "capacity"])]
    config: Option<PathBuf>,
    /// Folder of the store, instead of --config.
    #[arg(long, env = "LARDER_DATA", required_unless_present = "config")]
    data: Option<PathBuf>,
    /// Registry to cache, instead of --config; repeat for more. BASE_URL is where its API is, for
    /// example `docker.io=https://mirror.example.com`.
    #[arg(
        long,
        env = "LARDER_UPSTREAM",
        value_name = "HOST[=BASE_URL]",
        value_delimiter = ',',
        required_unless_present = "config"
    )]
    upstream: Vec<UpstreamFlag>,
    /// Size that the store may have, with --data. Default 20Gi.
    #[arg(long, env = "LARDER_CAPACITY", value_name = "SIZE")]
    capacity: Option<ByteSize>,
    /// Address of the pull API. Keep it on loopback: it answers without authentication.
    #[arg(long, env = "LARDER_LISTEN", default_value = "127.0.0.1:5055")]
    pub listen: SocketAddr,
    /// Address of metrics, health and reports.
    #[arg(long, env = "LARDER_ADMIN", default_value = "127.0.0.1:5056")]
    pub admin: SocketAddr,
    /// Name of this process in reports; in a cluster, the pod's UID.
    #[arg(long, env = "LARDER_INSTANCE", default_value = "standalone")]
    pub instance: String,
    /// Name of the node, for reports.
    #[arg(long, env = "LARDER_NODE_NAME", default_value = "")]
    pub node_name: String,
    /// Time in which every stored blob is read once and compared with its digest, for damage that the
    /// disk does not report; 0 for never.
    #[arg(long, env = "LARDER_SCRUB_PERIOD", value_name = "DURATION", default_value = "7d")]
    pub scrub_period: Duration,
    /// State file of `larder-node configure`, for reports.
    #[arg(long, env = "LARDER_MIRROR_STATE", value_name = "FILE")]
    pub mirror_state: Option<PathBuf>,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Form of the log on standard error.
    #[arg(long, env = "LARDER_LOG", value_enum, default_value_t = LogFormat::Pretty)]
    pub log: LogFormat,
    /// What is logged: error, warn, info, debug (one line per request), trace; or filters such as
    /// `info,larder_node_cache::upstream=debug`.
    #[arg(long, env = "LARDER_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Pretty,
}

/// `HOST[=BASE_URL]`; both parts are checked with the rest of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UpstreamFlag {
    host: String,
    base_url: Option<String>,
}

impl FromStr for UpstreamFlag {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, base_url) = match text.split_once('=') {
            Some((host, base_url)) => (host, Some(base_url.to_owned())),
            None => (text, None),
        };
        Ok(Self { host: host.to_owned(), base_url })
    }
}

impl ServeArgs {
    /// Where the configuration comes from.
    pub fn source(&self) -> Result<ConfigSource, serde_yaml::Error> {
        if let Some(path) = &self.config {
            return Ok(ConfigSource::File(path.clone()));
        }
        let data = self.data.clone().unwrap_or_default();
        let defaults = Storage::default();
        let upstreams = self.upstream.iter().map(|flag| {
            let endpoints = flag.base_url.iter().map(|url| Endpoint { url: url.clone() }).collect();
            Upstream { endpoints, ..Upstream::new(&flag.host) }
        });
        let document = NodeConfig {
            api_version: API_VERSION.to_owned(),
            kind: "NodeConfig".to_owned(),
            storage: Storage {
                path: std::path::absolute(&data).unwrap_or(data),
                capacity: self.capacity.unwrap_or(defaults.capacity),
                ..defaults
            },
            containerd: larder_crds::node::Containerd::default(),
            report_token_file: String::new(),
            upstreams: upstreams.collect(),
        };
        serde_yaml::to_string(&document).map(ConfigSource::Text)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::Config;

    #[test]
    fn every_flag_has_a_larder_variable_and_a_help_text() {
        Cli::command().debug_assert();
        for command in ["serve", "configure", "withdraw"] {
            let command = Cli::command().find_subcommand(command).unwrap().clone();
            for argument in command.get_arguments().filter(|a| a.get_id() != "help") {
                let variable = argument.get_env().unwrap_or_default().to_string_lossy();
                assert!(variable.starts_with("LARDER_"), "{}", argument.get_id());
                assert!(argument.get_help().is_some(), "{}", argument.get_id());
            }
        }
    }

    #[test]
    fn flags_alone_make_a_configuration() {
        let cli = Cli::parse_from([
            "larder-node",
            "serve",
            "--data",
            "store",
            "--capacity",
            "5Gi",
            "--upstream",
            "docker.io",
            "--upstream",
            "ghcr.io=http://127.0.0.1:5000",
        ]);
        let Command::Serve(args) = cli.command else { panic!("not serve") };
        let config: Config = args.source().unwrap().load().unwrap();
        assert!(config.storage.path.is_absolute() && config.storage.path.ends_with("store"));
        assert_eq!(config.storage.capacity.bytes(), 5 << 30);
        let endpoints: Vec<String> =
            config.upstreams.values().map(|upstream| upstream.endpoints[0].to_string()).collect();
        assert_eq!(endpoints, ["https://registry-1.docker.io/", "http://127.0.0.1:5000/"]);
    }

    #[test]
    fn a_file_and_flags_exclude_each_other() {
        let both =
            ["larder-node", "serve", "--config", "c", "--data", "d", "--upstream", "a.example"];
        assert!(Cli::try_parse_from(both).is_err());
        assert!(Cli::try_parse_from(["larder-node", "serve"]).is_err());
    }
}

//! The flags of the commands that write containerd's mirror files.

use std::path::PathBuf;

use clap::Args;

use super::LogArgs;
use crate::mirror::probe::MirrorUrl;

/// Flags of `configure`.
#[derive(Debug, Args)]
pub struct ConfigureArgs {
    /// NodeConfig document (YAML) that lists the registries; it is followed while running.
    #[arg(long, env = "LARDER_CONFIG")]
    pub config: PathBuf,
    /// containerd's `config_path`. Default: `containerd.certsDir` of the document.
    #[arg(long, env = "LARDER_CERTS_DIR", value_name = "DIR")]
    pub certs_dir: Option<PathBuf>,
    /// containerd's own configuration. Default: containerd.configFile of the document.
    #[arg(long, env = "LARDER_CONTAINERD_CONFIG", value_name = "FILE")]
    pub containerd_config: Option<PathBuf>,
    /// File in which the state is kept, for `serve --mirror-state`.
    #[arg(long, env = "LARDER_STATE", value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Address of the cache as containerd reaches it. Use 127.0.0.1, which no proxy setting covers.
    #[arg(
        long,
        env = "LARDER_MIRROR",
        value_name = "URL",
        default_value = "http://127.0.0.1:5055"
    )]
    pub mirror: MirrorUrl,
    /// Whose files these are; in a cluster, the pod's UID. A newer instance takes over.
    #[arg(long, env = "LARDER_INSTANCE", default_value = "standalone", value_parser = instance)]
    pub instance: String,
    /// Write the files once and end: 0 effective, 3 `config_path` missing or elsewhere, 4
    /// colon-separated, 5 mirrors of somebody else left alone, 6 not containerd, 1 anything else.
    #[arg(long, env = "LARDER_ONCE")]
    pub once: bool,
    /// Only show what would be changed, as a diff.
    #[arg(long, env = "LARDER_DRY_RUN")]
    pub dry_run: bool,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `withdraw`.
#[derive(Debug, Args)]
pub struct WithdrawArgs {
    /// containerd's `config_path`.
    #[arg(
        long,
        env = "LARDER_CERTS_DIR",
        value_name = "DIR",
        default_value = "/etc/containerd/certs.d"
    )]
    pub certs_dir: PathBuf,
    /// Withdraw the files of this instance.
    #[arg(long, env = "LARDER_INSTANCE", value_parser = instance, required_unless_present = "any")]
    pub instance: Option<String>,
    /// Withdraw the files of every instance.
    #[arg(long, env = "LARDER_ANY")]
    pub any: bool,
    /// Only show what would be changed, as a diff.
    #[arg(long, env = "LARDER_DRY_RUN")]
    pub dry_run: bool,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// It becomes part of one line in the files.
fn instance(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if plain && (1..=253).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("write 1 to 253 printable ASCII characters without spaces".to_owned())
}

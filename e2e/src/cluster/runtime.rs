//! A node's containerd, in its production paths.

use std::path::PathBuf;

use anyhow::Result;

use super::network::CONTROL_PLANE;
use crate::{containerd::Version, tools};

/// The registry of the cluster's own images, which speaks plain HTTP.
pub(super) const OWN_PORT: u16 = 5000;

/// The name of the image that keeps a pod's namespaces.
pub(super) fn pause_image() -> String {
    format!("{CONTROL_PLANE}:{OWN_PORT}/pause:1")
}

/// The folder with containerd and its shim, which must come first on its `PATH`.
pub(super) fn programs(version: Version) -> Result<PathBuf> {
    tools::built(&format!("{version}"))
}

/// `/etc/containerd/config.toml`. Everything is left as distributions ship it, but for the pause
/// image and what this kind of machine demands: no process here may lower its `oom_score_adj`.
pub(super) fn configuration(version: Version) -> String {
    let pause = pause_image();
    match version {
        Version::V1_6 | Version::V1_7 => format!(
            r#"version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
"#
        ),
        Version::V2_4 => format!(
            r#"version = 3
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/etc/cni/net.d"
"#
        ),
    }
}

/// The file of [`own_registry`]: the folder of a registry on a port.
pub(super) fn own_registry_file() -> String {
    format!("/etc/containerd/certs.d/{CONTROL_PLANE}:{OWN_PORT}/hosts.toml")
}

/// Lets containerd speak plain HTTP to the cluster's own registry. To Larder it is a stranger's
/// file, to be left alone.
pub(super) fn own_registry() -> String {
    let address = format!("http://{CONTROL_PLANE}:{OWN_PORT}");
    format!(
        "server = \"{address}\"\n\n[host.\"{address}\"]\n  \
         capabilities = [\"pull\", \"resolve\"]\n"
    )
}

//! Who may ask the API server: users with fixed tokens, and files that say so.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;

use super::network::api_server;

/// The one who may do everything.
pub(super) const ADMIN: &str = "admin";
pub(super) const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
pub(super) const SCHEDULER: &str = "system:kube-scheduler";
pub(super) const PROXY: &str = "system:kube-proxy";
/// Nodes that a story may have. Their tokens must be known when the API server starts.
pub(super) const NODES: u8 = 9;

/// The user that a node's kubelet is.
pub(super) fn node_user(node: &str) -> String {
    format!("system:node:{node}")
}

/// A user's token. No secret: nothing outside the story's namespaces reaches the API server.
pub(super) fn token(user: &str) -> String {
    format!("token-of-{}", user.replace(':', "-"))
}

/// The file of `--token-auth-file`: token, user, uid, groups.
pub(super) fn write_tokens(path: &Path) -> Result<()> {
    let users = [
        (ADMIN.to_owned(), "system:masters"),
        (CONTROLLER_MANAGER.to_owned(), ""),
        (SCHEDULER.to_owned(), ""),
        (PROXY.to_owned(), ""),
    ];
    let nodes = (1..=NODES).map(|number| (node_user(&format!("n{number}")), "system:nodes"));
    let lines = users.into_iter().chain(nodes).map(|(user, group)| match group {
        "" => format!("{},{user},{user}\n", token(&user)),
        group => format!("{},{user},{user},\"{group}\"\n", token(&user)),
    });
    let text: String = lines.collect();
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Writes `USER.kubeconfig` into a folder (the colons of users become dashes).
pub(super) fn write(folder: &Path, user: &str, ca_pem: &str) -> Result<PathBuf> {
    let path = folder.join(format!("{}.kubeconfig", user.replace(':', "-")));
    fs::write(&path, text(user, ca_pem)).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// The file that kubectl, Helm and the kubelet read (JSON is YAML).
pub(super) fn text(user: &str, ca_pem: &str) -> String {
    let server = format!("https://{}", api_server());
    let ca = BASE64_STANDARD.encode(ca_pem);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "larder",
            "cluster": { "server": server, "certificate-authority-data": ca },
        }],
        "users": [{ "name": user, "user": { "token": token(user) } }],
        "contexts": [{ "name": "larder", "context": { "cluster": "larder", "user": user } }],
        "current-context": "larder",
    })
    .to_string()
}

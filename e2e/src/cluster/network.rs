//! Who is where. The story's own network namespace holds the control plane and the upstreams; a
//! bridge in it connects the nodes, and nothing leads out.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};

use crate::process;

const BRIDGE: &str = "nodes";
/// The control plane, and the registry of the cluster's own images.
pub(super) const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Plays docker.io.
pub(super) const DOCKER_HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// A registry of a company with a certificate authority of its own.
pub(super) const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// The names of upstreams that nodes know.
pub(super) const NAMES: [(Ipv4Addr, &str); 2] =
    [(DOCKER_HUB, "registry-1.docker.io"), (PRIVATE, "registry.example")];

pub(super) const SERVICES: &str = "10.96.0.0/16";
/// The first address of [`SERVICES`], which is the API server's.
pub(super) const API_SERVICE: &str = "10.96.0.1";
pub(super) const PODS: &str = "10.244.0.0/16";

/// The API server.
pub(super) fn api_server() -> SocketAddr {
    (CONTROL_PLANE, 6443).into()
}

/// Of the node with that number.
pub(super) fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + number)
}

/// The addresses of that node's pods.
pub(super) fn pod_network(number: u8) -> String {
    format!("10.244.{number}.0/24")
}

/// Makes the bridge in the namespace of the calling thread.
pub(super) async fn build(home: &Path) -> Result<()> {
    ip(home, &["link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"]).await?;
    for address in [CONTROL_PLANE, DOCKER_HUB, PRIVATE] {
        ip(home, &["address", "add", &format!("{address}/24"), "dev", BRIDGE]).await?;
    }
    ip(home, &["link", "set", BRIDGE, "up"]).await?;
    // From the pods of one node to those of another.
    let forward = "/proc/sys/net/ipv4/ip_forward";
    fs::write(forward, "1").with_context(|| format!("writing {forward}"))
}

/// Connects the namespace of a process as a node: a cable to the bridge, the way to its pods.
pub(super) async fn plug(home: &Path, number: u8, namespace_of: u32) -> Result<()> {
    let cable = cable(number);
    let other_end = ["peer", "name", "eth0", "netns", &namespace_of.to_string()];
    let add = ["link", "add", &cable, "master", BRIDGE, "type", "veth"];
    ip(home, &[&add[..], &other_end[..]].concat()).await?;
    ip(home, &["link", "set", &cable, "up"]).await?;
    let via = node_address(number).to_string();
    ip(home, &["route", "replace", &pod_network(number), "via", &via]).await
}

/// Pulls or plugs in a node's cable.
pub(super) async fn set_cable(home: &Path, number: u8, up: bool) -> Result<()> {
    ip(home, &["link", "set", &cable(number), if up { "up" } else { "down" }]).await
}

fn cable(number: u8) -> String {
    format!("node{number}")
}

/// What `ip -batch` makes of a node's own namespace. The default route leads nowhere, but without
/// one a connection to a Service fails before kube-proxy's rules can turn it around. Packets to
/// another node's pods take it too: the bridge's namespace knows all nodes.
pub(super) fn inside(number: u8) -> String {
    format!(
        "link set lo up\n\
         address add {}/24 dev eth0\n\
         link set eth0 up\n\
         route add default via {CONTROL_PLANE}\n",
        node_address(number)
    )
}

pub(super) async fn ip(home: &Path, arguments: &[&str]) -> Result<()> {
    let mut command: Command = process::command(Path::new("/usr/sbin/ip"), home);
    command.args(arguments);
    process::run(command).await?;
    Ok(())
}

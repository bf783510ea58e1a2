//! What a node believes before anybody has changed it: names of upstreams and certificates.

use std::fs;

use anyhow::{Context, Result};

use super::network::{NAMES, node_address};

/// The node's trust store: the machine's, and one authority more.
pub(super) fn certificates(authority: &str) -> Result<String> {
    const STORE: &str = "/etc/ssl/certs/ca-certificates.crt";
    let store = fs::read_to_string(STORE).with_context(|| format!("reading {STORE}"))?;
    Ok(format!("{store}\n{authority}"))
}

/// `/etc/hosts` of a node.
pub(super) fn hosts(number: u8, node: &str) -> String {
    let mut lines = vec!["127.0.0.1 localhost".to_owned()];
    lines.push(format!("{} {node}", node_address(number)));
    lines.extend(NAMES.map(|(address, name)| format!("{address} {name}")));
    lines.join("\n") + "\n"
}

/// `/etc/resolv.conf` of a node: refused at once, where the machine's own server would be waited
/// for.
pub(super) const RESOLVER: &str = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";

//! The API server's audit log: what Larder asks for, and how it is answered.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

pub(super) const POLICY_FILE: &str = "audit.yaml";
pub(super) const LOG_FILE: &str = "audit.log";

/// Of Larder's service accounts alone: everybody else's requests are a hundred times as many. A watch
/// has a line when it starts, and not only when it ends.
pub(super) const POLICY: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["system:serviceaccount:larder:larder-operator", "system:serviceaccount:larder:larder-uninstall"]
- level: None
"#;

/// A request for an object or a list.
#[derive(Clone, Debug)]
pub struct Request {
    /// Name of the service account.
    pub account: String,
    /// As in a role: `get`, `list`, ...
    pub verb: String,
    /// API group, empty for the core.
    pub group: String,
    /// As in a role, with its subresource: `proxycaches/status`.
    pub resource: String,
    /// Its namespace; empty if it has none, or all were meant.
    pub namespace: String,
    /// Status of the answer.
    pub code: u64,
}

/// Every request so far; what is no request for an object (`/version`) is left out.
pub(super) fn read(log: &Path) -> Result<Vec<Request>> {
    let text = fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
    let mut requests = Vec::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).context("a line of the audit log")?;
        requests.extend(request(&event));
    }
    Ok(requests)
}

fn request(event: &Value) -> Option<Request> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = event.get("objectRef")?;
    let resource = text(&object["resource"]);
    Some(Request {
        account: text(&event["user"]["username"]).rsplit(':').next()?.to_owned(),
        verb: text(&event["verb"]),
        group: text(&object["apiGroup"]),
        resource: match object["subresource"].as_str() {
            Some(part) => format!("{resource}/{part}"),
            None => resource,
        },
        namespace: text(&object["namespace"]),
        code: event["responseStatus"]["code"].as_u64()?,
    })
}

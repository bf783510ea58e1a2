//! Configurations, written as an operator would. JSON is YAML.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::faulty::{CREDENTIALS, Origin};

/// One entry of `upstreams`.
#[derive(Clone, Debug)]
pub struct Upstream {
    entry: Map<String, Value>,
    file: Option<(String, String)>,
}

impl Upstream {
    pub fn new(host: &str) -> Self {
        let Value::Object(entry) = json!({"host": host, "endpoints": []}) else { unreachable!() };
        Self { entry, file: None }
    }

    /// An upstream whose only endpoint is this origin.
    pub fn at(host: &str, origin: &Origin) -> Self {
        Self::new(host).endpoint(&origin.url())
    }

    pub fn endpoint(mut self, url: &str) -> Self {
        if let Some(endpoints) = self.entry["endpoints"].as_array_mut() {
            endpoints.push(json!({"url": url}));
        }
        self
    }

    /// `robot:s3cret`, in a file of its own.
    pub fn with_credentials(self) -> Self {
        let (username, password) = CREDENTIALS.split_once(':').unwrap();
        let name = format!("{}.credentials", self.host());
        let content = json!({"username": username, "password": password}).to_string();
        let mut upstream = self.set("credentialsFile", json!(name));
        upstream.file = Some((name, content));
        upstream
    }

    pub fn shared(self, repositories: &[&str]) -> Self {
        let access = json!({"mode": "Shared", "repositories": repositories});
        self.with_credentials().set("access", access)
    }

    pub fn tags(self, tags: Value) -> Self {
        self.set("tags", tags)
    }

    pub fn repositories(self, allow: &[&str], deny: &[&str]) -> Self {
        self.set("repositories", json!({"allow": allow, "deny": deny}))
    }

    /// Any field.
    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.entry.insert(field.to_owned(), value);
        self
    }

    fn host(&self) -> &str {
        self.entry["host"].as_str().unwrap_or_default()
    }
}

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    upstreams: Vec<Upstream>,
    report_token: Option<String>,
    capacity: String,
}

impl NodeConfig {
    pub fn new(upstreams: impl IntoIterator<Item = Upstream>) -> Self {
        let upstreams = upstreams.into_iter().collect();
        Self { upstreams, report_token: None, capacity: "1Gi".to_owned() }
    }

    pub fn capacity(mut self, capacity: &str) -> Self {
        capacity.clone_into(&mut self.capacity);
        self
    }

    pub fn report_token(mut self, token: &str) -> Self {
        self.report_token = Some(token.to_owned());
        self
    }

    /// The files that the document names, by name.
    pub fn files(&self) -> Vec<(String, String)> {
        let token =
            self.report_token.iter().map(|token| ("report-token".to_owned(), token.clone()));
        self.upstreams.iter().filter_map(|upstream| upstream.file.clone()).chain(token).collect()
    }

    /// The document.
    pub fn text(&self, store: &Path) -> String {
        let upstreams: Vec<_> = self.upstreams.iter().map(|upstream| &upstream.entry).collect();
        let mut document = json!({
            "apiVersion": "node.larder.dev/v1alpha1",
            "kind": "NodeConfig",
            "storage": {"path": store, "capacity": self.capacity, "minFree": "16Mi"},
            "upstreams": upstreams,
        });
        if self.report_token.is_some() {
            document["reportTokenFile"] = json!("report-token");
        }
        format!("{document:#}\n")
    }
}

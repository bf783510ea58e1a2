//! Larder in a cluster: the image that is shipped, and the chart as Helm installs it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Cluster, network, node::Node, trust};
use crate::{
    image::static_image::{self, Contents},
    metrics::Metrics,
    process::{self, Output},
    tools,
};

/// The namespace of the release.
pub const NAMESPACE: &str = "larder";
const RELEASE: &str = "larder";
const REPOSITORY: &str = "larder";
const ADMIN_PORT: u16 = 5056;
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/larder");

impl Cluster {
    /// Puts the programs of `make image` into the cluster's own registry as `larder:TAG`. Every tag
    /// is another image; what they trust is what the nodes trust.
    pub async fn load_larder(&self, tag: &str) -> Result<()> {
        let folder = self.folder.join(format!("image-{tag}"));
        fs::create_dir_all(&folder)?;
        let ca_bundle = folder.join("ca-certificates.crt");
        let authorities = trust::certificates(self.trusted.pem())?;
        fs::write(&ca_bundle, format!("{authorities}\n# {tag}\n"))?;
        let binaries = ["larder-node", "larder-operator"].map(tools::static_program);
        let binaries = binaries.into_iter().collect::<Result<_>>()?;
        let layout = folder.join("layout");
        static_image::write(&layout, &Contents { binaries, ca_bundle })?;
        let source = format!("oci:{}:{}", layout.display(), static_image::TAG);
        self.load_image(&source, &format!("{REPOSITORY}:{tag}")).await?;
        Ok(())
    }

    /// `helm install` of the chart with that image and those `--set` values. The operator
    /// is ready when this returns.
    pub async fn install(&self, tag: &str, values: &[&str]) -> Result<String> {
        let own = self.upstreams.own.address();
        let repository = format!("image.repository={own}/{REPOSITORY}");
        let tag = format!("image.tag={tag}");
        let mut arguments = vec!["install", RELEASE, CHART];
        arguments.extend(["--namespace", NAMESPACE, "--create-namespace"]);
        arguments.extend(["--wait", "--timeout", "120s", "--set", &repository, "--set", &tag]);
        for value in values {
            arguments.extend(["--set", value]);
        }
        self.helm(&arguments).await
    }

    /// `helm upgrade` to another image as the guide has it. The operator is ready when this returns.
    pub async fn upgrade(&self, tag: &str) -> Result<String> {
        let tag = format!("image.tag={tag}");
        let upgrade = ["upgrade", RELEASE, CHART, "--namespace", NAMESPACE];
        let values = ["--reset-then-reuse-values", "--set", &tag];
        self.helm(&[&upgrade[..], &values, &["--wait", "--timeout", "120s"]].concat()).await
    }

    /// `helm uninstall` with further arguments, which must succeed.
    pub async fn uninstall(&self, arguments: &[&str]) -> Result<String> {
        let uninstall = ["uninstall", RELEASE, "--namespace", NAMESPACE];
        let wait = ["--wait", "--timeout", "120s"];
        self.helm(&[&uninstall, &wait[..], arguments].concat()).await
    }

    /// Helm, which must succeed. Returns what it prints.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        let Output { status, stdout, stderr } = self.try_helm(arguments).await?;
        ensure!(status.success(), "helm {}: {status}\n{stdout}{stderr}", arguments.join(" "));
        Ok(stdout)
    }

    /// Helm, however it ends.
    pub async fn try_helm(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = process::command(&tools::built("helm/helm")?, &self.folder);
        command.args(arguments).arg("--kubeconfig").arg(self.kubeconfig());
        process::output(command).await
    }

    /// An object of that path says so in a condition, within `patience`.
    pub async fn wait_for_condition(
        &self,
        path: &str,
        (kind, status, reason): (&str, &str, Option<&str>),
        patience: Duration,
    ) -> Result<()> {
        let what = format!("{path}: {kind} is {status} {}", reason.unwrap_or_default());
        self.wait_for(&what, patience, async |cluster| {
            let found = cluster.condition(path, kind).await?;
            Ok(found.is_some_and(|found| {
                found["status"] == status && reason.is_none_or(|reason| found["reason"] == reason)
            }))
        })
        .await
    }

    /// The condition of that type, if the object has one.
    pub async fn condition(&self, path: &str, kind: &str) -> Result<Option<Value>> {
        let object = self.get(path).await?.with_context(|| format!("no object {path}"))?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.into_iter().find(|condition| condition["type"] == kind))
    }

    /// The pods of node caches, newest last.
    pub async fn cache_pods(&self) -> Result<Vec<Value>> {
        let path = format!(
            "/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io%2Fname%3Dlarder-node"
        );
        let list = self.get(&path).await?.unwrap_or_default();
        let mut pods = list["items"].as_array().cloned().unwrap_or_default();
        pods.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].to_string());
        Ok(pods)
    }

    /// What the node cache of a node counts.
    pub async fn cache_metrics(&self, node: &Node) -> Result<Metrics> {
        let address = network::node_address(node.number());
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5));
        let asked = client.build()?.get(format!("http://{address}:{ADMIN_PORT}/metrics"));
        let answer = asked.send().await.with_context(|| format!("the cache of {}", node.name()))?;
        Metrics::parse(&answer.error_for_status()?.text().await?)
    }
}

impl Node {
    /// The mirror file of an upstream's folder in certs.d, if it is there.
    pub fn mirror_file(&self, folder: &str) -> Option<String> {
        let path = Path::new("/etc/containerd/certs.d").join(folder).join("hosts.toml");
        fs::read_to_string(self.seen(&path.to_string_lossy())).ok()
    }
}

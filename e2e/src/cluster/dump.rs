//! What a failed story leaves to read.

use std::fmt::Write as _;

use super::Cluster;

impl Cluster {
    /// Pods, events and the last lines of all containers. The logs of the cluster's own programs
    /// are in the sandbox, which prints their ends by itself.
    pub async fn dump(&self) -> String {
        let mut text = String::new();
        let questions: [&[&str]; 4] = [
            &["get", "nodes,pods", "--all-namespaces", "--output=wide"],
            &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"],
            &["get", "daemonsets,deployments,jobs,configmaps", "--all-namespaces"],
            &["get", "larder", "--output=yaml", "--ignore-not-found"],
        ];
        for arguments in questions {
            self.tell(&mut text, arguments).await;
        }
        for (namespace, pod) in self.pods().await {
            let namespace = format!("--namespace={namespace}");
            let arguments = ["logs", &pod, &namespace, "--all-containers", "--prefix", "--tail=30"];
            self.tell(&mut text, &arguments).await;
        }
        text
    }

    async fn tell(&self, text: &mut String, arguments: &[&str]) {
        let timeout = [&["--request-timeout=10s"], arguments].concat();
        let told = match self.try_kubectl(&timeout).await {
            Ok(output) => format!("{}{}", output.stdout, output.stderr),
            Err(error) => format!("{error:#}\n"),
        };
        // safe to ignore: writing to a String cannot fail
        let _ = write!(text, "--- kubectl {}\n{told}", arguments.join(" "));
    }

    async fn pods(&self) -> Vec<(String, String)> {
        let Ok(Some(list)) = self.get("/api/v1/pods").await else { return Vec::new() };
        let pods = list["items"].as_array().into_iter().flatten();
        pods.filter_map(|pod| {
            let field = |name: &str| Some(pod["metadata"][name].as_str()?.to_owned());
            Some((field("namespace")?, field("name")?))
        })
        .collect()
    }
}

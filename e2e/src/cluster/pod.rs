//! Pods that a story runs to see an image arrive.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Cluster;
use crate::process::POLL;

/// How long a pod may take to run. With 5 s between them the kubelet tries three times.
const PATIENCE: Duration = Duration::from_mins(1);

/// When the kubelet asks for an image that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every start of a container.
    Always,
    /// Never.
    IfNotPresent,
}

/// An event that tells about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `Pulling`, `Pulled`, `Started`, `Failed`, ...
    pub reason: String,
    /// What happened.
    pub message: String,
}

/// A pod that has reached its goal.
#[derive(Clone, Debug)]
pub struct PodRun {
    /// Its name in the namespace `default`.
    pub name: String,
    /// From its creation to the container that runs, as the story sees it.
    pub took: Duration,
    /// `Running` or `Succeeded`.
    pub phase: String,
    /// The digest that the kubelet names as the image's.
    pub image_id: String,
    /// What was told about it so far, oldest first.
    pub events: Vec<Event>,
}

impl PodRun {
    /// Whether something of that kind was told about it (`Pulled`, `Failed`, ...).
    pub fn was_told(&self, reason: &str) -> bool {
        self.events.iter().any(|event| event.reason == reason)
    }
}

impl fmt::Display for PodRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} after {:.2} s", self.name, self.phase, self.took.as_secs_f64())
    }
}

impl Cluster {
    /// Runs a pod of one container on a node and waits until it runs or is done. The kubelet tries
    /// a failed pull again: whether one failed is among the events.
    pub async fn pod(&self, node: &str, image: &str, policy: PullPolicy) -> Result<PodRun> {
        let created = Instant::now();
        let name = self.create_pod(node, image, policy).await?;
        let mut run = self.pod_runs(&name).await?;
        run.took = created.elapsed();
        Ok(run)
    }

    /// Creates such a pod without waiting for it. Returns its name.
    pub async fn create_pod(&self, node: &str, image: &str, policy: PullPolicy) -> Result<String> {
        let name = format!("pod-{}", self.next_number());
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "namespace": "default" },
            "spec": {
                // Past the scheduler: the story says where.
                "nodeName": node,
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "app",
                    "image": image,
                    "imagePullPolicy": format!("{policy:?}"),
                }],
            },
        });
        self.apply(&manifest.to_string()).await?;
        Ok(name)
    }

    /// Waits until a pod of the namespace `default` runs or is done. An error, with what the
    /// kubelet says, if it fails or does neither.
    pub async fn pod_runs(&self, name: &str) -> Result<PodRun> {
        let asked = Instant::now();
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        loop {
            let pod = self.get(&path).await?.with_context(|| format!("{name} has vanished"))?;
            let status = &pod["status"];
            let phase = status["phase"].as_str().unwrap_or_default().to_owned();
            let took = asked.elapsed();
            if matches!(phase.as_str(), "Running" | "Succeeded") {
                let image_id = status["containerStatuses"][0]["imageID"].as_str();
                let image_id = image_id.unwrap_or_default().to_owned();
                let (name, events) = (name.to_owned(), self.events(name).await?);
                return Ok(PodRun { name, took, phase, image_id, events });
            }
            if phase == "Failed" || took > PATIENCE {
                let events = self.events(name).await?;
                bail!("{name} is {phase} after {took:.1?}\n{status:#}\n{events:#?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Deletes a pod. It is gone when this returns.
    pub async fn delete_pod(&self, pod: &PodRun) -> Result<()> {
        self.delete(&["pod", &pod.name, "--namespace=default", "--wait"]).await?;
        Ok(())
    }

    /// What was told about an object in the namespace `default`.
    pub async fn events(&self, object: &str) -> Result<Vec<Event>> {
        let path = format!(
            "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3D{object}"
        );
        let list = self.get(&path).await?.context("the namespace default is there")?;
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or("").to_owned();
        let events = list["items"].as_array().into_iter().flatten();
        Ok(events
            .map(|event| Event { reason: text(event, "reason"), message: text(event, "message") })
            .collect())
    }
}

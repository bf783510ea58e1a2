//! What is wrong on which node. No I/O.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use larder_crds::{
    node::NodeReport,
    resources::{NodeReason, ProblemNode},
};

use crate::{
    condition::shorten,
    fleet::{Answers, is_ready},
    labels,
};

/// Problem nodes in a status.
pub(super) const MOST_NODES: usize = 20;
const MAX_MESSAGE: usize = 512;
/// For how long a new pod need not be ready: its image is pulled meanwhile.
const STARTING: SignedDuration = SignedDuration::from_mins(1);

/// What is known of the nodes of a cache.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its pods.
    pub pods: Vec<Arc<Pod>>,
    /// All nodes.
    pub nodes: Vec<Arc<Node>>,
    /// What the pods answered, by UID.
    pub answers: Answers,
    /// Whether everybody has been asked at least once.
    pub polled: bool,
    /// Pods that were told of their configuration often enough, by UID.
    pub given_up: Vec<String>,
    /// When this was seen.
    pub now: Timestamp,
    /// What to say about nodes that the image does not run on.
    pub without_image: Option<String>,
}

impl Seen {
    /// What a pod reported.
    pub fn report(&self, pod: &Pod) -> Option<&NodeReport> {
        self.answers.get(&pod.uid()?)?.report.as_ref().ok()
    }

    /// Every problem of every node, one line a node: the worst one, which is often the cause of the
    /// others. By name of the node.
    pub fn problems(&self) -> Vec<ProblemNode> {
        let mut problems: Vec<_> = self
            .pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter_map(|pod| {
                let name = pod.spec.as_ref()?.node_name.clone()?;
                let (reason, message) = self.problem(pod, &name)?;
                let message = shorten(message, MAX_MESSAGE);
                Some(ProblemNode { name, reason: reason.to_string(), message })
            })
            .collect();
        problems.sort_by(|one, other| one.name.cmp(&other.name));
        problems
    }

    fn problem(&self, pod: &Pod, node: &str) -> Option<(NodeReason, String)> {
        if let Some(runtime) = self.other_runtime(node) {
            let message = format!(
                "its runtime is {runtime}; Larder configures containerd only: leave the node out in spec.nodes"
            );
            return Some((NodeReason::RuntimeNotContainerd, message));
        }
        if !is_ready(pod) {
            return (!self.is_new(pod)).then(|| (NodeReason::NotReady, why_not_ready(pod)));
        }
        let uid = pod.uid().unwrap_or_default();
        let report = match &self.answers.get(&uid)?.report {
            Ok(report) => report,
            Err((reason, message)) => return Some((*reason, message.clone())),
        };
        if self.given_up.contains(&uid) {
            let message = "it was told three times, and still reports another configuration; see the log of its server";
            return Some((NodeReason::ConfigPending, message.to_owned()));
        }
        mirror(report).or_else(|| store(report)).or_else(|| upstream(report))
    }

    /// Whether a pod may still be starting: every roll-out would be a problem otherwise.
    fn is_new(&self, pod: &Pod) -> bool {
        let created = pod.creation_timestamp();
        created.is_some_and(|created| self.now.duration_since(created.0) < STARTING)
    }

    fn other_runtime(&self, node: &str) -> Option<String> {
        let found = self.nodes.iter().find(|found| found.name_any() == node)?;
        let runtime = &found.status.as_ref()?.node_info.as_ref()?.container_runtime_version;
        (!runtime.is_empty() && !runtime.starts_with("containerd://")).then(|| runtime.clone())
    }

    /// Nodes whose containerd is sent to the cache.
    pub fn mirrored(&self) -> usize {
        self.pods.iter().filter(|pod| self.report(pod).is_some_and(is_mirrored)).count()
    }

    /// Whether some containerd has asked its cache, which proves that it reads mirror files.
    pub fn any_asked(&self) -> bool {
        let mut reports = self.pods.iter().filter_map(|pod| self.report(pod));
        reports.any(|report| report.upstreams.values().any(|it| it.mirrored_requests > 0))
    }

    /// Pods that answered.
    pub fn reporting(&self) -> usize {
        self.pods.iter().filter(|pod| self.report(pod).is_some()).count()
    }
}

fn is_mirrored(report: &NodeReport) -> bool {
    report.mirror.state == "Mirrored"
}

fn why_not_ready(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let containers = status.map(|status| {
        let of = |list: &Option<Vec<_>>| list.clone().unwrap_or_default();
        [of(&status.init_container_statuses), of(&status.container_statuses)].concat()
    });
    let waiting = containers.unwrap_or_default().into_iter().find_map(|container| {
        let waiting = container.state?.waiting?;
        let reason = waiting.reason.filter(|reason| reason != "PodInitializing")?;
        Some(format!(
            "container {}: {reason}: {}",
            container.name,
            waiting.message.unwrap_or_default()
        ))
    });
    waiting
        .unwrap_or_else(|| format!("pod {} is not ready; see kubectl describe pod", pod.name_any()))
}

fn mirror(report: &NodeReport) -> Option<(NodeReason, String)> {
    let reason = match report.mirror.reason.as_str() {
        "" => return None,
        "ConfigPathMissing" => NodeReason::ConfigPathMissing,
        "ColonConfigPath" => NodeReason::ColonConfigPath,
        "ConfigPathElsewhere" => NodeReason::ConfigPathElsewhere,
        "ForeignMirror" => NodeReason::ForeignMirror,
        "CertsDirUnusable" => NodeReason::CertsDirUnusable,
        "NotContainerd" => NodeReason::RuntimeNotContainerd,
        "ConfigUnreadable" => NodeReason::ConfigUnreadable,
        _ => NodeReason::MirrorUnreachable,
    };
    let message = match reason {
        NodeReason::ConfigPathMissing => {
            "containerd's configuration has no config_path: set it as docs/guide/distributions.md says and restart containerd"
        }
        NodeReason::ColonConfigPath => {
            "config_path is a list, which this containerd takes for one folder: name one folder, or set \
             spec.containerd.colonPathRepair"
        }
        NodeReason::ConfigPathElsewhere => {
            "config_path names another folder: set spec.containerd.certsDir and configFile"
        }
        NodeReason::ForeignMirror => {
            "a mirror of somebody else was left alone; see the configurator's log"
        }
        NodeReason::CertsDirUnusable => {
            "the folder of mirror files cannot be written; see the configurator's log"
        }
        _ => "see the configurator's log",
    };
    Some((reason, message.to_owned()))
}

fn store(report: &NodeReport) -> Option<(NodeReason, String)> {
    let (reason, message) = match report.store.state.as_str() {
        "Full" => (
            NodeReason::DiskFull,
            "what is pulled does not fit and is passed through: raise spec.storage.capacity, or free the disk",
        ),
        "ReadOnly" => (NodeReason::DiskReadOnly, "the disk is read-only: nothing new is kept"),
        "Failing" => (
            NodeReason::DiskFailing,
            "the disk fails, or its folder was deleted: nothing is kept; see the server's log",
        ),
        "Locked" => (NodeReason::StoreLocked, "another process holds the store"),
        _ => return None,
    };
    Some((reason, message.to_owned()))
}

fn upstream(report: &NodeReport) -> Option<(NodeReason, String)> {
    let bad = |accepted: bool| {
        report.upstreams.iter().find(|(_, upstream)| {
            if accepted { upstream.accepted && !upstream.reachable } else { !upstream.accepted }
        })
    };
    if let Some((host, upstream)) = bad(false) {
        return Some((NodeReason::ConfigRejected, format!("{host}: {}", upstream.last_error)));
    }
    let (host, upstream) = bad(true)?;
    Some((NodeReason::UpstreamUnreachable, format!("{host}: {}", upstream.last_error)))
}

/// The first three names, and how many more there are.
pub(super) fn first_of<T: AsRef<str>>(names: &[T]) -> String {
    let first: Vec<_> = names.iter().take(3).map(AsRef::as_ref).collect();
    match names.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Whether the pod has been told of this configuration.
pub(super) fn is_told(pod: &Pod, hash: &str) -> bool {
    pod.annotations().get(labels::CONFIG_HASH).is_some_and(|told| told == hash)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_that_is_not_ready_is_a_problem_after_a_minute() {
        let seen = |seconds: i64| {
            let pod = json!({
                "metadata": {"name": "p", "uid": "u", "creationTimestamp": Timestamp::UNIX_EPOCH},
                "spec": {"nodeName": "n1", "containers": []},
            });
            let pods = vec![Arc::new(serde_json::from_value(pod).unwrap())];
            Seen { pods, now: Timestamp::from_second(seconds).unwrap(), ..Seen::default() }
        };
        assert_eq!(seen(59).problems(), []);
        let problems = seen(60).problems();
        assert_eq!(problems.len(), 1);
        assert_eq!((&*problems[0].name, &*problems[0].reason), ("n1", "NotReady"));
    }
}

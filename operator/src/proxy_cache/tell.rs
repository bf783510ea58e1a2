//! Telling pods that their configuration has changed: an annotation, at which the kubelet looks for
//! new files at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::problems::{Seen, is_told};
use crate::{fleet::is_ready, labels};

/// Pods that are told at once.
const AT_ONCE: usize = 32;
/// How long a pod may take to report what it was told.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is told.
const MOST: u32 = 3;
/// Counts the times, so that every one is a change.
const TOLD: &str = "larder.dev/config-told";

/// Tells pods.
#[derive(Clone)]
pub struct Teller {
    client: Client,
    namespace: String,
    told: Arc<Mutex<HashMap<String, Told>>>,
}

#[derive(Clone, Debug)]
struct Told {
    hash: String,
    times: u32,
    last: Instant,
}

/// What is to be done with one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    Tell,
    GiveUp,
}

fn next(told: Option<&Told>, has: bool, annotated: bool, hash: &str, now: Instant) -> Next {
    if has && annotated {
        return Next::Nothing;
    }
    let Some(told) = told.filter(|told| told.hash == hash) else {
        // A new leader does not know when the last one told it.
        return Next::Tell;
    };
    if now.duration_since(told.last) < PATIENCE || (has && told.times > 0) {
        Next::Nothing
    } else if told.times < MOST {
        Next::Tell
    } else {
        Next::GiveUp
    }
}

impl Teller {
    /// Tells pods of this namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), told: Arc::default() }
    }

    /// Tells the pods that do not report this configuration. Returns the UIDs of those that were
    /// told often enough.
    pub async fn tell(&self, hash: &str, seen: &Seen) -> Result<Vec<String>, kube::Error> {
        let now = Instant::now();
        let mut given_up = Vec::new();
        let mut due = Vec::new();
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.retain(|uid, _| {
                // Those of other caches are not in `seen`; their times are kept for a while.
                seen.pods.iter().any(|pod| pod.uid().as_deref() == Some(uid))
                    || seen.answers.contains_key(uid)
            });
            for pod in seen.pods.iter().filter(|pod| is_ready(pod)) {
                let uid = pod.uid().unwrap_or_default();
                let report = seen.report(pod);
                let has = report.is_some_and(|report| report.config_hash == hash);
                // A pod that was made after the change has read it at its start.
                if has && pod.annotations().get(labels::CONFIG_HASH).is_none() {
                    continue;
                }
                // Whoever does not answer at all is told once.
                let known = told.get(&uid);
                if report.is_none() && is_told(pod, hash) {
                    continue;
                }
                match next(known, has, is_told(pod, hash), hash, now) {
                    Next::Nothing => {}
                    Next::GiveUp => given_up.push(uid),
                    Next::Tell => {
                        let before =
                            known.filter(|told| told.hash == hash).map_or(0, |told| told.times);
                        let times = before + 1;
                        told.insert(uid, Told { hash: hash.to_owned(), times, last: now });
                        due.push((pod.name_any(), times));
                    }
                }
            }
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        stream::iter(due)
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, |(name, times)| {
                let api = api.clone();
                async move {
                    let patch = json!({"metadata": {"annotations": {
                        labels::CONFIG_HASH: hash, TOLD: times.to_string(),
                    }}});
                    let parameters = PatchParams {
                        field_manager: Some(labels::FIELD_MANAGER.to_owned()),
                        ..PatchParams::default()
                    };
                    match api.patch_metadata(&name, &parameters, &Patch::Merge(&patch)).await {
                        Ok(_) => Ok(()),
                        // It went meanwhile.
                        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
                        Err(error) => Err(error),
                    }
                }
            })
            .await?;
        Ok(given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_told_three_times_five_seconds_apart_and_then_given_up() {
        let start = Instant::now();
        let told = |times, ago| Told {
            hash: "h".to_owned(),
            times,
            last: start.checked_sub(Duration::from_secs(ago)).unwrap(),
        };
        assert_eq!(next(None, false, false, "h", start), Next::Tell);
        assert_eq!(next(Some(&told(1, 1)), false, true, "h", start), Next::Nothing);
        assert_eq!(next(Some(&told(1, 6)), false, true, "h", start), Next::Tell);
        assert_eq!(next(Some(&told(3, 6)), false, true, "h", start), Next::GiveUp);
        assert_eq!(next(Some(&told(3, 6)), true, true, "h", start), Next::Nothing);
        assert_eq!(next(Some(&told(3, 6)), false, true, "other", start), Next::Tell);
    }
}

//! The only code that writes objects: server-side apply, and only if something differs.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::labels;

/// Applies objects.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    namespace: String,
    done: Arc<Mutex<HashMap<(String, String), Done>>>,
}

/// The last apply of one object. While the object is as one of these two say, nothing more is to be
/// done, whatever it looks like.
#[derive(Clone, Debug)]
struct Done {
    hash: String,
    /// Version of the object before the apply, for the watch may lag behind.
    before: Option<String>,
    /// What came of it, for a webhook may insist on a change of its own, and the API server writes
    /// 1024Mi as 1Gi.
    after: String,
}

impl Done {
    fn is_settled(&self, hash: &str, version: Option<&str>, found: &str) -> bool {
        let lags = version.is_some() && self.before.as_deref() == version;
        self.hash == hash && (lags || self.after == found)
    }
}

impl Applier {
    /// Writes into this namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), done: Arc::default() }
    }

    /// Makes `live` equal to `planned`. Says whether anything was written.
    pub async fn apply<K>(&self, planned: &K, live: Option<&K>) -> Result<bool, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let kind = K::kind(&()).into_owned();
        let name = planned.name_any();
        let mut document = serde_json::to_value(planned).map_err(kube::Error::SerdeError)?;
        let hash = labels::hash(document.to_string().as_bytes());
        document["metadata"]["annotations"][labels::APPLIED_HASH] = Value::String(hash.clone());
        document["apiVersion"] = Value::String(K::api_version(&()).into_owned());
        document["kind"] = Value::String(kind.clone());
        let before = live.and_then(ResourceExt::resource_version);
        if let Some(live) = live {
            // It goes: whoever deleted it wants that, and its successor will be made.
            if live.meta().deletion_timestamp.is_some() {
                return Ok(false);
            }
            let found = serde_json::to_value(live).map_err(kube::Error::SerdeError)?;
            if is_part_of(&document, &found) {
                return Ok(false);
            }
            let found = fingerprint(found);
            let done = self.lock().get(&(kind.clone(), name.clone())).cloned();
            if done.is_some_and(|done| done.is_settled(&hash, before.as_deref(), &found)) {
                return Ok(false);
            }
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let parameters = PatchParams::apply(labels::FIELD_MANAGER).force();
        let applied = api.patch(&name, &parameters, &Patch::Apply(&document)).await?;
        tracing::info!(%kind, %name, "applied");
        let after = serde_json::to_value(applied).map_err(kube::Error::SerdeError)?;
        let after = fingerprint(after);
        self.lock().insert((kind, name), Done { hash, before, after });
        Ok(true)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hash of what others can change besides the status, which changes with every pod.
fn fingerprint(mut object: Value) -> String {
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
    }
    labels::hash(object.to_string().as_bytes())
}

/// Whether everything in `planned` is in `found`, which has defaults besides.
fn is_part_of(planned: &Value, found: &Value) -> bool {
    match (planned, found) {
        (Value::Object(planned), Value::Object(found)) => planned.iter().all(|(key, value)| {
            match found.get(key) {
                Some(found) => is_part_of(value, found),
                // What is empty is left out by the API server.
                None => is_empty(value),
            }
        }),
        (Value::Array(planned), Value::Array(found)) => {
            planned.len() == found.len()
                && planned.iter().zip(found).all(|(one, other)| is_part_of(one, other))
        }
        (planned, found) => planned == found,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_somebody_changes_again_is_repaired_again() {
        let done =
            Done { hash: "h".to_owned(), before: Some("1".to_owned()), after: "ours".to_owned() };
        assert!(done.is_settled("h", Some("1"), "theirs"), "the watch lags behind");
        assert!(done.is_settled("h", Some("9"), "ours"), "only its status changed");
        assert!(!done.is_settled("h", Some("3"), "theirs"), "the same change as before");
        assert!(!done.is_settled("other", Some("2"), "ours"), "the plan changed");
    }

    #[test]
    fn a_status_that_changes_makes_no_other_object_of_it() {
        let object = |version: &str, memory: &str, ready: u32| {
            fingerprint(json!({
                "metadata": {"name": "n", "resourceVersion": version, "managedFields": [version]},
                "spec": {"memory": memory}, "status": {"ready": ready},
            }))
        };
        assert_eq!(object("1", "1Gi", 1), object("2", "1Gi", 2));
        assert_ne!(object("1", "1Gi", 1), object("1", "2Gi", 1));
    }

    #[test]
    fn what_the_api_server_adds_is_no_difference_and_what_others_change_is() {
        let planned = json!({"spec": {"a": 1, "list": [{"name": "x"}], "none": {}, "empty": ""}});
        let found = json!({"spec": {"a": 1, "list": [{"name": "x", "added": true}], "default": 2}, "status": {}});
        assert!(is_part_of(&planned, &found));
        for changed in [
            json!({"spec": {"a": 2, "list": [{"name": "x"}]}}),
            json!({"spec": {"a": 1, "list": [{"name": "y"}]}}),
            json!({"spec": {"a": 1, "list": [{"name": "x"}, {"name": "y"}]}}),
            json!({"spec": {"list": [{"name": "x"}]}}),
        ] {
            assert!(!is_part_of(&planned, &changed), "{changed}");
        }
    }
}

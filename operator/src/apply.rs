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

/// The last apply of one object.
#[derive(Clone, Debug)]
struct Done {
    hash: String,
    /// Versions of the object at which nothing more is to be done, whatever it looks like: the one
    /// that was seen before the apply, for the watch may lag behind, and the one that came of it,
    /// for a webhook may insist on a change of its own.
    settled: [Option<String>; 2],
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
        if let Some(live) = live {
            // It goes: whoever deleted it wants that, and its successor will be made.
            if live.meta().deletion_timestamp.is_some() {
                return Ok(false);
            }
            let found = serde_json::to_value(live).map_err(kube::Error::SerdeError)?;
            if is_part_of(&document, &found) || self.is_settled(&kind, &name, &hash, live) {
                return Ok(false);
            }
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let parameters = PatchParams::apply(labels::FIELD_MANAGER).force();
        let applied = api.patch(&name, &parameters, &Patch::Apply(&document)).await?;
        tracing::info!(%kind, %name, "applied");
        let settled = [live.and_then(ResourceExt::resource_version), applied.resource_version()];
        self.lock().insert((kind, name), Done { hash, settled });
        Ok(true)
    }

    fn is_settled<K: Resource>(&self, kind: &str, name: &str, hash: &str, live: &K) -> bool {
        let version = live.meta().resource_version.clone();
        self.lock()
            .get(&(kind.to_owned(), name.to_owned()))
            .is_some_and(|done| done.hash == hash && done.settled.contains(&version))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

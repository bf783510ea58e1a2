//! What the chart's roles grant is what was used: the API server's audit log says so.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use larder_e2e::cluster::{Arguments, Cluster, NAMESPACE, Options, Request};
use serde::Deserialize;
use serde_json::Value;

use crate::ground;

pub(crate) const OPERATOR: &str = "larder-operator";
/// The account of the hook, and of its role.
pub(crate) const HOOK: &str = "larder-uninstall";

/// Granted, and seen by no audit log. An admission plugin asks for it while a DaemonSet is made whose
/// owner reference blocks the owner's deletion; [`options`] has that plugin, so the right is needed
/// for the first DaemonSet.
const ASKED_BY_ADMISSION: [(&str, &str); 1] = [("update", "larder.dev/proxycaches/finalizers")];

/// Of a cluster whose API server asks for everything that one may ask for.
pub(crate) fn options() -> Options {
    let plugin = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement";
    let api_server = vec![plugin.to_owned()];
    Options { arguments: Arguments { api_server, ..Arguments::default() }, ..Options::default() }
}

/// A verb on a resource, in Larder's namespace or in the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: String,
    resource: String,
    inside: bool,
}

#[derive(Debug, Deserialize)]
struct Role {
    kind: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// The roles of that account, as Helm installed them (`helm get WHAT`).
pub(crate) async fn granted(cluster: &Cluster, what: &str, account: &str) -> Result<Rights> {
    let text = cluster.helm(&["get", what, "larder", "--namespace", NAMESPACE]).await?;
    let mut rights = BTreeSet::new();
    for document in text.split("\n---\n") {
        let object: Value = serde_yaml::from_str(document).context("helm prints YAML")?;
        let is_role = object["kind"] == "Role" || object["kind"] == "ClusterRole";
        if is_role && object["metadata"]["name"] == account {
            let role: Role = serde_json::from_value(object)?;
            let inside = role.kind == "Role";
            rights.extend(role.rules.iter().flat_map(|rule| rule.rights(inside)));
        }
    }
    ensure!(!rights.is_empty(), "helm get {what} has no role of {account}:\n{text}");
    Ok(Rights { account: account.to_owned(), rights })
}

impl Rule {
    fn rights(&self, inside: bool) -> impl Iterator<Item = Right> {
        self.api_groups.iter().flat_map(move |group| {
            self.resources.iter().flat_map(move |resource| {
                self.verbs.iter().map(move |verb| Right {
                    verb: verb.clone(),
                    resource: format!("{group}/{resource}"),
                    inside,
                })
            })
        })
    }
}

/// What an account may do.
pub(crate) struct Rights {
    account: String,
    rights: BTreeSet<Right>,
}

impl Rights {
    /// Every right was used, and no request was refused for want of one.
    pub(crate) fn are_what_was_used(&self, cluster: &Cluster) -> Result<()> {
        let mut requests = cluster.audited()?;
        requests.retain(|request| request.account == self.account);
        let refused: Vec<_> = requests.iter().filter(|request| request.code == 403).collect();
        ensure!(refused.is_empty(), "{} was refused: {refused:#?}", self.account);
        let mut used: BTreeSet<_> = requests.iter().flat_map(rights_of).collect();
        for (verb, resource) in ASKED_BY_ADMISSION {
            let right = Right { verb: verb.into(), resource: resource.into(), inside: false };
            ensure!(!used.contains(&right), "{verb} {resource} was used: it is no exception");
            used.insert(right);
        }
        let unused: Vec<_> = self.rights.difference(&used).collect();
        ensure!(unused.is_empty(), "{} may, and never did: {unused:#?}", self.account);
        ground::tell(&format!(
            "{}: {} requests, none refused; each of its {} rights was used",
            self.account,
            requests.len(),
            self.rights.len()
        ));
        Ok(())
    }
}

/// What a request needed. A server-side apply that makes its object is a `patch` that needs `create`
/// as well, and is answered 201.
fn rights_of(request: &Request) -> Vec<Right> {
    let right = |verb: &str| Right {
        verb: verb.to_owned(),
        resource: format!("{}/{}", request.group, request.resource),
        inside: request.namespace == NAMESPACE,
    };
    let made = request.verb == "patch" && request.code == 201;
    let mut rights = vec![right(&request.verb)];
    rights.extend(made.then(|| right("create")));
    rights
}

/// The same event twice within minutes is one event that is patched.
pub(crate) async fn an_event_repeats(cluster: &Cluster) -> Result<()> {
    const TWICE: &str = "/apis/larder.dev/v1alpha1/upstreamregistries/twice";
    let with = |credentials: &str| {
        format!(
            "apiVersion: larder.dev/v1alpha1\nkind: UpstreamRegistry\nmetadata: {{name: twice}}\n\
             spec: {{host: twice.example{credentials}}}\n"
        )
    };
    let missing = with(", credentials: {secretName: missing}");
    for (yaml, accepted) in [(&missing, "False"), (&with(""), "True"), (&missing, "False")] {
        cluster.apply(yaml).await?;
        ground::says(cluster, TWICE, "Accepted", accepted).await?;
    }
    cluster.delete(&["ureg", "twice"]).await?;
    Ok(())
}

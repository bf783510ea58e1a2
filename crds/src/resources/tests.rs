mod reference;

use std::{env, fs, path::PathBuf};

use super::*;

/// The committed files, and what they have to be.
fn generated() -> Vec<(PathBuf, String)> {
    let crds = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let head = "# Generated from crds/src/resources: UPDATE_CRDS=1 cargo test --workspace crd\n";
    let mut files = Vec::new();
    for mut definition in definitions() {
        let name = format!("{}.yaml", definition.spec.names.plural);
        let text = serde_yaml::to_string(&definition).unwrap();
        files.push((crds.join("yaml").join(&name), format!("{head}{text}")));
        let page = format!("{}.md", definition.spec.names.singular.clone().unwrap_or_default());
        let page = crds.join("../docs/reference").join(page);
        files.push((page, reference::page(&definition)));
        // `helm uninstall` must not take away what users wrote.
        let keep = ("helm.sh/resource-policy".to_owned(), "keep".to_owned());
        definition.metadata.annotations = Some([keep].into());
        let text = serde_yaml::to_string(&definition).unwrap();
        files.push((crds.join("../charts/larder/files/crds").join(&name), format!("{head}{text}")));
    }
    files
}

#[test]
fn the_committed_crd_files_are_those_of_the_types() {
    for (path, wanted) in generated() {
        if env::var_os("UPDATE_CRDS").is_some() {
            fs::write(&path, &wanted).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "{} is stale: UPDATE_CRDS=1 cargo test --workspace crd",
            path.display()
        );
    }
}

#[test]
fn every_reason_is_explained() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/troubleshooting.md");
    let guide = fs::read_to_string(path).unwrap();
    let section = |title: &str| {
        let found = guide.split(&format!("\n## {title}\n")).nth(1);
        let found = found.unwrap_or_else(|| panic!("no section {title}"));
        found.split("\n## ").next().unwrap().to_owned()
    };
    let rows = |title: &str| -> Vec<String> {
        let section = section(title);
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        rows.map(|(reason, _)| reason.to_owned()).collect()
    };
    let sorted = |mut words: Vec<String>| {
        words.sort();
        words
    };
    let all = |words: Vec<&str>| sorted(words.into_iter().map(ToOwned::to_owned).collect());
    let nodes = NodeReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(sorted(rows("Nodes")), all(nodes));
    let caches = CacheReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(sorted(rows("ProxyCache")), all(caches));
    let upstreams = UpstreamReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(sorted(rows("UpstreamRegistry")), all(upstreams));
}

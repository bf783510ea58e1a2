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

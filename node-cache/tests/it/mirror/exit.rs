//! What the exit codes of `configure --once` say, and with them the state file.

use super::*;

#[tokio::test]
async fn once_says_by_its_code_what_containerd_makes_of_the_folder() {
    let node = Node::start().await;
    let certs = node.certs.display().to_string();
    for (version, config_path, code, reason) in [
        (2, certs.clone(), 5, "ForeignMirror"),
        (3, format!("{certs}/"), 5, "ForeignMirror"),
        (3, format!("{certs}/../certs.d/."), 5, "ForeignMirror"),
        (3, String::new(), 3, "ConfigPathMissing"),
        (2, "/etc/elsewhere".to_owned(), 3, "ConfigPathElsewhere"),
        (3, format!("{certs}:/etc/docker/certs.d"), 4, "ColonConfigPath"),
    ] {
        node.containerd(version, &config_path);
        let (exit, said) = node.run("configure", &["--once"]).await;
        assert_eq!(exit, Some(code), "{config_path}: {said}");
        assert_eq!(node.state()["reason"], reason, "{config_path}: {said}");
        let mirrored = reason == "ForeignMirror";
        assert_eq!(node.state()["state"] == "Mirrored", mirrored, "{config_path}: {said}");
        // The files do no harm where nobody reads them, and are in force after the edit.
        assert!(node.is_mirrored(), "{config_path}: {said}");
        assert_eq!(node.state()["hosts"].as_array().unwrap().len(), 4, "{config_path}: {said}");
    }
}

#[tokio::test]
async fn once_says_that_there_is_no_containerd_and_writes_nothing() {
    let node = Node::start().await;
    let before = tree(&node.certs);
    let nowhere = node.larder.folder().join("nowhere/config.toml");
    let (code, said) =
        node.run("configure", &["--once", "--containerd-config", nowhere.to_str().unwrap()]).await;
    assert_eq!(code, Some(6), "{said}");
    assert_eq!(node.state()["reason"], "NotContainerd", "{said}");
    assert_eq!(tree(&node.certs), before);
}

#[tokio::test]
async fn a_link_to_the_folder_is_the_folder() {
    let node = Node::start().await;
    let link = node.larder.folder().join("link");
    std::os::unix::fs::symlink(&node.certs, &link).unwrap();
    node.containerd(3, link.to_str().unwrap());
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(5), "effective, but for the folder with certificates: {said}");
}

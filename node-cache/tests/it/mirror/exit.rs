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

/// Neither of the two that it reads is a document.
#[tokio::test]
async fn once_says_which_configuration_cannot_be_read() {
    let node = Node::start().await;
    let file = node.larder.folder().join("containerd.toml");
    fs::write(&file, "version = 3\n[plugins").unwrap();
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ConfigUnreadable") && said.contains(file.to_str().unwrap()), "{said}");
    assert_eq!(node.state()["state"], "Failing");
    assert_eq!(node.state()["reason"], "ConfigUnreadable");
    let (_, said) = node.run("withdraw", &["--any"]).await;
    let before = tree(&node.certs);
    node.larder.write_config_text("apiVersion: [\n");
    let (code, said_again) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(1), "{said}{said_again}");
    assert!(said_again.contains(node.larder.config_path().to_str().unwrap()), "{said_again}");
    assert_eq!(node.state()["reason"], "ConfigUnreadable", "{said_again}");
    assert_eq!(tree(&node.certs), before);
}

#[tokio::test]
async fn an_agent_that_began_with_a_broken_document_takes_over_when_it_is_mended() {
    let node = Node::start().await;
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(5), "{said}");
    // As if another instance had written them.
    for folder in ["corp.test", "new.test", "port.test_5000_", "last.test"] {
        let file = node.certs.join(folder).join("hosts.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen("instance=test", "instance=older", 1)).unwrap();
    }
    let of_instance = |instance: &str| {
        let text = fs::read_to_string(node.certs.join("new.test/hosts.toml")).unwrap();
        text.starts_with(&format!("# larder.dev instance={instance} "))
    };
    let document = fs::read_to_string(node.larder.config_path()).unwrap();
    fs::remove_file(&node.state).unwrap();
    node.larder.write_config_text("apiVersion: [\n");
    let child = node.configure();
    let told = async || node.state()["reason"] == "ConfigUnreadable";
    assert!(eventually(20, told).await, "{}\n{}", node.state(), node.log());
    let path = node.larder.config_path();
    assert!(node.state()["message"].as_str().unwrap().contains(path.to_str().unwrap()));
    assert!(of_instance("older") && node.is_mirrored(), "what is in force stays: {}", node.log());
    node.larder.write_config_text(&document);
    assert!(eventually(20, async || of_instance("test")).await, "{}", node.log());
    assert!(node.is_mirrored(), "{}", node.log());
    send(&child, Signal::TERM);
    assert_eq!(ended(child, STOPPED).await.code(), Some(0), "{}", node.log());
    assert_eq!(node.hosts("corp.test"), ["https://corp.test"], "it withdraws what it took over");
}

#[tokio::test]
async fn sigterm_withdraws_within_a_second() {
    let node = Node::start().await;
    let before = tree(&node.certs);
    let mut took = Vec::new();
    for _ in 0..5 {
        let child = node.configure();
        assert!(eventually(20, async || node.is_mirrored()).await, "{}", node.log());
        let asked = Instant::now();
        send(&child, Signal::TERM);
        assert_eq!(ended(child, STOPPED).await.code(), Some(0), "{}", node.log());
        took.push(asked.elapsed());
        assert_eq!(tree(&node.certs), before);
    }
    took.sort();
    // The median: one may fall into a second in which the machine does something else.
    assert!(took[2] < Duration::from_secs(1), "{took:?}");
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

//! A `config_path` that is a list: repaired on request, and the folders that it names besides ours.

use serde_json::json;

use super::*;

/// The literal path, below the test's own folder, and a containerd that takes it for one folder.
fn colon(node: &Node) -> PathBuf {
    let path = PathBuf::from(format!("{}:/more/certs.d", node.certs.display()));
    node.containerd(3, path.to_str().unwrap());
    node.set("colonPathRepair", &json!(true));
    path
}

/// Everything below the folder that holds certs.d and the repair, but for what other parts write.
fn around(node: &Node) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = tree(node.larder.folder());
    all.retain(|path, _| path.strip_prefix(node.larder.folder()).unwrap().starts_with("certs.d"));
    let root = node.larder.folder();
    let beside = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    all.extend(beside.filter(|path| path.to_str().unwrap().contains(':')).map(|path| (path, None)));
    all
}

#[tokio::test]
async fn the_repair_comes_with_the_files_and_goes_with_them() {
    let node = Node::start().await;
    let link = colon(&node);
    let before = around(&node);
    let child = node.configure();
    let repaired = async || link.join("new.test/hosts.toml").exists() && node.is_mirrored();
    assert!(eventually(20, repaired).await, "{}", node.log());
    let mirrored = async || node.state()["state"] == "Mirrored";
    assert!(eventually(20, mirrored).await, "{}\n{}", node.state(), node.log());
    send(&child, Signal::TERM);
    assert_eq!(ended(child, STOPPED).await.code(), Some(0), "{}", node.log());
    assert_eq!(around(&node), before);
    assert!(link.symlink_metadata().is_err());
}

#[tokio::test]
async fn the_repair_survives_a_kill_and_is_withdrawn_by_hand() {
    let node = Node::start().await;
    let link = colon(&node);
    let before = around(&node);
    let mut child = node.configure();
    let repaired = async || link.join("new.test/hosts.toml").exists() && node.is_mirrored();
    assert!(eventually(20, repaired).await, "{}", node.log());
    child.kill().await.unwrap();
    assert!(link.is_symlink());
    let (code, said) = node.run("withdraw", &["--any", "--dry-run"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("# remove the symbolic link {}", link.display())), "{said}");
    assert!(link.is_symlink());
    let (code, said) = node.run("withdraw", &["--any"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(around(&node), before);
    assert!(link.symlink_metadata().is_err());
}

#[tokio::test]
async fn the_repair_goes_when_it_is_no_longer_wanted() {
    let node = Node::start().await;
    let link = colon(&node);
    let child = node.configure();
    assert!(eventually(20, async || link.is_symlink()).await, "{}", node.log());
    node.set("colonPathRepair", &json!(false));
    let gone = async || link.symlink_metadata().is_err() && node.state()["state"] == "NotEffective";
    assert!(eventually(20, gone).await, "{}\n{}", node.state(), node.log());
    assert_eq!(node.state()["reason"], "ColonConfigPath");
    assert!(node.is_mirrored(), "the files wait for the edit");
    send(&child, Signal::TERM);
    assert_eq!(ended(child, STOPPED).await.code(), Some(0), "{}", node.log());
}

#[tokio::test]
async fn the_repair_follows_the_list_and_outlives_a_replaced_folder() {
    let node = Node::start().await;
    let link = colon(&node);
    let child = node.configure();
    let leads = async |link: &Path| link.join("new.test/hosts.toml").exists();
    assert!(eventually(20, async || leads(&link).await).await, "{}", node.log());
    let other = PathBuf::from(format!("{}:/quite/another/certs.d", node.certs.display()));
    node.containerd(3, other.to_str().unwrap());
    let followed = async || leads(&other).await && link.symlink_metadata().is_err();
    assert!(eventually(20, followed).await, "{}", node.log());
    fs::remove_dir_all(&node.certs).unwrap();
    fs::create_dir(&node.certs).unwrap();
    let written = async || leads(&other).await;
    assert!(eventually(20, written).await, "{}", node.log());
    let before = node.larder.folder().join("certs.d:");
    assert!(before.is_dir());
    send(&child, Signal::TERM);
    assert_eq!(ended(child, STOPPED).await.code(), Some(0), "{}", node.log());
    assert!(!before.exists(), "{:?}", around(&node));
    assert_eq!(tree(&node.certs), BTreeMap::new());
}

#[tokio::test]
async fn a_dry_run_shows_the_repair_and_the_folder_that_would_be_made() {
    let node = Node::start().await;
    let link = colon(&node);
    fs::remove_dir_all(&node.certs).unwrap();
    let (code, said) = node.run("configure", &["--dry-run"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (certs, link) = (node.certs.display(), link.display());
    assert!(said.contains(&format!("# make the folder {certs}\n")), "{said}");
    assert!(said.contains(&format!("# make the symbolic link {link} -> {certs}\n")), "{said}");
    assert!(said.contains("+++ ") && said.contains("new.test/hosts.toml"), "{said}");
    assert!(!node.certs.exists() && around(&node).is_empty());
}

/// containerd 1.x, and later ones that pull by themselves, search one folder after the other.
#[tokio::test]
async fn the_second_folder_of_a_list_counts_as_existing() {
    let node = Node::start().await;
    fs::remove_dir_all(node.certs.join("_default")).unwrap();
    fs::remove_dir_all(node.certs.join("certs.test")).unwrap();
    let second = node.larder.folder().join("second");
    for name in ["new.test", "_default"] {
        fs::create_dir_all(second.join(name)).unwrap();
        let text = format!("[host.\"https://{name}.second.test\"]\n");
        fs::write(second.join(name).join("hosts.toml"), text).unwrap();
    }
    let list = |first: &Path, second: &Path| format!("{}:{}", first.display(), second.display());
    node.containerd(2, &list(&node.certs, &second));
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("before 2.1"), "it depends on the release: {said}");
    assert_eq!(node.hosts("new.test")[1..], ["https://new.test.second.test"]);
    assert_eq!(node.hosts("last.test")[1..], ["https://_default.second.test"]);
    node.set("existing", &json!("Leave"));
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(5), "{said}");
    assert_eq!(node.state()["state"], "NotEffective", "{said}");
    assert!(!node.certs.join("new.test").exists(), "ours would hide it");
    // Behind a folder that has something for every registry, ours is never looked at.
    node.set("existing", &json!("Prepend"));
    node.containerd(2, &list(&second, &node.certs));
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(5), "{said}");
    let wanted = format!("containerd finds {} before", second.join("new.test").display());
    assert!(said.contains(&wanted) && said.contains("containerd.certsDir"), "{said}");
}

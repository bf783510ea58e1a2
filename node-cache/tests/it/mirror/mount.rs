//! In a pod, certs.d is a mount: what is made anew where it comes from never appears in it.

use super::*;

/// The folder below, mounted at `$1` from `$0`, in mounts that end with the process.
const MOUNTED: &str = r#"mount --bind "$0" "$1" && shift && exec "$@""#;

#[tokio::test]
async fn the_agent_ends_when_the_folder_behind_its_mount_is_replaced() {
    let mut node = Node::start().await;
    let source = node.larder.folder().join("source.d");
    fs::rename(&node.certs, &source).unwrap();
    fs::create_dir(&node.certs).unwrap();
    let real = node.command("configure", &[]);
    let log = fs::File::create(node.larder.folder().join("configure.log")).unwrap();
    let mut child = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", MOUNTED])
        .args([&source, &node.certs])
        .arg(real.as_std().get_program())
        .args(real.as_std().get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let outside = std::mem::replace(&mut node.certs, source.clone());
    assert!(eventually(10, async || node.is_mirrored()).await, "{}", node.log());
    assert_eq!(tree(&outside), BTreeMap::new(), "nothing comes into the folder under the mount");
    let running = child.try_wait().unwrap();
    assert_eq!(running, None, "{}", node.log());
    fs::remove_dir_all(&source).unwrap();
    fs::create_dir(&source).unwrap();
    let told = async || node.log().contains("has to start anew");
    assert!(eventually(6, told).await, "{}\n{}", node.state(), node.log());
    let status = ended(child, Duration::from_secs(2)).await;
    assert_eq!(status.code(), Some(1), "{}", node.log());
    assert_eq!(tree(&source), BTreeMap::new());
}

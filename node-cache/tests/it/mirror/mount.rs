//! In a pod, certs.d is a mount: what is made anew where it comes from never appears in it.

use super::*;

/// The folder below, mounted at `$1` from `$0`, in mounts that end with the process.
const MOUNTED: &str = r#"mount --bind "$0" "$1" && shift && exec "$@""#;

/// The folder `$0` read-only, in mounts that end with the process.
const READ_ONLY: &str = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@""#;

#[tokio::test]
async fn a_read_only_folder_is_named_with_the_fix_and_nothing_is_lost() {
    let node = Node::start().await;
    let before = tree(&node.certs);
    let read_only = async |command: &str, flags: &[&str]| {
        let real = node.command(command, flags);
        let mut process = Command::new("unshare");
        process.args(["--mount", "--propagation", "private", "sh", "-c", READ_ONLY]);
        process.arg(&node.certs).arg(real.as_std().get_program()).args(real.as_std().get_args());
        let output = process.output().await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = read_only("configure", &["--once"]).await;
    assert_eq!(code, Some(1), "{said}");
    let (state, message) = (node.state(), node.state()["message"].as_str().unwrap().to_owned());
    assert_eq!(
        (&state["state"], &state["reason"]),
        (&"Failing".into(), &"CertsDirUnusable".into())
    );
    assert!(message.contains(node.certs.to_str().unwrap()), "{message}");
    assert!(message.contains("read-only") && message.contains("mount it for writing"), "{message}");
    assert!(said.contains(&message), "{said}");
    assert_eq!(tree(&node.certs), before);
    // What was written while that was possible is in force, and stays when it cannot be withdrawn.
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(5), "{said}");
    let (code, said) = read_only("configure", &["--once"]).await;
    assert_eq!(code, Some(5), "{said}");
    let (code, said) = read_only("withdraw", &["--any"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("corp.test: ") && said.contains("Read-only file system"), "{said}");
    assert!(node.is_mirrored());
    let (code, said) = node.run("withdraw", &["--any"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(tree(&node.certs), before);
}

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
    assert!(eventually(20, async || node.is_mirrored()).await, "{}", node.log());
    assert_eq!(tree(&outside), BTreeMap::new(), "nothing comes into the folder under the mount");
    let running = child.try_wait().unwrap();
    assert_eq!(running, None, "{}", node.log());
    fs::remove_dir_all(&source).unwrap();
    fs::create_dir(&source).unwrap();
    let told = async || node.log().contains("has to start anew");
    assert!(eventually(20, told).await, "{}\n{}", node.state(), node.log());
    let status = ended(child, STOPPED).await;
    assert_eq!(status.code(), Some(1), "{}", node.log());
    assert_eq!(tree(&source), BTreeMap::new());
}

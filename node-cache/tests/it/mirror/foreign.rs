//! What others write into the folder while Larder is there.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_file_of_ours_that_somebody_broke_is_written_anew_and_kept_aside() {
    let node = Node::start().await;
    let before = tree(&node.certs);
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(5), "{said}");
    let file = node.certs.join("corp.test/hosts.toml");
    let broken = fs::read_to_string(&file).unwrap() + "[host.\"https://mine.test\"\n";
    fs::write(&file, &broken).unwrap();
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(5), "{said}");
    assert!(node.is_mirrored(), "{said}");
    assert!(said.contains("is not TOML any more") && said.contains(".larder-edited-"), "{said}");
    let other = node.certs.join("new.test/hosts.toml");
    fs::write(&other, fs::read_to_string(&other).unwrap() + "[").unwrap();
    let (code, said) = node.run("withdraw", &["--any"]).await;
    assert_eq!(code, Some(0), "{said}");
    let mut after = tree(&node.certs);
    let mut kept = Vec::new();
    after.retain(|path, bytes| {
        let copy = path.file_name().unwrap().to_str().unwrap().starts_with(".larder-edited-");
        if copy {
            kept.push(String::from_utf8(bytes.clone().unwrap()).unwrap());
        }
        !copy
    });
    assert_eq!(after, before);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.contains(&broken), "{kept:?}");
}

#[tokio::test]
async fn a_folder_of_the_other_spelling_that_comes_later_is_not_hidden() {
    let node = Node::start().await;
    let child = node.configure();
    assert!(eventually(20, async || node.is_mirrored()).await, "{}", node.log());
    // Whole at once, as a tool that knows containerd would.
    let made = node.larder.folder().join("made");
    fs::create_dir(&made).unwrap();
    fs::write(made.join("hosts.toml"), CORP).unwrap();
    fs::rename(&made, node.certs.join("port.test:5000")).unwrap();
    let merged = async || node.hosts("port.test_5000_").last().unwrap() == "https://corp.test";
    assert!(eventually(20, merged).await, "{}", node.log());
    node.set("existing", &json!("Leave"));
    let gone = async || !node.certs.join("port.test_5000_").exists();
    assert!(eventually(20, gone).await, "{}", node.log());
    let told = async || node.state()["message"].as_str().unwrap().contains("port.test:5000");
    assert!(eventually(20, told).await, "{}", node.state());
    assert_eq!(fs::read_to_string(node.certs.join("port.test:5000/hosts.toml")).unwrap(), CORP);
    send(&child, Signal::TERM);
    assert_eq!(ended(child, STOPPED).await.code(), Some(0), "{}", node.log());
}

#[tokio::test]
async fn an_entry_for_the_cache_written_by_hand_is_named_with_its_danger_and_the_fix() {
    let node = Node::start().await;
    let mirror = format!("http://{}", node.larder.pull_address());
    let text = format!("[host.\"{mirror}\"]\n[host.\"https://corp.test\"]\n");
    fs::write(node.certs.join("corp.test/hosts.toml"), &text).unwrap();
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(5), "{said}");
    let message = node.state()["message"].as_str().unwrap().to_owned();
    for part in ["corp.test: ", &mirror, "by hand", "cannot withdraw it when the cache hangs"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(message.contains("remove that entry"), "{message}");
    assert_eq!(fs::read_to_string(node.certs.join("corp.test/hosts.toml")).unwrap(), text);
    let hosts = node.state()["hosts"].clone();
    assert!(!hosts.as_array().unwrap().contains(&json!("corp.test")), "{hosts}");
}

/// Writers that know nothing of Larder, at full speed: what the last of them wrote is in force.
#[tokio::test]
async fn the_last_word_of_somebody_who_writes_at_the_same_time_is_never_lost() {
    let node = Node::start().await;
    let child = node.configure();
    assert!(eventually(20, async || node.is_mirrored()).await, "{}", node.log());
    let file = node.certs.join("corp.test/hosts.toml");
    let beside = node.larder.folder().join("beside");
    let until = Instant::now() + Duration::from_secs(4);
    let mut last = 0;
    while Instant::now() < until {
        last += 1;
        fs::write(&beside, format!("[host.\"https://v{last}.test\"]\n")).unwrap();
        fs::rename(&beside, &file).unwrap();
        sleep(Duration::from_micros(300)).await;
    }
    let wanted = format!("https://v{last}.test");
    let merged = async || {
        let hosts = node.hosts("corp.test");
        hosts.len() == 2 && hosts[1] == wanted
    };
    assert!(
        eventually(20, merged).await,
        "{:?}, {wanted}\n{}",
        node.hosts("corp.test"),
        node.log()
    );
    send(&child, Signal::TERM);
    assert_eq!(ended(child, STOPPED).await.code(), Some(0), "{}", node.log());
    assert_eq!(node.hosts("corp.test"), [wanted]);
}

//! kill -9 of the configurator at any moment.

use super::*;

/// What containerd finds at any moment: files that it can read, and no folder that hides
/// `_default` for nothing.
fn is_sound(certs: &Path) {
    for entry in fs::read_dir(certs).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with(".larder-") {
            continue;
        }
        let hosts = path.join("hosts.toml");
        if hosts.exists() {
            assert!(
                !hosts_of(&fs::read_to_string(&hosts).unwrap()).is_empty(),
                "{}",
                hosts.display()
            );
        } else {
            assert!(path.ends_with("certs.test"), "{} has no mirror", path.display());
        }
    }
}

/// A seeded sequence.
fn random() -> impl FnMut(u64) -> u64 {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    move |below| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    }
}

/// certs.d and what a configurator may leave beside it.
fn surroundings(node: &Node) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(node.larder.folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("certs.d") || name.starts_with(".larder-tmp-") {
            all.extend(tree(&path));
            all.insert(path, None);
        }
    }
    all
}

#[tokio::test]
async fn no_kill_leaves_anything_that_containerd_stumbles_over() {
    let mut soak = Soak::of("configurator", 500, 5_000);
    let node = Node::start().await;
    let aside = node.larder.folder().join("aside.d");
    let mut random = random();
    let (mut partly, mut fully, mut half_made) = (0, 0, 0);
    let seeds: Vec<_> = soak.seeds().collect();
    // Every other 25 rounds begin without certs.d.
    for (block, seeds) in seeds.chunks(25).enumerate() {
        let bare = block % 2 == 1;
        if bare {
            fs::rename(&node.certs, &aside).unwrap();
        }
        let before = surroundings(&node);
        for (round, seed) in seeds.iter().enumerate() {
            let withdraws = round % 3 == 2;
            let mut child = if withdraws {
                self::detached(node.command("withdraw", &["--any"]))
            } else {
                node.configure()
            };
            if random(2) == 0 {
                // Its files are there 20 to 60 ms after its start, on two cores.
                sleep(Duration::from_micros(random(100_000))).await;
            } else {
                // As soon as it has begun, which is when most is unfinished.
                let found = surroundings(&node);
                let until = Instant::now() + Duration::from_millis(150);
                while surroundings(&node) == found && Instant::now() < until {}
                sleep(Duration::from_micros(random(3_000))).await;
            }
            child.kill().await.unwrap();
            if node.certs.exists() {
                is_sound(&node.certs);
            }
            let after = surroundings(&node);
            let full = if bare {
                let written =
                    |host: &&str| !node.hosts(&host.replace(":5000", "_5000_")).is_empty();
                HOSTS.iter().all(written)
            } else {
                node.is_mirrored()
            };
            let unfinished =
                after.keys().any(|path| path.to_str().unwrap().contains(".larder-tmp"));
            half_made += u32::from(unfinished);
            fully += u32::from(full);
            partly += u32::from(!full && after != before);
            soak.note(*seed, Ok(()));
        }
        let (code, said) = node.run("withdraw", &["--any"]).await;
        assert_eq!(code, Some(0), "block {block}: {said}");
        assert_eq!(surroundings(&node), before, "block {block}");
        if bare {
            fs::rename(&aside, &node.certs).unwrap();
        }
    }
    eprintln!("all files {fully} times, some {partly} times, unfinished ones {half_made} times");
    // Otherwise the kills came too early or too late to prove anything.
    let many = u32::try_from(seeds.len() / 50).unwrap();
    assert!(fully >= many && partly >= many, "{fully} full, {partly} partial\n{}", node.log());
    assert!(half_made > 0, "no kill came in the middle of a file\n{}", node.log());
    soak.end().unwrap();
}

fn detached(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

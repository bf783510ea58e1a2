//! Somebody else writes at the same moment.

use super::*;

#[test]
fn what_somebody_writes_at_the_same_moment_stays() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let want = |instance| crate::mirror::plan::Want {
        instance,
        mirror: MIRROR,
        existing: ExistingHosts::Prepend,
        takeover: true,
    };
    let host = "docker.io".parse().unwrap();
    // Instead of the file that was read: another, none, and one of another kind.
    let somebody: [&dyn Fn(); 3] = [
        &|| case.put("docker.io/hosts.toml", OTHER),
        &|| fs::remove_file(case.path("docker.io/hosts.toml")).unwrap(),
        &|| symlink("nowhere", case.path("docker.io/hosts.toml")).unwrap(),
    ];
    for at_the_same_moment in somebody {
        let dir = CertsDir::open(&case.certs()).unwrap().unwrap();
        let entry = dir.entry(&host).unwrap();
        let plan = entry.plan(&want("one")).unwrap();
        at_the_same_moment();
        let theirs = fs::read_link(case.path("docker.io/hosts.toml")).map_err(|_| ());
        let text = case.get("docker.io/hosts.toml");
        let error = entry.apply(&plan).unwrap_err();
        assert!(matches!(error, CertsDirError::Changed { .. }), "{error}");
        assert_eq!(case.get("docker.io/hosts.toml"), text);
        assert_eq!(fs::read_link(case.path("docker.io/hosts.toml")).map_err(|_| ()), theirs);
        assert!(!case.path("docker.io/.larder-swap").exists());
        assert!(!case.path("docker.io").join(ORIGINAL).exists(), "it was put aside for nothing");
    }
    fs::remove_file(case.path("docker.io/hosts.toml")).unwrap();
    case.put("docker.io/hosts.toml", OTHER);
    case.comes_and_goes("docker.io", "docker.io/hosts.toml", Some(OTHER));
}

#[test]
fn what_somebody_writes_while_we_withdraw_stays() {
    // Without anything of theirs before, with an empty folder, with a file, with an edit.
    for case in 0..4 {
        let (kind, case) = (case, Case::new());
        match kind {
            1 => fs::create_dir(case.path("docker.io")).unwrap(),
            2 => case.put("docker.io/hosts.toml", FOREIGN),
            _ => {}
        }
        case.write(&["docker.io"]);
        if kind == 3 {
            case.put("docker.io/hosts.toml", &(case.get("docker.io/hosts.toml") + FOREIGN));
        }
        let dir = CertsDir::open(&case.certs()).unwrap().unwrap();
        let entry = dir.entry_named("docker.io").unwrap();
        let undo = entry.undo(&Owner::Any);
        case.put("docker.io/hosts.toml", OTHER);
        let done = entry.withdraw(&undo);
        if kind > 0 {
            assert!(matches!(done, Err(CertsDirError::Changed { .. })), "{kind}: {done:?}");
        }
        assert_eq!(case.get("docker.io/hosts.toml"), OTHER, "{kind}");
        drop(dir);
        assert_eq!(case.withdraw().failed, []);
        let names: Vec<_> = case.tree().into_keys().collect();
        assert_eq!(names, ["certs.d/", "certs.d/docker.io/", "certs.d/docker.io/hosts.toml"]);
        assert_eq!(case.get("docker.io/hosts.toml"), OTHER, "{kind}");
    }
}

#[test]
fn a_folder_that_somebody_makes_at_the_same_moment_stays() {
    let case = Case::new();
    let dir = CertsDir::open(&case.certs()).unwrap().unwrap();
    let host = "docker.io".parse().unwrap();
    let entry = dir.entry(&host).unwrap();
    let want = crate::mirror::plan::Want {
        instance: "one",
        mirror: MIRROR,
        existing: ExistingHosts::Prepend,
        takeover: true,
    };
    let plan = entry.plan(&want).unwrap();
    fs::create_dir(case.path("docker.io")).unwrap();
    let before = case.tree();
    let error = entry.apply(&plan).unwrap_err();
    assert!(matches!(error, CertsDirError::Changed { .. }), "{error}");
    assert_eq!(case.tree(), before);
}

#[test]
fn what_came_out_of_its_place_when_a_process_was_killed_goes_back_if_it_is_new() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    case.write(&["docker.io"]);
    let ours = case.get("docker.io/hosts.toml");
    // Killed after the exchange, nobody had interfered.
    case.put("docker.io/.larder-swap", FOREIGN);
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(FOREIGN));
    // Killed before it.
    case.put("docker.io/.larder-swap", &ours);
    case.withdraw();
    assert_eq!(case.tree(), before);
    // Killed after it, and somebody had been faster.
    case.write(&["docker.io"]);
    case.put("docker.io/.larder-swap", OTHER);
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(OTHER));
    case.put("docker.io/.larder-swap", FOREIGN);
    case.withdraw();
    assert_eq!(case.tree(), before);
    // Killed while the file was taken away, and somebody had been faster.
    fs::rename(case.path("docker.io/hosts.toml"), case.path("docker.io/.larder-swap")).unwrap();
    case.withdraw();
    assert_eq!(case.tree(), before);
}

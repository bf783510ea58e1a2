//! Two folders, and two spellings of one registry.

use super::*;

/// `certs.d` as the first or second of two roots; the other is `other.d`.
fn among(ours_is_first: bool) -> Case {
    let mut case = Case::new();
    let other = case.folder.path().join("other.d");
    fs::create_dir(&other).unwrap();
    case.roots = vec![case.certs(), other];
    if !ours_is_first {
        case.roots.reverse();
    }
    case
}

#[test]
fn what_the_second_root_has_for_a_registry_is_asked_after_the_cache() {
    for name in ["docker.io", "_default"] {
        let case = among(true);
        case.put(&format!("../other.d/{name}/hosts.toml"), FOREIGN);
        case.comes_and_goes("docker.io", "docker.io/hosts.toml", Some(FOREIGN));
        case.write(&["docker.io"]);
        case.put(&format!("../other.d/{name}/hosts.toml"), OTHER);
        case.again(&["docker.io"]);
        case.is_mirrored("docker.io/hosts.toml", Some(OTHER));
    }
    let case = among(true);
    case.put("../other.d/reg.test:5000/hosts.toml", FOREIGN);
    case.put("../other.d/_default/hosts.toml", OTHER);
    case.comes_and_goes("reg.test:5000", "reg.test_5000_/hosts.toml", Some(FOREIGN));
    case.put("_default/hosts.toml", "[host.\"https://nearer.test\"]\n");
    let nearer = Some("[host.\"https://nearer.test\"]\n");
    case.comes_and_goes("reg.test:5000", "reg.test_5000_/hosts.toml", nearer);
}

#[test]
fn what_the_second_root_has_is_left_alone_where_mirrors_are() {
    for name in ["docker.io/hosts.toml", "_default/hosts.toml", "docker.io/ca.crt"] {
        let case = Case { existing: ExistingHosts::Leave, ..among(true) };
        case.put(&format!("../other.d/{name}"), FOREIGN);
        case.is_left_alone("docker.io", "other.d/");
    }
    let case = among(true);
    case.put("../other.d/docker.io/hosts.toml", "[host.\"https://a\"]\n  ca = \"a.pem\"\n");
    case.is_left_alone("docker.io", "a.pem");
}

#[test]
fn what_comes_to_the_second_root_later_is_noticed() {
    let case = Case { existing: ExistingHosts::Leave, ..among(true) };
    case.write(&["docker.io"]);
    case.put("../other.d/docker.io/hosts.toml", FOREIGN);
    assert!(case.again(&["docker.io"]).left[0].1.contains("Prepend"));
    assert!(!case.path("docker.io").exists(), "ours would hide it");
}

#[test]
fn a_first_root_that_hides_ours_is_named() {
    for name in ["docker.io", "_default"] {
        let case = among(false);
        assert_eq!(case.write(&["docker.io"]).mirrored, ["docker.io"]);
        fs::create_dir(case.folder.path().join("other.d").join(name)).unwrap();
        let outcome = case.again(&["docker.io"]);
        assert_eq!(outcome.mirrored, [] as [&str; 0]);
        let why = &outcome.left[0].1;
        assert!(why.contains("other.d/") && why.contains("certsDir"), "{why}");
        assert!(!case.path("docker.io").exists(), "what is never read is withdrawn");
    }
    let case = among(false);
    symlink("nowhere", case.folder.path().join("other.d/docker.io")).unwrap();
    fs::create_dir(case.folder.path().join("other.d/ghcr.io")).unwrap();
    case.comes_and_goes("docker.io", "docker.io/hosts.toml", None);
}

#[test]
fn the_other_spelling_of_a_port_that_comes_later_is_asked_after_the_cache() {
    let mut case = Case::new();
    case.write(&["reg.test:5000"]);
    case.put("reg.test:5000/hosts.toml", FOREIGN);
    let theirs = case.tree();
    case.again(&["reg.test:5000"]);
    case.is_mirrored("reg.test_5000_/hosts.toml", Some(FOREIGN));
    case.existing = ExistingHosts::Leave;
    assert!(case.again(&["reg.test:5000"]).left[0].1.contains("reg.test:5000"));
    assert!(!case.path("reg.test_5000_").exists(), "ours would hide it");
    assert_eq!(case.get("reg.test:5000/hosts.toml"), FOREIGN);
    case.existing = ExistingHosts::Prepend;
    case.write(&["reg.test:5000"]);
    case.is_mirrored("reg.test:5000/hosts.toml", Some(FOREIGN));
    case.withdraw();
    let names = |tree: BTreeMap<String, String>| {
        tree.into_keys().filter(|name| !name.contains("_5000_")).collect::<Vec<_>>()
    };
    assert_eq!(names(case.tree()), names(theirs));
}

#[test]
fn certificates_under_the_other_spelling_that_come_later_end_the_mirror() {
    let case = Case::new();
    case.write(&["reg.test:5000"]);
    case.put("reg.test:5000/ca.crt", "pem");
    assert!(case.again(&["reg.test:5000"]).left[0].1.contains("certificate files"));
    assert!(!case.path("reg.test_5000_").exists());
}

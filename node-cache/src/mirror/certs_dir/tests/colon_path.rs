//! The link that leads containerd from a list to the folder.

use super::*;

#[test]
fn a_colon_path_leads_to_the_folder_until_it_is_withdrawn() {
    let case = Case::new();
    let before = case.tree();
    let link = format!("{}:/etc/docker/certs.d", case.certs().display());
    case.write(&["docker.io"]);
    for _ in 0..2 {
        assert!(CertsDir::open(&case.certs()).unwrap().unwrap().repair(&link).unwrap());
        assert!(Path::new(&link).join("docker.io/hosts.toml").is_file());
    }
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_colon_path_that_somebody_else_made_is_left_alone() {
    let case = Case::new();
    let link = format!("{}:/certs.d", case.certs().display());
    fs::create_dir_all(&link).unwrap();
    let before = case.tree();
    assert!(!CertsDir::open(&case.certs()).unwrap().unwrap().repair(&link).unwrap());
    assert!(!CertsDir::open(&case.certs()).unwrap().unwrap().repair("/etc/../x:y").unwrap());
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_colon_path_is_forgotten_when_the_list_becomes_another_one() {
    let case = Case::new();
    let before = case.tree();
    case.write(&["docker.io"]);
    let list = |more: &str| format!("{}:{more}", case.certs().display());
    let (one, other) = (list("/etc/docker/certs.d"), list("/etc/other/deep/certs.d"));
    let repair = |list: &str| CertsDir::open(&case.certs()).unwrap().unwrap().repair(list).unwrap();
    for (now, then) in [(&one, &other), (&other, &one), (&one, &other)] {
        assert!(repair(now));
        assert!(Path::new(now).join("docker.io/hosts.toml").is_file());
        assert!(Path::new(then).symlink_metadata().is_err(), "{then} is left");
    }
    assert!(!Path::new(&list("/etc/other")).exists(), "a folder of {other} is left");
    // One that is no path at all ends it as well.
    assert!(!repair("/etc/../x:y"));
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_colon_path_is_taken_away_although_the_folder_with_its_record_was_replaced() {
    for again in [true, false] {
        let case = Case::new();
        let before = case.tree();
        let link = format!("{}:/etc/docker/certs.d", case.certs().display());
        let repair = || CertsDir::open(&case.certs()).unwrap().unwrap().repair(&link).unwrap();
        case.write(&["docker.io"]);
        assert!(repair());
        fs::remove_dir_all(case.certs()).unwrap();
        fs::create_dir(case.certs()).unwrap();
        if again {
            case.again(&["docker.io"]);
            assert!(repair());
        }
        case.withdraw();
        assert_eq!(case.tree(), before, "with a round between: {again}");
    }
}

#[test]
fn a_colon_path_is_taken_away_when_the_folder_is_gone() {
    let case = Case::new();
    let link = format!("{}:/etc/docker/certs.d", case.certs().display());
    case.write(&["docker.io"]);
    assert!(CertsDir::open(&case.certs()).unwrap().unwrap().repair(&link).unwrap());
    fs::remove_dir_all(case.certs()).unwrap();
    let preview = round::withdraw(&case.certs(), &Owner::Any, true).unwrap();
    assert_eq!(preview.changes.len(), 1);
    assert!(Path::new(&link).is_symlink());
    assert_eq!(case.withdraw().changes, preview.changes);
    assert_eq!(case.tree(), BTreeMap::new());
}

#[test]
fn a_link_beside_the_folder_that_somebody_else_made_stays() {
    let case = Case::new();
    let folder = PathBuf::from(format!("{}:/theirs", case.certs().display()));
    fs::create_dir_all(&folder).unwrap();
    symlink(case.certs(), folder.join("certs.d")).unwrap();
    symlink("nowhere", folder.join("other")).unwrap();
    let before = case.tree();
    case.write(&["docker.io"]);
    case.withdraw();
    assert_eq!(case.tree(), before);
}

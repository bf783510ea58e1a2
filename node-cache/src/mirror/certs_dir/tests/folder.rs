//! The folder itself, and what dead processes left in and beside it.

use super::*;

#[test]
fn what_a_dead_process_left_unfinished_is_removed() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    case.put("_default/hosts.toml", OTHER);
    let before = case.tree();
    let litter = || {
        case.put(".larder-tmp-new-ghcr.io/hosts.toml", "half");
        case.put(".larder-tmp-gone-quay.io/.larder-created", "");
        case.put("docker.io/.larder-tmp-hosts.toml", "half");
        case.put("docker.io/hosts.toml.larder-original", FOREIGN);
    };
    litter();
    case.withdraw();
    assert_eq!(case.tree(), before);
    litter();
    case.comes_and_goes_after_litter();
    assert_eq!(case.tree(), before);
}

impl Case {
    fn comes_and_goes_after_litter(&self) {
        self.write(&["docker.io", "ghcr.io"]);
        self.is_mirrored("docker.io/hosts.toml", Some(FOREIGN));
        self.is_mirrored("ghcr.io/hosts.toml", Some(OTHER));
        self.withdraw();
    }
}

#[test]
fn a_folder_that_was_being_removed_comes_back_for_a_file_of_somebody_else() {
    let case = Case::new();
    case.put(".larder-tmp-gone-docker.io/notes.txt", "mine");
    case.put(".larder-tmp-gone-docker.io/.larder-created", "");
    case.withdraw();
    assert_eq!(case.get("docker.io/notes.txt"), "mine");
    assert!(!case.path("docker.io/.larder-created").exists());
}

#[test]
fn a_missing_certs_d_is_made_and_removed() {
    let case = Case::without_folder();
    case.comes_and_goes("docker.io", "docker.io/hosts.toml", None);
    case.write(&["docker.io"]);
    case.put("quay.io/hosts.toml", OTHER);
    case.withdraw();
    assert_eq!(case.get("quay.io/hosts.toml"), OTHER);
}

#[test]
fn a_certs_d_behind_a_link_is_followed() {
    let case = Case::without_folder();
    fs::create_dir(case.folder.path().join("real")).unwrap();
    symlink("real", case.certs()).unwrap();
    case.comes_and_goes("docker.io", "docker.io/hosts.toml", None);
}

#[test]
fn a_certs_d_that_is_none_is_an_error_for_all() {
    let case = Case::without_folder();
    fs::write(case.certs(), "").unwrap();
    let error = case.try_round(true, &["docker.io"]).unwrap_err();
    assert!(error.to_string().contains("is not a folder"), "{error}");
    let case = Case::without_folder();
    symlink("nowhere", case.certs()).unwrap();
    let error = case.try_round(true, &["docker.io"]).unwrap_err();
    assert!(error.to_string().contains("link to nothing"), "{error}");
}

#[test]
fn a_certs_d_of_somebody_else_is_an_error_for_all() {
    let case = Case::new();
    if std::os::unix::fs::chown(case.certs(), Some(12345), None).is_err() {
        return; // Only root can give a folder away.
    }
    let error = case.try_round(true, &["docker.io"]).unwrap_err();
    assert!(error.to_string().contains("belongs to user 12345"), "{error}");
}

#[test]
fn a_certs_d_that_was_replaced_is_filled_again() {
    let case = Case::new();
    case.write(&["docker.io"]);
    fs::remove_dir_all(case.certs()).unwrap();
    fs::create_dir(case.certs()).unwrap();
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", None);
}

#[test]
fn a_folder_whose_maker_was_killed_is_swept_from_beside_it() {
    let beside = |case: &Case| {
        let path = case.folder.path().join(".larder-tmp-new-certs.d");
        fs::create_dir(&path).unwrap();
        fs::write(path.join(CREATED), "").unwrap();
        path
    };
    // Somebody else has made the folder since.
    let case = Case::new();
    let left = beside(&case);
    case.write(&["docker.io"]);
    assert!(!left.exists());
    // Nobody has, and it is taken away by hand.
    let case = Case::without_folder();
    let left = beside(&case);
    case.withdraw();
    assert!(!left.exists());
    assert_eq!(case.tree(), BTreeMap::new());
}

#[test]
fn a_folder_whose_remover_was_killed_is_swept_from_beside_it_or_goes_back() {
    let beside = |case: &Case, files: &[&str]| {
        let path = case.folder.path().join(".larder-tmp-gone-certs.d");
        fs::create_dir(&path).unwrap();
        for file in files {
            fs::write(path.join(file), "").unwrap();
        }
        path
    };
    for files in [&[CREATED][..], &[]] {
        let case = Case::without_folder();
        beside(&case, files);
        case.withdraw();
        assert_eq!(case.tree(), BTreeMap::new(), "{files:?}");
    }
    // Somebody put a file into it at the moment when it went.
    let case = Case::without_folder();
    let left = beside(&case, &[CREATED, "notes.txt"]);
    case.withdraw();
    assert!(!left.exists());
    assert!(case.path("notes.txt").exists());
    assert!(!case.path(CREATED).exists());
}

//! What others change in the files that are ours.

use super::*;

#[test]
fn the_entries_of_others_outlive_the_copy_that_we_keep_of_them() {
    let kept = "docker.io/hosts.toml.larder-original";
    let case = Case::new();
    case.put("docker.io/hosts.toml", OTHER);
    case.write(&["docker.io"]);
    fs::remove_file(case.path(kept)).unwrap();
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(OTHER));
    assert_eq!(case.get(kept).trim(), OTHER.trim());

    fs::remove_file(case.path(kept)).unwrap();
    round::withdraw(&case.certs(), &Owner::Any, false).unwrap();
    assert_eq!(case.get("docker.io/hosts.toml").trim(), OTHER.trim());
}

#[test]
fn a_mirror_that_was_written_over_ours_is_the_new_original() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    case.write(&["docker.io"]);
    case.put("docker.io/hosts.toml", OTHER);
    let before = case.tree();
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(OTHER));
    case.withdraw();
    assert_eq!(case.get("docker.io/hosts.toml"), OTHER);
    assert_ne!(case.tree(), before, "the old original is gone");
    assert!(!case.path("docker.io/hosts.toml.larder-original").exists());
}

#[test]
fn a_mirror_that_was_written_over_ours_survives_withdrawing() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    case.write(&["docker.io", "ghcr.io"]);
    case.put("docker.io/hosts.toml", OTHER);
    case.put("ghcr.io/hosts.toml", OTHER);
    case.withdraw();
    let tree = case.tree();
    let names: Vec<_> = tree.keys().filter(|name| name.contains("larder")).collect();
    assert_eq!(names, [] as [&String; 0]);
    assert_eq!(case.get("docker.io/hosts.toml"), OTHER);
    assert_eq!(case.get("ghcr.io/hosts.toml"), OTHER);
}

#[test]
fn what_a_person_wrote_into_our_file_is_kept() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    case.write(&["docker.io", "ghcr.io"]);
    for name in ["docker.io", "ghcr.io"] {
        let file = format!("{name}/hosts.toml");
        case.put(&file, &(case.get(&file) + OTHER));
    }
    case.again(&["docker.io", "ghcr.io"]);
    let body = String::from_utf8(mark::body(case.get("docker.io/hosts.toml").as_bytes()).to_vec());
    assert!(body.unwrap().contains("https://other.test"));
    case.withdraw();
    for (name, has_foreign) in [("docker.io", true), ("ghcr.io", false)] {
        let text = case.get(&format!("{name}/hosts.toml"));
        assert!(text.contains("https://other.test") && !text.contains(MIRROR), "{text}");
        assert_eq!(text.contains("https://corp.test"), has_foreign, "{text}");
    }
}

#[test]
fn a_change_of_our_own_entry_is_taken_back() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    case.write(&["docker.io"]);
    let text = case.get("docker.io/hosts.toml");
    case.put("docker.io/hosts.toml", &text.replace("\"1s\"", "\"9s\""));
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(FOREIGN));
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_file_that_was_deleted_is_written_again() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    case.write(&["docker.io", "ghcr.io"]);
    for name in ["docker.io", "ghcr.io"] {
        fs::remove_file(case.path(name).join(HOSTS)).unwrap();
    }
    case.again(&["docker.io", "ghcr.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(FOREIGN));
    case.is_mirrored("ghcr.io/hosts.toml", None);
    fs::remove_dir_all(case.path("ghcr.io")).unwrap();
    case.again(&["docker.io", "ghcr.io"]);
    case.is_mirrored("ghcr.io/hosts.toml", None);
    for name in ["docker.io", "ghcr.io"] {
        fs::remove_file(case.path(name).join(HOSTS)).unwrap();
    }
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_registry_that_was_taken_out_is_withdrawn() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    case.write(&["docker.io", "ghcr.io"]);
    case.again(&["ghcr.io"]);
    assert_eq!(case.get("docker.io/hosts.toml"), FOREIGN);
    case.is_mirrored("ghcr.io/hosts.toml", None);
    case.again(&[]);
    assert_eq!(case.tree(), before);
}

#[test]
fn a_file_that_somebody_put_into_our_folder_keeps_it() {
    let case = Case::new();
    case.write(&["docker.io"]);
    case.put("docker.io/notes.txt", "mine");
    case.withdraw();
    let names: Vec<String> = case.tree().into_keys().collect();
    assert_eq!(names, ["certs.d/", "certs.d/docker.io/", "certs.d/docker.io/notes.txt"]);
}

impl Case {
    /// The copies of files that could not be read, by text.
    fn copies(&self) -> Vec<String> {
        let tree = self.tree();
        let copies = tree.iter().filter(|(name, _)| name.starts_with("certs.d/.larder-edited-"));
        copies.map(|(_, text)| text.clone()).collect()
    }
}

#[test]
fn our_file_broken_by_hand_is_written_anew_and_what_was_in_it_is_kept() {
    for original in [None, Some(FOREIGN)] {
        let case = Case::new();
        if let Some(original) = original {
            case.put("docker.io/hosts.toml", original);
        }
        let before = case.tree();
        case.write(&["docker.io"]);
        let broken = case.get("docker.io/hosts.toml") + "[host.\"https://mine.test\"\n";
        case.put("docker.io/hosts.toml", &broken);
        let outcome = case.again(&["docker.io"]);
        assert_eq!((outcome.mirrored.len(), outcome.left), (1, Vec::new()));
        case.is_mirrored("docker.io/hosts.toml", original);
        assert_eq!(case.copies(), std::slice::from_ref(&broken));
        // The same again makes no second copy, another one does.
        case.put("docker.io/hosts.toml", &broken);
        case.again(&["docker.io"]);
        assert_eq!(case.copies().len(), 1);
        case.put("docker.io/hosts.toml", &format!("{broken}["));
        case.again(&["docker.io"]);
        assert_eq!(case.copies().len(), 2);
        case.withdraw();
        let mut left = case.tree();
        left.retain(|name, _| !name.contains("/.larder-edited-"));
        assert_eq!(left, before);
    }
}

#[test]
fn our_file_broken_by_hand_is_withdrawn_and_what_was_in_it_is_kept() {
    for original in [None, Some(FOREIGN)] {
        for broken in ["\n[host", "\n\u{0}", "\na = 1\na = 2\n"] {
            let case = Case::new();
            if let Some(original) = original {
                case.put("docker.io/hosts.toml", original);
            }
            let before = case.tree();
            case.write(&["docker.io"]);
            let broken = case.get("docker.io/hosts.toml") + broken;
            case.put("docker.io/hosts.toml", &broken);
            let outcome = case.withdraw();
            assert_eq!((outcome.left, outcome.failed), (Vec::new(), Vec::new()));
            assert_eq!(case.copies(), [broken]);
            let mut left = case.tree();
            left.retain(|name, _| !name.contains("/.larder-edited-"));
            assert_eq!(left, before);
        }
    }
}

#[test]
fn our_file_as_an_editor_of_windows_saves_it_is_written_anew() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    case.write(&["docker.io"]);
    let text = case.get("docker.io/hosts.toml").replace('\n', "\r\n");
    case.put("docker.io/hosts.toml", &format!("\u{feff}{text}"));
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(FOREIGN));
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn an_entry_for_the_cache_that_somebody_wrote_is_named_and_stays() {
    for folder in ["docker.io", "_default"] {
        let case = Case::new();
        let text = format!("[host.\"{MIRROR}\"]\n{OTHER}");
        case.put(&format!("{folder}/hosts.toml"), &text);
        case.is_left_alone("docker.io", "written by hand; Larder cannot withdraw it");
        case.is_left_alone("docker.io", "remove that entry");
    }
}

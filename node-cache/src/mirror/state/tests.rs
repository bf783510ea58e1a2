use super::*;
use crate::containerd::Caution;

fn findings() -> Findings {
    let outcome = Outcome { mirrored: vec!["a.test".to_owned()], ..Outcome::default() };
    let containerd = Verdict::Effective.into();
    Findings { containerd, answers: true, round: Ok(outcome), config_error: None }
}

#[test]
fn the_worst_that_was_found_is_the_state() {
    use MirrorReason as R;
    use MirrorState as S;
    let edit = || "write it".to_owned();
    let left = |mirrored: &[&str]| {
        Ok(Outcome {
            mirrored: mirrored.iter().map(ToString::to_string).collect(),
            left: vec![("b.test".to_owned(), "foreign".to_owned())],
            ..Outcome::default()
        })
    };
    let base = findings;
    let verdict = |verdict| Findings { containerd: Verdict::into(verdict), ..base() };
    let colon = Verdict::Colon { path: "/a:/b".to_owned(), edit: edit() };
    let elsewhere = Verdict::Elsewhere { path: "/x".into(), edit: edit() };
    let unreadable = Verdict::Unreadable { message: "broken".to_owned() };
    for (findings, state, reason) in [
        (base(), S::Mirrored, R::None),
        (Findings { round: Err(edit()), ..base() }, S::Failing, R::CertsDirUnusable),
        (Findings { answers: false, ..base() }, S::Withdrawn, R::MirrorUnreachable),
        (verdict(Verdict::Missing { edit: edit() }), S::NotEffective, R::ConfigPathMissing),
        (verdict(colon), S::NotEffective, R::ColonConfigPath),
        (verdict(elsewhere), S::NotEffective, R::ConfigPathElsewhere),
        (verdict(Verdict::NotContainerd), S::NotEffective, R::NotContainerd),
        (verdict(unreadable), S::Failing, R::ConfigUnreadable),
        (Findings { round: left(&["a.test"]), ..base() }, S::Mirrored, R::ForeignMirror),
        (Findings { round: left(&[]), ..base() }, S::NotEffective, R::ForeignMirror),
        (Findings { config_error: Some(edit()), ..base() }, S::Mirrored, R::ConfigUnreadable),
    ] {
        let (found, because, message) = findings.judge();
        assert_eq!((found, because), (state, reason), "{findings:?}");
        assert_eq!(message.is_empty(), reason == R::None, "{findings:?}");
    }
}

#[test]
fn what_is_mirrored_on_a_condition_says_so_without_a_reason() {
    let mut findings = findings();
    let message = "on 1.x alone".to_owned();
    findings.containerd.caution = Some(Caution { path: "/a:/b".to_owned(), message });
    let judged = findings.judge();
    assert_eq!(judged, (MirrorState::Mirrored, MirrorReason::None, "on 1.x alone".to_owned()));
}

#[test]
fn files_that_containerd_does_not_read_are_named_but_do_not_count_as_mirrored() {
    let edit = "write it".to_owned();
    let findings = Findings { containerd: Verdict::Missing { edit }.into(), ..findings() };
    let (state, reason, message) = findings.judge();
    let reason = (state, reason);
    assert_eq!(reason, (MirrorState::NotEffective, MirrorReason::ConfigPathMissing));
    assert_eq!(message, "write it");
    assert_eq!(findings.hosts(), ["a.test"]);
}

#[test]
fn a_state_is_reported_while_it_is_fresh() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    assert_eq!(report(Some(&path)).state, "Unknown");
    assert_eq!(report(None).state, "Unknown");
    let mut file = StateFile::new(Some(path.clone()), "pod-1");
    file.put(findings().judge(), findings().hosts());
    let told = report(Some(&path));
    assert_eq!((told.state.as_str(), told.hosts), ("Mirrored", vec!["a.test".to_owned()]));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let mut status: MirrorStatus = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(status.instance, "pod-1");
    status.time = Timestamp::now() - jiff::SignedDuration::from_secs(16);
    fs::write(&path, serde_json::to_vec(&status).unwrap()).unwrap();
    assert_eq!(report(Some(&path)).state, "Unknown");
    fs::write(&path, "{").unwrap();
    assert_eq!(report(Some(&path)).state, "Unknown");
}

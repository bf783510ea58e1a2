//! A `config_path` with a colon, under `colonPathRepair`.

use std::path::Path;

use super::certs_dir::{CertsDir, CertsDirError, Change, preview_repair};
use crate::containerd::{Inspection, Verdict};

/// Makes the repair that is allowed and needed, or takes it away. Answers what holds afterwards and
/// what was changed; with `dry_run`, what would be.
///
/// Where containerd's release decides, the repair makes every release read the folder.
pub fn settle(
    certs_dir: &Path,
    inspection: Inspection,
    allowed: bool,
    dry_run: bool,
) -> Result<(Inspection, Vec<Change>), CertsDirError> {
    let path = match (&inspection.verdict, &inspection.caution) {
        (Verdict::Colon { path, .. }, _) => Some(path.clone()),
        (Verdict::Effective, Some(caution)) => Some(caution.path.clone()),
        _ => None,
    };
    let effective = Inspection { verdict: Verdict::Effective, caution: None, ..inspection.clone() };
    let folder = CertsDir::open(certs_dir)?;
    let leads_here =
        |path: &str| folder.as_ref().is_some_and(|folder| folder.is_at(Path::new(path)));
    match (path, &folder) {
        (Some(path), _) if allowed => {
            let literal = Some(Path::new(&path));
            let others = folder.as_ref().map(|folder| folder.preview_undo_repairs_but(literal));
            let change = preview_repair(certs_dir, &path);
            let works = match &folder {
                Some(folder) if !dry_run => folder.repair(&path)?,
                _ => dry_run && (change.is_some() || leads_here(&path)),
            };
            let mut changes = others.unwrap_or_default();
            changes.extend(change.filter(|_| works));
            Ok((if works { effective } else { inspection }, changes))
        }
        (_, Some(folder)) if folder.is_repaired() => {
            let changes = folder.preview_undo_repair();
            if !dry_run {
                folder.undo_repair()?;
            }
            Ok((inspection, changes))
        }
        // Somebody else made such a link.
        (Some(path), _) if leads_here(&path) => Ok((effective, Vec::new())),
        _ => Ok((inspection, Vec::new())),
    }
}

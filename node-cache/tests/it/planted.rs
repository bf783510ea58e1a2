//! What somebody put into the data folder before the server came: it follows nothing, waits for
//! nothing, writes nowhere else, and says what to do.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::{
    faulty::{Image, Origin},
    larder::{Larder, NodeConfig, Upstream},
};

const APP: &str = "team/app";
const HOST: &str = "reg.test";

/// Where in the data folder, for an image.
type Name<'a> = &'a dyn Fn(&Image) -> String;

/// What is planted.
#[derive(Clone, Copy, Debug)]
enum Plant {
    /// A symbolic link to a folder of somebody else.
    LinkToFolder,
    /// A symbolic link to a file of somebody else.
    LinkToFile,
    /// A second name of a file of somebody else.
    HardLink,
    /// A second name of an empty file of somebody else.
    HardLinkToEmpty,
    Fifo,
    Device,
    File,
    Folder,
    /// A folder that belongs to another user.
    Foreign,
    /// A folder in which everybody may write.
    Open,
    /// A file of a layout that this version does not know.
    Newer,
}

/// A data folder, and beside it what is somebody else's.
struct Ground {
    origin: Origin,
    image: Image,
    larder: Larder,
}

impl Ground {
    async fn new() -> Self {
        let origin = Origin::start().await;
        let image = origin.image(APP, "v1", 1, 300_000);
        let larder = Larder::stopped(&NodeConfig::new([Upstream::at(HOST, &origin)]));
        let outside = larder.folder().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "precious").unwrap();
        fs::write(outside.join("empty"), "").unwrap();
        Self { origin, image, larder }
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.larder.folder().join("outside").join(name)
    }

    fn plant(&self, plant: Plant, name: &str) -> PathBuf {
        let path = self.larder.folder().join("store").join(name);
        let path = path.components().collect::<PathBuf>();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let node = |kind, device| mknodat(CWD, &path, kind, Mode::RWXU, device).unwrap();
        match plant {
            Plant::LinkToFolder => symlink(self.outside(""), &path).unwrap(),
            Plant::LinkToFile => symlink(self.outside("precious"), &path).unwrap(),
            Plant::HardLink => fs::hard_link(self.outside("precious"), &path).unwrap(),
            Plant::HardLinkToEmpty => fs::hard_link(self.outside("empty"), &path).unwrap(),
            Plant::Fifo => node(FileType::Fifo, 0),
            Plant::Device => node(FileType::CharacterDevice, makedev(1, 7)),
            Plant::File => fs::write(&path, "somebody's").unwrap(),
            Plant::Newer => fs::write(&path, "larder-layout 7\n").unwrap(),
            Plant::Folder => fs::create_dir_all(&path).unwrap(),
            Plant::Foreign | Plant::Open => {
                fs::create_dir_all(&path).unwrap();
                if matches!(plant, Plant::Foreign) {
                    chown(&path, Some(12345), Some(12345)).unwrap();
                } else {
                    fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
                }
            }
        }
        path
    }

    /// Everything that is somebody else's.
    fn theirs(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.outside("")).unwrap();
        let read = |path: PathBuf| (path.clone(), fs::read(&path).unwrap_or_default());
        entries.map(|entry| read(entry.unwrap().path())).collect()
    }

    fn stop(&self) {
        self.larder.terminate();
    }
}

#[tokio::test]
async fn t10_a_folder_that_cannot_be_trusted_is_refused_with_the_name_and_the_fix() {
    for (plant, name, fix) in [
        (Plant::File, "", "name the folder itself"),
        (Plant::Fifo, "", "name the folder itself"),
        (Plant::Device, "", "name the folder itself"),
        (Plant::LinkToFolder, "", "name the folder itself"),
        (Plant::Foreign, "", "chown it"),
        (Plant::Open, "", "chmod go-w"),
        (Plant::LinkToFile, "larder-layout", "remove it"),
        (Plant::Fifo, "larder-layout", "remove it"),
        (Plant::Device, "larder-layout", "remove it"),
        (Plant::Folder, "larder-layout", "remove it"),
        (Plant::HardLinkToEmpty, "larder-layout", "remove this one"),
        (Plant::Newer, "larder-layout", "run the version that wrote it"),
        (Plant::LinkToFolder, "blobs", "remove it"),
        (Plant::File, "blobs", "remove it"),
        (Plant::Fifo, "blobs", "remove it"),
        (Plant::Device, "blobs", "remove it"),
        (Plant::Foreign, "blobs", "chown it"),
        (Plant::Open, "blobs", "chmod go-w"),
        (Plant::LinkToFolder, "blobs/sha256", "remove it"),
        (Plant::LinkToFolder, "partial", "remove it"),
        (Plant::LinkToFolder, "partial/sha256", "remove it"),
        (Plant::Foreign, "partial/sha512", "chown it"),
        (Plant::LinkToFolder, "quarantine", "remove it"),
        (Plant::Fifo, "quarantine", "remove it"),
        (Plant::LinkToFolder, "repos", "remove it"),
        (Plant::Open, "repos", "chmod go-w"),
    ] {
        let case = format!("{plant:?} as {name:?}");
        let mut ground = Ground::new().await;
        let planted = ground.plant(plant, name);
        let (before, theirs) = (kind(&planted), ground.theirs());
        let Err(failed) = ground.larder.try_start().await else {
            panic!("{case}: it serves");
        };
        // Not killed by a signal, and not still waiting for a FIFO.
        let code = failed.status.and_then(|status| status.code());
        assert_eq!(code, Some(1), "{case}: {}", failed.log);
        assert!(failed.log.contains(planted.to_str().unwrap()), "{case}: {}", failed.log);
        assert!(failed.log.contains(fix), "{case}: {}", failed.log);
        assert!(!failed.log.contains("panicked"), "{case}: {}", failed.log);
        assert_eq!(ground.theirs(), theirs, "{case}");
        assert_eq!(kind(&planted), before, "{case}: what was planted is still there");
    }
}

#[tokio::test]
async fn t10_what_is_planted_for_one_image_costs_no_pull_and_is_named() {
    let stored: Name<'_> = &|image| {
        let hex = image.layer.digest.strip_prefix("sha256:").unwrap();
        format!("blobs/sha256/{}/{hex}", &hex[..2])
    };
    let shard: Name<'_> = &|image| {
        let hex = image.layer.digest.strip_prefix("sha256:").unwrap();
        format!("blobs/sha256/{}", &hex[..2])
    };
    let partial: Name<'_> =
        &|image| format!("partial/sha256/{}", image.layer.digest.strip_prefix("sha256:").unwrap());
    let repository: Name<'_> = &|_| format!("repos/{HOST}");
    let links: Name<'_> = &|_| format!("repos/{HOST}/{APP}/_links");
    let tag: Name<'_> = &|_| format!("repos/{HOST}/{APP}/_tags/v1");
    let counters: Name<'_> = &|_| "counters.redb".to_owned();
    for (plant, name, is_told) in [
        (Plant::LinkToFile, stored, true),
        (Plant::Fifo, stored, true),
        (Plant::Device, stored, true),
        // As any other blob that is not what its name says.
        (Plant::HardLink, stored, false),
        (Plant::LinkToFolder, shard, true),
        (Plant::LinkToFile, partial, true),
        (Plant::Fifo, partial, true),
        // What is not ours goes by its name alone.
        (Plant::HardLink, partial, false),
        (Plant::HardLinkToEmpty, partial, false),
        (Plant::LinkToFolder, repository, true),
        (Plant::LinkToFolder, links, true),
        (Plant::Fifo, tag, true),
        (Plant::LinkToFile, tag, true),
        (Plant::LinkToFile, counters, true),
        (Plant::Fifo, counters, true),
        (Plant::HardLink, counters, true),
        (Plant::HardLinkToEmpty, counters, true),
    ] {
        let mut ground = Ground::new().await;
        let name = name(&ground.image);
        let case = format!("{plant:?} as {name:?}");
        let planted = ground.plant(plant, &name);
        let theirs = ground.theirs();
        ground.larder.start().await;
        for _ in 0..2 {
            let Ground { larder, image, .. } = &ground;
            let path = format!("/v2/{APP}/manifests/v1?ns={HOST}");
            larder.get(&path).send().await.is_whole(&image.index.bytes);
            let path = format!("/v2/{APP}/blobs/{}?ns={HOST}", image.layer.digest);
            larder.get(&path).send().await.is_whole(&image.layer.bytes);
        }
        let catalog = ground.larder.admin("/catalog").send().await;
        assert_eq!(catalog.status, 200, "{case}: {}", catalog.text());
        ground.stop();
        let status = ground.larder.ended().await;
        let log = ground.larder.log().text();
        assert_eq!(status.code(), Some(0), "{case}: {log}");
        assert!(!log.contains("panicked"), "{case}: {log}");
        assert_eq!(log.contains(planted.to_str().unwrap()), is_told, "{case}: {log}");
        assert_eq!(ground.theirs(), theirs, "{case}: {log}");
        drop(ground.origin);
    }
}

/// What is there, without opening it.
fn kind(path: &Path) -> Option<String> {
    let found = path.symlink_metadata().ok()?;
    Some(format!("{:?} {:?} {}", found.file_type(), found.permissions(), found.len()))
}

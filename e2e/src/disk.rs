//! A disk of one's own: a real file system that can be filled, broken and cut from its power.
//!
//! It is mounted in a mount namespace that a sleeping process holds, and nowhere else. When that
//! process and the programs on the disk are gone, so are the mount and the loop device, whatever
//! became of the test. The machine's own mounts are never touched.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::process::{self, Daemon, eventually};

/// What kind of disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// ext4 of so many MiB on a loop device.
    Ext4(u64),
    /// ext4 of so many MiB in which so many files can be made.
    Ext4WithInodes(u64, u32),
    /// xfs of so many MiB on a loop device; below 300, mkfs refuses.
    Xfs(u64),
    /// Memory of so many MiB.
    Tmpfs(u64),
}

/// A mount namespace in which a disk is mounted.
#[derive(Clone, Copy, Debug)]
pub struct Mounts {
    holder: u32,
}

impl Mounts {
    /// A program that sees the disk, as [`process::command`].
    pub fn command(self, program: &Path, home: &Path) -> Command {
        let mut command = process::command(Path::new("nsenter"), home);
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder))
            .arg(format!("--wdns={}", home.display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Where a path in the namespace is for the test, which is outside.
    pub fn seen(self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// A mounted disk.
pub struct Disk {
    format: Format,
    folder: PathBuf,
    mount_point: PathBuf,
    mounts: Mounts,
    /// Sleeps; killed when this is dropped.
    _holder: Daemon,
}

impl Disk {
    /// Makes a disk whose image and log lie in `folder`, and mounts it at `mount_point`. Needs
    /// root.
    pub async fn mounted(format: Format, folder: &Path, mount_point: &Path) -> Result<Self> {
        fs::create_dir_all(mount_point)?;
        let mut command = process::command(Path::new("unshare"), folder);
        command.args(["--mount", "--propagation", "private", "--", "sleep", "infinity"]);
        let log = folder.join("disk.log");
        let mut holder = Daemon::start("the disk's holder", command, &log, &log)?;
        let mounts = Mounts { holder: holder.pid() };
        let own = fs::read_link("/proc/self/ns/mnt")?;
        eventually("a mount namespace (is this root?)", Duration::from_secs(10), || {
            holder.check_running()?;
            let program = fs::read(format!("/proc/{}/cmdline", mounts.holder))?;
            let there = fs::read_link(format!("/proc/{}/ns/mnt", mounts.holder))?;
            Ok(there != own && program.starts_with(b"sleep"))
        })
        .await?;
        let disk = Self {
            format,
            folder: folder.to_owned(),
            mount_point: mount_point.to_owned(),
            mounts,
            _holder: holder,
        };
        disk.format().await?;
        disk.mount().await?;
        Ok(disk)
    }

    /// The namespace, for programs that are to see the disk.
    pub fn mounts(&self) -> Mounts {
        self.mounts
    }

    /// The disk's root as the test sees it.
    pub fn root(&self) -> PathBuf {
        self.mounts.seen(&self.mount_point)
    }

    /// The file that is the disk's medium.
    pub fn medium(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    /// Makes the file system anew. It must not be mounted.
    pub async fn format(&self) -> Result<()> {
        let medium = self.medium();
        let (program, size, more) = match self.format {
            Format::Ext4(size) => ("mkfs.ext4", size, vec![]),
            Format::Ext4WithInodes(size, inodes) => {
                ("mkfs.ext4", size, vec!["-N".to_owned(), inodes.to_string()])
            }
            // Without discard: 20 ms less.
            Format::Xfs(size) => ("mkfs.xfs", size, vec!["-f".to_owned(), "-K".to_owned()]),
            Format::Tmpfs(_) => return Ok(()),
        };
        // Anew, so that nothing of an older file system is left in it.
        File::create(&medium)?.set_len(size << 20)?;
        let mut command = process::command(Path::new(program), &self.folder);
        command.arg("-q").args(more).arg(&medium);
        process::run(command).await?;
        Ok(())
    }

    /// Mounts it; after a power cut the file system replays its log.
    pub async fn mount(&self) -> Result<()> {
        if let Format::Tmpfs(size) = self.format {
            let options = format!("size={size}M,mode=0755");
            return self.run("mount", &["-t", "tmpfs", "-o", &options, "none"]).await;
        }
        let medium = self.medium();
        // The loop device goes away with the mount. An error turns the file system read-only, as
        // distributions have it.
        let options = match self.format {
            Format::Xfs(_) => "loop",
            _ => "loop,errors=remount-ro",
        };
        self.run("mount", &["-o", options, &medium.to_string_lossy()]).await
    }

    /// Remounts it with another option, such as `ro` (nobody may have a file open for writing),
    /// `rw` or, for memory, `size=64M`.
    pub async fn remount(&self, option: &str) -> Result<()> {
        self.run("mount", &["-o", &format!("remount,{option}")]).await
    }

    /// Unmounts it: nobody may have a file open.
    pub async fn unmount(&self) -> Result<()> {
        self.run("umount", &[]).await
    }

    /// ext4 finds an error and turns read-only at once, whoever has files open for writing. It
    /// stays so until it is mounted again.
    pub fn fail_to_read_only(&self) -> Result<()> {
        let device = self.loop_device()?.context("the disk has no loop device")?;
        let switch = Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error");
        fs::write(&switch, "1").with_context(|| format!("writing {}", switch.display()))
    }

    /// The power goes: what the file system has not sent to its medium is lost, and everything from
    /// now on fails with EIO. (`FS_IOC_SHUTDOWN` without flushing the log; works on ext4 too.)
    pub async fn cut_power(&self) -> Result<()> {
        ensure!(!matches!(self.format, Format::Tmpfs(_)), "memory has no medium");
        self.run("xfs_io", &["-x", "-c", "shutdown"]).await
    }

    /// Runs a program in the namespace, on the mount point.
    async fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.mounts.command(Path::new(program), &self.folder);
        command.args(arguments).arg(&self.mount_point);
        process::run(command).await?;
        Ok(())
    }

    /// Unmounts it and waits until its loop device is free. Dropping does the same in the end, and
    /// without anybody looking.
    pub async fn removed(self) -> Result<()> {
        self.unmount().await?;
        eventually("the loop device is free", Duration::from_secs(10), || {
            Ok(self.loop_device()?.is_none())
        })
        .await
    }

    /// The name of the loop device that has the medium.
    fn loop_device(&self) -> Result<Option<OsString>> {
        let medium = self.medium();
        for entry in fs::read_dir("/sys/block").context("listing block devices")?.flatten() {
            let file = fs::read_to_string(entry.path().join("loop/backing_file"));
            if file.is_ok_and(|file| Path::new(file.trim_end()) == medium) {
                return Ok(Some(entry.file_name()));
            }
        }
        Ok(None)
    }
}

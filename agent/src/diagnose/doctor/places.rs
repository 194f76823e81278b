//! Checks the directories of the handler and of dumps: whether programs can be executed there, and how
//! much space is free.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::finding::Finding;
use crate::error_chain::explain;
use crate::node::binary::{Linkage, linkage};
use crate::node::settings::NodeSettings;
use crate::paths::AgentPaths;
use crate::supervise::socket::kernel_has_sockets;

/// `statfs` types of file systems in memory: tmpfs, ramfs.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// The directory itself, or its nearest existing parent.
pub(crate) fn existing(path: &Path) -> PathBuf {
    let mut path = path;
    while !path.exists() {
        match path.parent() {
            Some(parent) => path = parent,
            None => break,
        }
    }
    path.to_owned()
}

pub(crate) fn is_read_only(path: &Path) -> bool {
    statvfs(existing(path)).is_ok_and(|disk| disk.f_flag.contains(StatVfsMountFlags::RDONLY))
}

pub(crate) fn handler_place(paths: &AgentPaths, root: &Path, installs: bool) -> Finding {
    const CHECK: &str = "handler directory";
    let directory = paths.handler.parent().unwrap_or(&paths.handler);
    let shown = directory.display();
    let elsewhere = other_place(root);
    let socket = match kernel_has_sockets() {
        true => ", or use `--mode socket`, where the kernel starts no program",
        false => "",
    };
    let Ok(disk) = statvfs(existing(directory)) else {
        return Finding::problem(CHECK, format!("{shown} cannot be examined"), "run as root");
    };
    let is_socket = NodeSettings::read(&paths.settings)
        .is_ok_and(|now| now.core_pattern.as_bytes().starts_with(b"@"));
    if disk.f_flag.contains(StatVfsMountFlags::NOEXEC) && is_socket {
        let what =
            format!("{shown} is mounted noexec; the receiver of the socket runs from memory");
        return Finding::good(CHECK, what);
    }
    if disk.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        let what = format!(
            "{shown} is on a file system that is mounted noexec: the kernel cannot start the handler there"
        );
        return Finding::problem(
            CHECK,
            what,
            format!("choose another one: `--libexec {elsewhere}`{socket}"),
        );
    }
    if disk.f_flag.contains(StatVfsMountFlags::RDONLY) && !installs {
        let what =
            format!("{shown} is executable, and read-only in this container, which only ships");
        return Finding::good(CHECK, what);
    }
    if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let what = format!("{shown} is on a file system that is read-only");
        return Finding::problem(
            CHECK,
            what,
            format!("choose another one: `--libexec {elsewhere}`"),
        );
    }
    Finding::good(CHECK, format!("{shown} is writable and executable"))
}

/// A directory where this operating system allows installing and executing programs.
fn other_place(root: &Path) -> &'static str {
    let release = fs::read_to_string(root.join("etc/os-release")).unwrap_or_default();
    let is = |id: &str| {
        release
            .lines()
            .any(|line| line.trim_matches('"') == id || line.replace('"', "") == format!("ID={id}"))
    };
    if is("cos") {
        "/home/kubernetes/bin/cdh"
    } else if is("bottlerocket") {
        "/opt/cdh"
    } else if is("talos") {
        "/var/lib/cdh/lib"
    } else if is("rhcos") || is("fedora") {
        "/usr/local/lib/cdh"
    } else {
        "/var/lib/cdh/lib"
    }
}

pub(crate) fn handler_file(paths: &AgentPaths) -> Finding {
    const CHECK: &str = "handler";
    let shown = paths.handler.display();
    if !paths.handler.exists() {
        return Finding::problem(
            CHECK,
            format!("{shown} is missing"),
            "run `cdh agent install`",
        );
    }
    if access(&paths.handler, Access::EXEC_OK).is_err() {
        return Finding::problem(
            CHECK,
            format!("{shown} is not executable"),
            "run `cdh agent install` again",
        );
    }
    match linkage(&paths.handler) {
        Ok(Linkage::Static) => Finding::good(CHECK, format!("{shown}, static")),
        Ok(_) => Finding::warning(
            CHECK,
            format!("{shown} needs shared libraries, which a broken host may lack"),
            "build a static one with `cargo xtask handler` and install it with `cdh agent install --handler <FILE>`",
        ),
        Err(error) => Finding::problem(CHECK, explain(&error), "run `cdh agent install` again"),
    }
}

pub(crate) fn state_place(paths: &AgentPaths) -> Finding {
    const CHECK: &str = "state directory";
    let shown = paths.state.display();
    let place = existing(&paths.state);
    if is_read_only(&place) {
        let what = format!("{shown} is on a read-only file system: no dump can be stored");
        return Finding::problem(
            CHECK,
            what,
            "choose another one: `--state <DIR>`; /var is writable on most systems",
        );
    }
    if access(&place, Access::WRITE_OK).is_err() {
        return Finding::problem(CHECK, format!("{shown} is not writable"), "run as root");
    }
    let in_memory = rustix::fs::statfs(&place).is_ok_and(|disk| {
        #[allow(clippy::unnecessary_cast)]
        let kind = disk.f_type as i64;
        IN_MEMORY.contains(&kind)
    });
    match in_memory {
        true => Finding::warning(
            CHECK,
            format!(
                "{shown} is in memory: a reboot loses dumps and the backup of the kernel settings"
            ),
            "choose a directory on a disk: `--state <DIR>`",
        ),
        false => Finding::good(CHECK, format!("{shown} is writable")),
    }
}

pub(crate) fn room(paths: &AgentPaths) -> Finding {
    const CHECK: &str = "room in the spool";
    let Ok(disk) = statvfs(existing(&paths.spool)) else {
        return Finding::problem(
            CHECK,
            "unknown: its file system cannot be examined",
            "run as root",
        );
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let all = disk.f_blocks.saturating_mul(disk.f_frsize);
    let (handler, _) =
        crate::handler::startup::settings::HandlerSettings::read(&paths.handler_settings());
    let floor = handler.floor.min(all / 20);
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    let what = format!(
        "{} free of {}; {} are never used",
        mebibytes(free),
        mebibytes(all),
        mebibytes(floor)
    );
    if free <= floor {
        let way = "ship what waits (`cdh agent sweep`), free space on the disk, or move the spool with `--state`";
        return Finding::problem(CHECK, format!("{what}: cores are not stored"), way);
    }
    if free < floor.saturating_add(1 << 30) {
        return Finding::warning(
            CHECK,
            format!("{what}: a large core will be truncated"),
            "free space, or set `core_limit` in `[limits]`",
        );
    }
    Finding::good(CHECK, what)
}

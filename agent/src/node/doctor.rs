//! What on this node keeps cores from being captured, kept or shipped, and the way around each.
//!
//! Looks only, but for one object in the store that is written, read and deleted when that is wanted.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use cdh_bundle::{DumpId, RawText};
use cdh_store::{ObjectKey, Store};
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
use serde::Serialize;

use super::binary::{Linkage, linkage};
use super::boot::{boot_settings, other_handlers};
use super::settings::NodeSettings;
use super::socket::kernel_has_sockets;
use super::status::{PatternOwner, pattern_owner, status};
use crate::paths::AgentPaths;

/// Of the pid namespace that the kernel starts with (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// The kernel's pipe limit below which a storm loses cores.
const FEW_PIPES: u32 = 64;
/// Bytes of the audit log's end that are searched.
const AUDIT_TAIL: u64 = 1 << 20;
/// Statfs types of file systems in memory: tmpfs, ramfs.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Good,
    /// It works, and something is lost under circumstances.
    Warning,
    /// Cores are lost or do not arrive.
    Problem,
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which thing: `handler directory`.
    pub check: &'static str,
    /// How bad it is.
    pub state: State,
    /// What was found.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<String>,
}

impl Finding {
    fn good(check: &'static str, what: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Good,
            what: what.into(),
            way: None,
        }
    }

    fn warning(check: &'static str, what: impl Into<String>, way: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Warning,
            what: what.into(),
            way: Some(way.into()),
        }
    }

    fn problem(check: &'static str, what: impl Into<String>, way: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Problem,
            what: what.into(),
            way: Some(way.into()),
        }
    }
}

/// Looks at the node. `root` is `/`, or what stands for it in a test.
#[must_use]
pub fn examine(paths: &AgentPaths, root: &Path) -> Vec<Finding> {
    let mut found = vec![
        privileges(paths),
        pid_namespace(root),
        pattern(paths),
        handler_place(paths, root),
        handler_file(paths),
        state_place(paths),
        room(paths),
        userfaultfd(root),
        yama(root),
    ];
    found.extend(limits(paths));
    found.extend(selinux(paths, root));
    found.extend(boot(paths, root));
    found.extend(others(root));
    found.extend(runtimes(paths, root));
    found.extend(spool(paths));
    found
}

/// Whether the store takes, gives back and deletes an object.
#[must_use]
pub fn examine_store(store: &dyn Store) -> Finding {
    const CHECK: &str = "store";
    let place = store.describe();
    let text = b"written by `cdh agent doctor`, may be deleted\n";
    let key = format!("doctor/{}.txt", DumpId::random());
    let failed = |verb: &str, error: &dyn std::error::Error, way: &str| {
        Finding::problem(
            CHECK,
            format!("{place}: cannot {verb}: {}", super::explain(error)),
            way,
        )
    };
    let key = match ObjectKey::parse(&key) {
        Ok(key) => key,
        Err(error) => return failed("name an object", &error, "report this"),
    };
    if let Err(error) = store.put(&key, &mut &text[..], text.len() as u64) {
        let way = "check the address, credentials and the permission to write (s3:PutObject); dumps wait in the spool meanwhile";
        return failed("write", &error, way);
    }
    let read = store
        .read(&key)
        .map_err(|error| super::explain(&error))
        .and_then(|source| {
            let mut bytes = vec![0; text.len()];
            let count = source
                .read_at(0, &mut bytes)
                .map_err(|error| error.to_string())?;
            bytes.truncate(count);
            Ok(bytes == text)
        });
    let deleted = store.delete(&key);
    match (read, deleted) {
        (Ok(true), Ok(())) => {
            Finding::good(CHECK, format!("{place} takes, gives back and deletes"))
        }
        (Ok(false), _) => {
            let what = format!("{place} gives back something else than was written");
            Finding::problem(
                CHECK,
                what,
                "look at what stands between this node and the store",
            )
        }
        (Err(why), _) => {
            let way = "give it the permission to read (s3:GetObject): every dump is verified before it leaves the node";
            Finding::problem(
                CHECK,
                format!("{place}: cannot read what was written: {why}"),
                way,
            )
        }
        (_, Err(error)) => {
            let what = format!("{place}: cannot delete `{key}`: {}", super::explain(&error));
            let way = "give it the permission to delete (s3:DeleteObject), or remains of uploads that went wrong stay";
            Finding::warning(CHECK, what, way)
        }
    }
}

fn privileges(paths: &AgentPaths) -> Finding {
    const CHECK: &str = "privileges";
    let pattern = &paths.settings.core_pattern;
    if access(pattern, Access::WRITE_OK).is_ok() && !is_read_only(pattern) {
        return Finding::good(CHECK, "may change the kernel's core settings");
    }
    let what = format!("{} cannot be written", pattern.display());
    Finding::problem(
        CHECK,
        what,
        "run as root; in a container with `privileged: true` (node.mode split: only the init container)",
    )
}

fn pid_namespace(root: &Path) -> Finding {
    const CHECK: &str = "pid namespace";
    match fs::read_link(root.join("proc/self/ns/pid")) {
        Ok(link) if link.as_os_str() == FIRST_PID_NAMESPACE => {
            Finding::good(CHECK, "that of the host")
        }
        Ok(_) => Finding::warning(
            CHECK,
            "not that of the host: processes cannot be found by their ids",
            "run the agent's pod with `hostPID: true`",
        ),
        Err(error) => Finding::warning(CHECK, format!("unknown: {error}"), "mount /proc"),
    }
}

fn pattern(paths: &AgentPaths) -> Finding {
    const CHECK: &str = "core_pattern";
    let now = NodeSettings::read(&paths.settings).map(|settings| settings.core_pattern.to_string());
    let now = now.unwrap_or_default();
    match pattern_owner(paths) {
        Ok(PatternOwner::Ours) => Finding::good(CHECK, "this agent's"),
        Ok(PatternOwner::OtherInstallation) => Finding::problem(
            CHECK,
            format!("of another installation of cdh: {now}"),
            "run `cdh agent install` with the same `--state` and `--libexec`, or uninstall the other one",
        ),
        Ok(PatternOwner::Foreign) => Finding::problem(
            CHECK,
            format!("cores go elsewhere: {now}"),
            "run `cdh agent install`, or `cdh agent run --manage-node`",
        ),
        Err(error) => Finding::problem(CHECK, super::explain(&error), "mount /proc"),
    }
}

/// The directory itself, or the first one above it that is there.
fn existing(path: &Path) -> PathBuf {
    let mut path = path;
    while !path.exists() {
        match path.parent() {
            Some(parent) => path = parent,
            None => break,
        }
    }
    path.to_owned()
}

fn is_read_only(path: &Path) -> bool {
    statvfs(existing(path)).is_ok_and(|disk| disk.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn handler_place(paths: &AgentPaths, root: &Path) -> Finding {
    const CHECK: &str = "handler directory";
    let directory = paths.handler.parent().unwrap_or(&paths.handler);
    let shown = directory.display();
    let elsewhere = other_place(root);
    let socket = match kernel_has_sockets() {
        true => ", or `--mode socket`, where the kernel starts nothing",
        false => "",
    };
    let Ok(disk) = statvfs(existing(directory)) else {
        return Finding::problem(CHECK, format!("{shown} cannot be looked at"), "run as root");
    };
    if disk.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        let what = format!(
            "{shown} is on a file system that is mounted noexec: the kernel starts nothing there"
        );
        return Finding::problem(
            CHECK,
            what,
            format!("choose another one: `--libexec {elsewhere}`{socket}"),
        );
    }
    if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let what = format!("{shown} is on a file system that is read-only");
        return Finding::problem(
            CHECK,
            what,
            format!("choose another one: `--libexec {elsewhere}`{socket}"),
        );
    }
    Finding::good(
        CHECK,
        format!("{shown} can be written and programs are started from it"),
    )
}

/// A place where this operating system lets programs be put and started.
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

fn handler_file(paths: &AgentPaths) -> Finding {
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
            format!("{shown} cannot be started"),
            "run `cdh agent install` again",
        );
    }
    match linkage(&paths.handler) {
        Ok(Linkage::Static) => Finding::good(CHECK, format!("{shown}, static")),
        Ok(_) => Finding::warning(
            CHECK,
            format!("{shown} needs shared libraries, which a broken host may lack"),
            "install the static one: `cargo xtask handler`, `--handler <FILE>`",
        ),
        Err(error) => Finding::problem(
            CHECK,
            super::explain(&error),
            "run `cdh agent install` again",
        ),
    }
}

fn state_place(paths: &AgentPaths) -> Finding {
    const CHECK: &str = "state directory";
    let shown = paths.state.display();
    let place = existing(&paths.state);
    if is_read_only(&place) {
        let what = format!("{shown} is on a file system that is read-only: no dump can be kept");
        return Finding::problem(
            CHECK,
            what,
            "choose another one: `--state <DIR>`; /var is writable on most systems",
        );
    }
    if access(&place, Access::WRITE_OK).is_err() {
        return Finding::problem(CHECK, format!("{shown} cannot be written"), "run as root");
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
                "{shown} is in memory: dumps and the backup of the node's settings are gone after a restart"
            ),
            "choose a directory on a disk: `--state <DIR>`",
        ),
        false => Finding::good(CHECK, format!("{shown} can be written")),
    }
}

fn room(paths: &AgentPaths) -> Finding {
    const CHECK: &str = "room in the spool";
    let Ok(disk) = statvfs(existing(&paths.spool)) else {
        return Finding::problem(CHECK, "cannot be told", "run as root");
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let all = disk.f_blocks.saturating_mul(disk.f_frsize);
    let (handler, _) = crate::handler::settings::HandlerSettings::read(&paths.handler_settings());
    let floor = handler.floor.min(all / 20);
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    let what = format!(
        "{} free of {}, {} stay free",
        mebibytes(free),
        mebibytes(all),
        mebibytes(floor)
    );
    if free <= floor {
        let way = "ship or remove what waits (`cdh agent sweep`), make room on the disk, or move the spool with `--state`";
        return Finding::problem(CHECK, format!("{what}: cores are not kept"), way);
    }
    if free < floor.saturating_add(1 << 30) {
        return Finding::warning(
            CHECK,
            format!("{what}: a large core will be cut"),
            "make room, or set limits in `[limits]`",
        );
    }
    Finding::good(CHECK, what)
}

fn userfaultfd(root: &Path) -> Finding {
    const CHECK: &str = "userfaultfd";
    let has = root.join("proc/sys/vm/unprivileged_userfaultfd").exists()
        || root.join("dev/userfaultfd").exists();
    match has {
        true => Finding::good(CHECK, "there: memory is held against a SIGKILL"),
        false => Finding::warning(
            CHECK,
            "this kernel has none: who kills a process in the middle of its dump cuts the core",
            "use a kernel with CONFIG_USERFAULTFD; raise terminationGracePeriodSeconds of what crashes",
        ),
    }
}

fn yama(root: &Path) -> Finding {
    const CHECK: &str = "ptrace";
    let scope =
        fs::read_to_string(root.join("proc/sys/kernel/yama/ptrace_scope")).unwrap_or_default();
    match scope.trim() {
        "3" => Finding::warning(
            CHECK,
            "kernel.yama.ptrace_scope is 3: memory cannot be read directly, cores come from the pipe alone",
            "set kernel.yama.ptrace_scope to 2 or less; that takes a reboot",
        ),
        _ => Finding::good(CHECK, "memory may be read directly"),
    }
}

fn limits(paths: &AgentPaths) -> Vec<Finding> {
    let Ok(settings) = NodeSettings::read(&paths.settings) else {
        return Vec::new();
    };
    let pipes = match settings.core_pipe_limit {
        0 => Finding::warning(
            "core_pipe_limit",
            "0: the kernel does not wait for handlers, and what /proc knows may be lost",
            "run `cdh agent install`, which sets `--core-pipe-limit` 1024",
        ),
        few if few < FEW_PIPES => Finding::warning(
            "core_pipe_limit",
            format!("{few}: of more crashes at once, no cores are taken"),
            "run `cdh agent install`, which sets `--core-pipe-limit` 1024",
        ),
        many => Finding::good("core_pipe_limit", many.to_string()),
    };
    let suid = match settings.suid_dumpable {
        0 => Finding::warning(
            "suid_dumpable",
            "0: programs that gained privileges leave no cores",
            "run `cdh agent install --suid-dumpable 2`",
        ),
        1 => Finding::warning(
            "suid_dumpable",
            "1: users may read what privileged programs had in memory",
            "run `cdh agent install --suid-dumpable 2`",
        ),
        _ => Finding::good(
            "suid_dumpable",
            "2: cores of privileged programs are for root only",
        ),
    };
    vec![pipes, suid]
}

fn selinux(paths: &AgentPaths, root: &Path) -> Vec<Finding> {
    const CHECK: &str = "SELinux";
    let enforce = fs::read_to_string(root.join("sys/fs/selinux/enforce")).unwrap_or_default();
    if enforce.trim() != "1" {
        return vec![Finding::good(CHECK, "does not enforce anything")];
    }
    let directory = paths
        .handler
        .parent()
        .unwrap_or(&paths.handler)
        .display()
        .to_string();
    let way = format!(
        "label it: `semanage fcontext -a -t bin_t '{directory}(/.*)?' && restorecon -R {directory}`; or use `--mode socket`; in a cluster `seLinuxOptions: {{ type: spc_t }}`"
    );
    if let Some(line) = denial(root) {
        return vec![Finding::problem(
            CHECK,
            format!("it denied the handler something: {line}"),
            way,
        )];
    }
    let mut label = [0; 256];
    let label = rustix::fs::getxattr(&paths.handler, "security.selinux", &mut label[..])
        .ok()
        .and_then(|length| {
            label
                .get(..length)
                .map(|label| RawText::from(label).to_string())
        });
    match label {
        Some(label)
            if !["bin_t", "usr_t", "lib_t", "container_runtime_exec_t"]
                .iter()
                .any(|kind| label.contains(kind)) =>
        {
            let what = format!(
                "it enforces, and the handler is labelled {}: the kernel may not be allowed to start it",
                label.trim_end_matches("\\0")
            );
            vec![Finding::warning(CHECK, what, way)]
        }
        _ => vec![Finding::good(
            CHECK,
            "enforces, and has denied the handler nothing that is still in the audit log",
        )],
    }
}

/// The last line of the audit log that tells of a denial for the handler.
fn denial(root: &Path) -> Option<String> {
    use std::io::{Seek, SeekFrom};
    let mut file = fs::File::open(root.join("var/log/audit/audit.log")).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(AUDIT_TAIL)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(AUDIT_TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| {
        line.contains("avc:")
            && line.contains("denied")
            && line.contains(crate::paths::HANDLER_NAME)
    })?;
    Some(line.chars().take(300).collect())
}

fn boot(paths: &AgentPaths, root: &Path) -> Vec<Finding> {
    const CHECK: &str = "settings at boot";
    let wanted =
        NodeSettings::read(&paths.settings).map(|settings| settings.core_pattern.to_string());
    let settings = boot_settings(root);
    let foreign = settings.into_iter().filter(|setting| {
        setting.name == "kernel.core_pattern"
            && wanted.as_ref().is_ok_and(|now| *now != setting.value)
    });
    let found: Vec<Finding> = foreign
        .map(|setting| {
            let file = setting.file.display();
            let name = setting.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let what = format!("{file} sets {} to `{}` at boot and whenever systemd-sysctl runs", setting.name, setting.value);
            let way = format!("`cdh agent run --manage-node` sets it anew when it starts; to be safe between: `ln -s /dev/null /etc/sysctl.d/{name}`, or run `cdh agent install` after it");
            Finding::warning(CHECK, what, way)
        })
        .collect();
    match found.is_empty() {
        true => vec![Finding::good(
            CHECK,
            "no sysctl.d file changes core_pattern",
        )],
        false => found,
    }
}

fn others(root: &Path) -> Vec<Finding> {
    let others = other_handlers(root).into_iter();
    others
        .map(|other| match other.sets_pattern {
            true => Finding::warning(
                "other handlers",
                format!("{} is installed and takes the core pattern when it starts", other.name),
                format!("stop it: `{}`", other.stop),
            ),
            false => Finding::good(
                "other handlers",
                format!("{} is installed and gets no cores while this agent does; `--chain` hands them on", other.name),
            ),
        })
        .collect()
}

fn runtimes(paths: &AgentPaths, root: &Path) -> Vec<Finding> {
    const CHECK: &str = "container runtime";
    let sockets = paths.workloads.sockets();
    let is_kubernetes =
        root.join("var/lib/kubelet").is_dir() || root.join("etc/kubernetes").is_dir();
    if sockets.is_empty() {
        return vec![match is_kubernetes {
            true => Finding::warning(
                CHECK,
                "no socket of one is found: dumps will not name their pods' images",
                "name it: `--cri-socket <PATH>`; in a cluster mount it (`node.criSockets`)",
            ),
            false => Finding::good(CHECK, "none: processes of this host only"),
        }];
    }
    let sockets = sockets.into_iter();
    sockets
        .map(|socket| match UnixStream::connect(&socket) {
            Ok(_) => Finding::good(CHECK, format!("{} answers", socket.display())),
            Err(error) => Finding::problem(
                CHECK,
                format!("{} does not answer: {error}", socket.display()),
                "check `--cri-socket`, and whether the runtime runs; run as root",
            ),
        })
        .collect()
}

fn spool(paths: &AgentPaths) -> Vec<Finding> {
    const CHECK: &str = "agent";
    let Ok(status) = status(paths) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    found.push(match status.shipper_running {
        true => Finding::good(CHECK, "runs"),
        false => Finding::warning(
            CHECK,
            "does not run: dumps stay in the spool",
            "start `cdh agent run`, or `cdh agent sweep` from time to time",
        ),
    });
    let known =
        |problem: &&String| !problem.contains("core_pipe_limit") && !problem.contains("is missing");
    for problem in status.problems.iter().filter(known) {
        found.push(Finding::warning(
            CHECK,
            problem.clone(),
            "see `cdh agent status`",
        ));
    }
    found
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;

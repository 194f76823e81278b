//! Checks the kernel's settings, and what changes them.

use std::fs;
use std::io::Read;
use std::path::Path;

use cdh_bundle::RawText;
use rustix::fs::{Access, access};

use super::finding::Finding;
use super::places::is_read_only;
use crate::diagnose::status::{PatternOwner, pattern_owner};
use crate::error_chain::explain;
use crate::handler::process::cgroups::of_handlers;
use crate::handler::startup::settings::HandlerSettings;
use crate::node::boot::{boot_settings, other_handlers};
use crate::node::settings::NodeSettings;
use crate::paths::AgentPaths;

/// Inode of the initial pid namespace (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Minimum pipe limit: with fewer handlers, a storm loses cores.
const FEW_PIPES: u32 = 64;
/// Number of bytes at the end of the audit log that are searched.
const AUDIT_TAIL: u64 = 1 << 20;

pub(crate) fn privileges(paths: &AgentPaths, installs: bool) -> Finding {
    const CHECK: &str = "privileges";
    let pattern = &paths.settings.core_pattern;
    if access(pattern, Access::WRITE_OK).is_ok() && !is_read_only(pattern) {
        return Finding::good(CHECK, "the kernel's core settings can be changed");
    }
    if !installs {
        let what = "this container has none: it only ships, an init container installs the handler";
        return Finding::good(CHECK, what);
    }
    let what = format!("{} cannot be written", pattern.display());
    Finding::problem(
        CHECK,
        what,
        "run as root; in a container with `privileged: true`",
    )
}

pub(crate) fn pid_namespace(root: &Path) -> Finding {
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

pub(crate) fn pattern(paths: &AgentPaths) -> Finding {
    const CHECK: &str = "core_pattern";
    let now = NodeSettings::read(&paths.settings).map(|settings| settings.core_pattern.to_string());
    let now = now.unwrap_or_default();
    match pattern_owner(paths) {
        Ok(PatternOwner::Ours) if paths.collects_files => Finding::good(
            CHECK,
            format!("`{now}`: the agent collects these files from the containers"),
        ),
        Ok(PatternOwner::Ours) => Finding::good(CHECK, "this agent's"),
        Ok(PatternOwner::OtherInstallation) => Finding::problem(
            CHECK,
            format!("another installation of cdh captures the cores: {now}"),
            "pass the `--state` and `--libexec` of that installation to see it, or install this one with `cdh agent install`",
        ),
        Ok(PatternOwner::Foreign) => Finding::problem(
            CHECK,
            format!("cdh does not get the cores; core_pattern is `{now}`"),
            "run `cdh agent install`, or `cdh agent run --manage-node`",
        ),
        Err(error) => Finding::problem(CHECK, explain(&error), "mount /proc"),
    }
}

pub(crate) fn userfaultfd(root: &Path) -> Finding {
    const CHECK: &str = "userfaultfd";
    let has = root.join("proc/sys/vm/unprivileged_userfaultfd").exists()
        || root.join("dev/userfaultfd").exists();
    match has {
        true => Finding::good(
            CHECK,
            "available: a SIGKILL during a dump does not truncate the core",
        ),
        false => Finding::warning(
            CHECK,
            "not available in this kernel: a SIGKILL during a dump truncates the core",
            "use a kernel with CONFIG_USERFAULTFD, or raise terminationGracePeriodSeconds of the pods",
        ),
    }
}

pub(crate) fn yama(root: &Path) -> Finding {
    const CHECK: &str = "ptrace";
    let scope =
        fs::read_to_string(root.join("proc/sys/kernel/yama/ptrace_scope")).unwrap_or_default();
    match scope.trim() {
        "3" => Finding::warning(
            CHECK,
            "kernel.yama.ptrace_scope is 3: memory cannot be read directly, cores are read from the pipe only",
            "set kernel.yama.ptrace_scope to 2 or less and reboot",
        ),
        _ => Finding::good(CHECK, "memory can be read directly"),
    }
}

pub(crate) fn limits(paths: &AgentPaths) -> Vec<Finding> {
    let Ok(settings) = NodeSettings::read(&paths.settings) else {
        return Vec::new();
    };
    let pipes = match settings.core_pipe_limit {
        _ if paths.collects_files => Finding::good("core_pipe_limit", "not used: cores are files"),
        0 => Finding::warning(
            "core_pipe_limit",
            "0: the kernel does not wait for handlers, so what /proc says may be lost",
            "run `cdh agent install`, which sets `--core-pipe-limit` 1024",
        ),
        few if few < FEW_PIPES => Finding::warning(
            "core_pipe_limit",
            format!("{few}: cores of more crashes at once are lost"),
            "run `cdh agent install`, which sets `--core-pipe-limit` 1024",
        ),
        many => Finding::good("core_pipe_limit", many.to_string()),
    };
    let suid = match settings.suid_dumpable {
        0 => Finding::warning(
            "suid_dumpable",
            "0: setuid programs leave no cores",
            "run `cdh agent install --suid-dumpable 2`",
        ),
        1 => Finding::warning(
            "suid_dumpable",
            "1: users can read the memory of setuid programs in their cores",
            "run `cdh agent install --suid-dumpable 2`",
        ),
        _ => Finding::good(
            "suid_dumpable",
            "2: cores of setuid programs are readable by root only",
        ),
    };
    vec![pipes, suid]
}

pub(crate) fn cgroup(paths: &AgentPaths, in_pod: bool) -> Vec<Finding> {
    const CHECK: &str = "cgroup of the handlers";
    let (handler, _) = HandlerSettings::read(&paths.handler_settings());
    let Some(cgroup) = handler.limits.cgroup else {
        return Vec::new();
    };
    vec![match of_handlers(&cgroup) {
        Ok(directory) => Finding::good(CHECK, directory.display().to_string()),
        // A container has its own view of the cgroups.
        Err(_) if in_pod => Finding::unknown(
            CHECK,
            format!("`{cgroup}` is not visible in this container"),
            "run `cdh agent doctor` on the node, or look for \"not in the cgroup\" in a dump's handler.log",
        ),
        Err(why) => Finding::warning(
            CHECK,
            format!("handlers are not bounded by `{cgroup}`: {why}"),
            "create it before the agent starts, for example with a systemd slice unit, or remove `limits.cgroup` from the configuration",
        ),
    }]
}

pub(crate) fn selinux(paths: &AgentPaths, root: &Path) -> Vec<Finding> {
    const CHECK: &str = "SELinux";
    let enforce = fs::read_to_string(root.join("sys/fs/selinux/enforce")).unwrap_or_default();
    if enforce.trim() != "1" {
        return vec![Finding::good(CHECK, "not enforcing")];
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
            format!("it denied the handler an access: {line}"),
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
                "enforcing, and the handler is labelled {}: the kernel may not be allowed to start it",
                label.trim_end_matches("\\0")
            );
            vec![Finding::warning(CHECK, what, way)]
        }
        _ => vec![Finding::good(
            CHECK,
            "enforcing; the audit log holds no denial of the handler",
        )],
    }
}

/// The last line of the audit log about a denial for the handler.
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

pub(crate) fn boot(paths: &AgentPaths, root: &Path) -> Vec<Finding> {
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
            let way = format!("mask the file with `ln -s /dev/null /etc/sysctl.d/{name}`, or start `cdh agent run --manage-node` after systemd-sysctl");
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

pub(crate) fn others(root: &Path) -> Vec<Finding> {
    let others = other_handlers(root).into_iter();
    others
        .map(|other| match other.sets_pattern {
            true => Finding::warning(
                "other handlers",
                format!(
                    "{} is installed and sets core_pattern when it starts",
                    other.name
                ),
                format!("stop it: `{}`", other.stop),
            ),
            false => Finding::good(
                "other handlers",
                format!(
                    "{} is installed and gets no cores while cdh does (`--chain` passes them on)",
                    other.name
                ),
            ),
        })
        .collect()
}

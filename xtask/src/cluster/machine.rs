//! What a node's programs change on this machine, and how it becomes what it was: addresses, the bridge, kernel
//! settings that a kubelet and the bridge plugin set, mounts, containers, log directories.
//!
//! The state before is in a file, so that a run that was killed is cleaned up by the next one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Of the API server, as pods know it: the first address of the services.
pub(super) const API_ADDRESS: &str = "10.96.0.1";
/// Of the S3 server.
pub(super) const STORE_ADDRESS: &str = "10.96.0.2";
/// Of the node; from the addresses that documents use (RFC 5737).
pub(super) const NODE_ADDRESS: &str = "192.0.2.2";
/// Of the bridge: of the node, as pods know it.
pub(super) const BRIDGE_ADDRESS: &str = "10.244.7.1";
pub(super) const BRIDGE: &str = "cdhk8s0";
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Where the agent keeps its things on the node: the chart's default.
pub(super) const NODE_STATE: &str = "/var/lib/cdh";
/// Where what this machine has there is meanwhile.
const NODE_STATE_ASIDE: &str = "/var/lib/cdh.before-test-cluster";

const SETTINGS: [&str; 7] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/ipv4/ip_forward",
];
/// Directories that a kubelet and CNI plugins make, wherever their own are.
const DIRECTORIES: [&str; 5] = [
    "/var/log/pods",
    "/var/log/containers",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/run/netns",
];
const RECORD: &str = "machine.json";

/// Records the state of the machine, after what an earlier run left was removed.
pub(super) fn prepare(directory: &Path) -> Result<()> {
    clean_up(directory)?;
    ensure!(
        !Path::new(CONTAINERD_SOCKET).exists(),
        "a container runtime uses {CONTAINERD_SOCKET}"
    );
    ensure!(
        !Path::new(NODE_STATE).join("backup.json").exists(),
        "cdh is installed on this machine"
    );
    // A store of this machine, or what other tests left.
    if Path::new(NODE_STATE).exists() {
        fs::rename(NODE_STATE, NODE_STATE_ASIDE)?;
    }
    let settings: BTreeMap<&str, String> = SETTINGS
        .iter()
        .filter_map(|name| Some((*name, fs::read_to_string(setting(name)).ok()?)))
        .collect();
    let directories: BTreeMap<&str, Vec<PathBuf>> = DIRECTORIES
        .iter()
        .filter(|path| Path::new(path).exists())
        .map(|path| (*path, entries(Path::new(path))))
        .collect();
    let record = json!({"settings": settings, "directories": directories});
    fs::write(directory.join(RECORD), record.to_string())?;
    make_cgroups()?;
    // A shim that comes first makes it with another mode, and only root with all capabilities gets to the socket.
    let runtime = Path::new(CONTAINERD_SOCKET)
        .parent()
        .unwrap_or(Path::new("/run"));
    fs::create_dir_all(runtime)?;
    fs::set_permissions(runtime, fs::Permissions::from_mode(0o711))?;
    for address in [API_ADDRESS, STORE_ADDRESS, NODE_ADDRESS] {
        ip(&["addr", "add", &format!("{address}/32"), "dev", "lo"])
            .with_context(|| format!("cannot add the address {address}"))?;
    }
    Ok(())
}

/// Puts the machine back into the state of the record, if there is one. The servers have ended.
pub(super) fn clean_up(directory: &Path) -> Result<()> {
    let Ok(record) = fs::read(directory.join(RECORD)) else {
        return Ok(());
    };
    let record: Value = serde_json::from_slice(&record)?;
    // The processes of containers go with their namespaces; a shim would start nothing anew.
    for _ in 0..50 {
        let left = processes_of_containers();
        if left.is_empty() {
            break;
        }
        let mut kill = Command::new("kill");
        kill.arg("-9").args(left.iter().map(ToString::to_string));
        let _ = kill.stderr(Stdio::null()).status();
        std::thread::sleep(Duration::from_millis(100));
    }
    let canonical = directory.canonicalize()?;
    unmount(&format!("{}/", canonical.display()));
    for name in DIRECTORIES {
        let before: Vec<PathBuf> =
            serde_json::from_value(record["directories"][name].clone()).unwrap_or_default();
        for path in entries(Path::new(name)) {
            if !before.contains(&path) {
                unmount(&path.display().to_string());
                remove(&path);
            }
        }
        if record["directories"][name].is_null() {
            unmount(&format!("{name}/"));
            remove(Path::new(name));
        }
    }
    unmount("/run/containerd/");
    remove(Path::new(CONTAINERD_SOCKET));
    remove(Path::new(&format!("{CONTAINERD_SOCKET}.ttrpc")));
    let _ = ip(&["link", "del", BRIDGE]);
    for address in [API_ADDRESS, STORE_ADDRESS, NODE_ADDRESS] {
        let _ = ip(&["addr", "del", &format!("{address}/32"), "dev", "lo"]);
    }
    for (name, value) in record["settings"].as_object().into_iter().flatten() {
        let _ = fs::write(setting(name), value.as_str().unwrap_or_default());
    }
    remove_cgroups();
    remove(Path::new(NODE_STATE));
    if Path::new(NODE_STATE_ASIDE).exists() {
        fs::rename(NODE_STATE_ASIDE, NODE_STATE)?;
    }
    fs::remove_file(directory.join(RECORD))?;
    Ok(())
}

fn setting(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn remove(path: &Path) {
    let _ = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(words).output();
    let output = output.context("cannot run ip")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() || errors.contains("File exists"),
        "ip {}: {}",
        words.join(" "),
        errors.trim()
    );
    Ok(())
}

/// Unmounts everything whose path begins so, the innermost first.
fn unmount(prefix: &str) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut paths: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| path.starts_with(prefix))
        .collect();
    paths.sort_unstable();
    for path in paths.iter().rev() {
        let _ = Command::new("umount")
            .args(["-l", path])
            .stderr(Stdio::null())
            .status();
    }
}

/// Shims of our runtime and everything below them.
fn processes_of_containers() -> Vec<u32> {
    let mut parents = BTreeMap::new();
    let mut found = Vec::new();
    for process in processes() {
        let is_shim = executable(process).contains("containerd-shim")
            && command_line(process)
                .iter()
                .any(|word| word == CONTAINERD_SOCKET);
        if is_shim {
            found.push(process);
        }
        if let Some(parent) = parent(process) {
            parents.insert(process, parent);
        }
    }
    let mut known = 0;
    while known < found.len() {
        let parent = found[known];
        known += 1;
        let children = parents.iter().filter(|(_, of)| **of == parent);
        let children: Vec<u32> = children.map(|(child, _)| *child).collect();
        found.extend(children);
    }
    found
}

fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    // One that has ended and was not waited for cannot be killed.
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.next()?.parse().ok(),
    }
}

/// All processes of this machine.
pub(super) fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Path of a process's program, as the process sees it. Unlike its command line it can be read while the process
/// holds up readers of its memory, as those of other tests do.
pub(super) fn executable(process: u32) -> String {
    let path = fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
    path.to_string_lossy().into_owned()
}

/// The words of a process's command line.
pub(super) fn command_line(process: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let words = bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// All files below a directory.
pub(super) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() && !path.is_symlink() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found
}

/// The pods' cgroup in each hierarchy. Tests make and remove `kubepods` at the top by hand, and a kubelet ends each
/// pod whose cgroup it misses.
pub(super) const CGROUP: &str = "cdh-cluster";

fn cgroups() -> Vec<PathBuf> {
    let mut hierarchies = entries(Path::new("/sys/fs/cgroup"));
    hierarchies.retain(|path| path.join("cgroup.procs").is_file());
    hierarchies.iter().map(|path| path.join(CGROUP)).collect()
}

fn make_cgroups() -> Result<()> {
    for group in cgroups() {
        fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
        // A process cannot enter a cpuset that is empty.
        for name in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(group.with_file_name(name)) {
                fs::write(group.join(name), all)?;
            }
        }
    }
    Ok(())
}

fn remove_cgroups() {
    for group in cgroups().iter().filter(|path| path.is_dir()) {
        let _ = Command::new("find")
            .arg(group)
            .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"])
            .stderr(Stdio::null())
            .status();
    }
}

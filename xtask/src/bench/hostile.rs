//! A hostile user beside a victim on one node: uid 65534 crashes in every way that an unprivileged
//! process has, and uid 1000 crashes once a second. The table shows what the victim lost.
//!
//! The limits are set so that the victim's crashes are exactly its budget; the attacker's are many times
//! that. The spool's quota is smaller than what the attacker writes. Where the kernel offers the attacker no
//! FUSE, the table says so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cdh_testkit::Program;
use serde_json::{Value, json};

use super::daemon::Daemon;
use super::node::{Node, Way};
use crate::build;

const ATTACKER: u32 = 65534;
const VICTIM: u32 = 1000;
/// A pod that the attacker pretends to be.
const POD: &str = "6a9b4a0c-8f1d-4f58-9a3b-2f64ab1d7c10";
/// Mebibytes of the spool's quota for each minute, and to begin with: a victim's dumps of a minute take about
/// 30, the attacker's budget about 400.
const QUOTA: u64 = 64;
/// KiB that one handler may use; the agent's own tests hold it to the same.
const HANDLER_LIMIT: u64 = 32 << 10;
/// KiB that the agent may use: the chart's limit is four times that.
const AGENT_LIMIT: u64 = 128 << 10;
/// How long a process of ours may be in state D.
const ASLEEP: Duration = Duration::from_secs(1);

/// Bytes of a module that is a hole.
const SPARSE: u64 = 3 << 30;
/// Crashes as process 100 of its own pid namespace, is killed while it is dumped, and gives the number to a
/// process of the victim's program. `ns_last_pid` says which number is next. Outside of such a namespace the
/// kernel allows this to root only.
const REUSE: &str = r#"for delay in 0.001 0.003 0.01 0.03; do
    echo 99 > /proc/sys/kernel/ns_last_pid || exit 77
    "$1" heap 8 & crashing=$!
    sleep $delay
    kill -9 $crashing
    wait $crashing
    echo 99 > /proc/sys/kernel/ns_last_pid
    "$2" heap 1 wait < /dev/zero & impostor=$!
    sleep 0.05
    kill -9 $impostor
done"#;

/// One way to crash.
struct Attack {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    /// A cgroup of the attacker's to crash in.
    cgroup: Option<PathBuf>,
    count: AtomicUsize,
}

/// What was seen of our processes.
#[derive(Default)]
struct Seen {
    handler: u64,
    agent: u64,
    asleep: Duration,
    /// While the attacker interfered with the memory that is read.
    asleep_meanwhile: Duration,
}

pub(super) fn run(way: Way, minutes: u64) -> Result<()> {
    let node = Node::start(way)?;
    let root = node.bench.path("");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711))?;
    let state = node.bench.path("out");
    let seconds = minutes * 60;
    let budget = seconds + 60;
    let quota = QUOTA * (minutes + 1);
    node.set(&json!({ "state": state, "limits": {
        "spool_quota": format!("{quota}M"),
        "rate": {
            "window": format!("{}s", seconds * 2),
            "fingerprint_full": budget, "fingerprint_dumps": budget,
            "workload_full": budget, "workload_dumps": budget,
        },
    } }))?;
    let daemon = Daemon::start(&node.bench, &daemon_program()?, &state, "off")?;
    let cgroup = forged_cgroup();
    let attacks = attacks(&root, cgroup.as_deref())?;
    let victim = root.join("victim");
    fs::copy(root.join("crash"), &victim)?;
    let stop = AtomicBool::new(false);
    let interferes = AtomicBool::new(false);
    let (mut crashed, mut slowest) = (0_u64, Duration::ZERO);
    let seen = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&root, daemon.id(), &stop, &interferes));
        for attack in &attacks {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let ended = attack.crash(&root);
                    attack
                        .count
                        .fetch_add(usize::from(ended), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        let fuse = scope.spawn(|| fuse(&root, &stop, &interferes));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(seconds) {
            let crash = Instant::now();
            let words = [victim.display().to_string(), "heap".into(), "1".into()];
            if as_user(VICTIM, &words).current_dir(&root).status().is_ok() {
                crashed += 1;
            }
            slowest = slowest.max(crash.elapsed());
            std::thread::sleep(Duration::from_secs(1).saturating_sub(crash.elapsed()));
        }
        stop.store(true, Ordering::Relaxed);
        let fuse = fuse.join().unwrap_or_default();
        (watching.join().unwrap_or_default(), fuse)
    });
    let (seen, fuse) = seen;
    wait_for_handlers(&state);
    daemon.stop()?;
    let found = Found::read(&state.join("spool"), &victim)?;
    Daemon::sweep(&node.bench, &state)?;
    let (modules, largest) = modules(&node.bench.path("store"));
    println!("{minutes} min, {way:?}, quota {quota} MiB, {budget} dumps for each user");
    for attack in &attacks {
        let count = attack.count.load(Ordering::Relaxed);
        println!("  {:<34} {count:>8} crashes", attack.name);
    }
    println!("  {:<34} {fuse}", "FUSE page without an answer");
    for (owner, [dumps, cores, kib]) in &found.owners {
        let mib = kib / 1024;
        println!("  spool of {owner:<25} {dumps:>8} dumps, {cores} with a core, {mib} MiB");
    }
    for why in &found.incomplete {
        println!("  victim's dump without a complete core: {why}");
    }
    let rows: [(&str, String, bool); 9] = [
        (
            "victim: complete dumps of crashes",
            format!("{} of {crashed}", found.complete),
            found.complete == crashed,
        ),
        (
            "victim: slowest crash",
            format!("{:.1} s", slowest.as_secs_f64()),
            true,
        ),
        (
            "attacker: dumps in the spool",
            format!(
                "{}, {} of them without a core",
                found.attackers, found.reduced
            ),
            true,
        ),
        (
            "attacker under the victim's name",
            found.mistaken.to_string(),
            found.mistaken == 0,
        ),
        (
            "modules in the store, the largest",
            format!("{modules}, {} KiB", largest >> 10),
            modules > 0 && largest < SPARSE,
        ),
        (
            "handler: peak memory",
            format!("{} KiB", seen.handler),
            seen.handler <= HANDLER_LIMIT,
        ),
        (
            "agent: peak memory",
            format!("{} KiB", seen.agent),
            seen.agent <= AGENT_LIMIT,
        ),
        (
            "ours: longest time in state D",
            format!("{:.1} s", seen.asleep.as_secs_f64()),
            seen.asleep <= ASLEEP,
        ),
        (
            "  while the attacker locks the memory",
            format!("{:.1} s", seen.asleep_meanwhile.as_secs_f64()),
            true,
        ),
    ];
    for (what, value, is_good) in &rows {
        let verdict = if *is_good { "" } else { "   <- FAILED" };
        println!("{what:<36} {value}{verdict}");
    }
    if let Some(cgroup) = cgroup {
        remove_cgroup(&cgroup);
    }
    ensure!(
        rows.iter().all(|row| row.2),
        "the victim, or the node, was harmed"
    );
    Ok(())
}

impl Attack {
    /// Whether it crashed.
    fn crash(&self, root: &Path) -> bool {
        let mut words = vec![self.program.display().to_string()];
        words.extend(self.arguments.iter().cloned());
        let mut command = as_user(ATTACKER, &words);
        if let Some(cgroup) = &self.cgroup {
            // Its own shell enters its own cgroup: the parent's `cgroup.procs` is its own too.
            let script = r#"echo $$ > "$1/cgroup.procs"; shift; exec "$@""#;
            let place = cgroup.display().to_string();
            let mut all = vec!["sh", "-c", script, "sh", &place]
                .into_iter()
                .map(String::from)
                .collect::<Vec<_>>();
            all.extend(setpriv(ATTACKER));
            all.extend(words);
            command = Command::new(&all[0]);
            command.args(&all[1..]);
        }
        let status = command
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok()
    }
}

fn attacks(root: &Path, cgroup: Option<&Path>) -> Result<Vec<Attack>> {
    let directory = root.join("attack");
    fs::create_dir(&directory)?;
    let copy = |name: OsString| -> Result<PathBuf> {
        let path = directory.join(name);
        fs::copy(root.join("crash"), &path)?;
        Ok(path)
    };
    let plain = copy("victim".into())?;
    let hostile = copy(OsString::from_vec(b"..\x1b[31m\n|$(id)%P".to_vec()))?;
    let huge: Vec<String> = (0..8)
        .flat_map(|_| ["name".to_owned(), "x".repeat(100_000)])
        .collect();
    let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
    // Its build-id is the victim's, and it takes 3 GiB of an upload that does not look at its blocks.
    let sparse = copy("sparse".into())?;
    let file = fs::File::options().write(true).open(&sparse)?;
    file.set_len(SPARSE)?;
    let impostor = root.join("victim").display().to_string();
    let attack = |name, program: &Path, arguments| Attack {
        name,
        program: program.to_owned(),
        arguments,
        cgroup: None,
        count: AtomicUsize::new(0),
    };
    let mut attacks = vec![
        attack(
            "the victim's program, one fingerprint",
            &plain,
            words("heap 1"),
        ),
        attack("large memory without pattern", &plain, words("random 24")),
        attack("hostile file name", &hostile, words("heap 1")),
        attack(
            "arguments of 800 KB",
            &plain,
            [words("heap 1"), huge].concat(),
        ),
        attack("threads", &plain, words("threads 64")),
        attack("sparse module of 3 GiB", &sparse, words("heap 1")),
        attack(
            "pid given to another program",
            Path::new("unshare"),
            [
                words("-Urpf --mount-proc sh -c"),
                vec![REUSE.to_owned(), "sh".to_owned()],
                vec![plain.display().to_string(), impostor],
            ]
            .concat(),
        ),
        attack(
            "in user namespaces",
            Path::new("unshare"),
            [
                words("-Ur"),
                vec![plain.display().to_string()],
                words("heap 1"),
            ]
            .concat(),
        ),
    ];
    if let Some(cgroup) = cgroup {
        attacks.push(Attack {
            cgroup: Some(cgroup.to_owned()),
            ..attack("cgroup of a forged pod", &plain, words("heap 1"))
        });
    }
    Ok(attacks)
}

fn setpriv(uid: u32) -> Vec<String> {
    let uid = uid.to_string();
    let words = [
        "setpriv",
        "--reuid",
        &uid,
        "--regid",
        &uid,
        "--clear-groups",
        "--",
    ];
    words.map(String::from).to_vec()
}

fn as_user(uid: u32, words: &[String]) -> Command {
    let all = [&setpriv(uid), words].concat();
    let mut command = Command::new(&all[0]);
    command
        .args(&all[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The `cdh` that `CDH_BENCH_CDH` names, or one that is built now.
fn daemon_program() -> Result<PathBuf> {
    std::env::var_os("CDH_BENCH_CDH").map_or_else(build::cdh, |given| Ok(given.into()))
}

/// `pod<UID>/<container>` below a directory that belongs to the attacker, as systemd delegates one.
fn forged_cgroup() -> Option<PathBuf> {
    let places = [
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/pids",
        "/sys/fs/cgroup",
    ];
    let place = places
        .iter()
        .find(|place| Path::new(place).join("cgroup.procs").exists())?;
    let own = Path::new(place).join(format!("cdh-hostile-{}", std::process::id()));
    let container = own.join(format!("kubepods/pod{POD}/{}", "0f1e2d3c".repeat(8)));
    fs::create_dir_all(&container).ok()?;
    for directory in container
        .ancestors()
        .take_while(|path| path.starts_with(&own))
    {
        chown(directory, Some(ATTACKER), Some(ATTACKER)).ok()?;
        chown(
            directory.join("cgroup.procs"),
            Some(ATTACKER),
            Some(ATTACKER),
        )
        .ok()?;
    }
    Some(container)
}

fn remove_cgroup(container: &Path) {
    for directory in container.ancestors().take(4) {
        for _ in 0..100 {
            if fs::remove_dir(directory).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What [`Program::Fuse`] can be; with the last two, another process of the attacker holds or changes the
/// memory while the handler reads it.
const FUSE_KINDS: [&str; 6] = ["low", "high", "head", "library", "lock", "race"];
/// Servers that are silent at once; the handlers have fewer slots.
const FUSE_SERVERS: usize = 5;
/// How long a silent server remains.
const FUSE_PATIENCE: Duration = Duration::from_secs(6);

/// Crashes with pages of a file whose server is silent, again and again. Returns how many, or why not.
/// `interferes` is set while another process of the attacker interferes.
fn fuse(root: &Path, stop: &AtomicBool, interferes: &AtomicBool) -> String {
    let Ok(program) = Program::Fuse.build(root) else {
        return "not built".to_owned();
    };
    let device = root.join("fuse-device");
    let _ = Command::new("mknod")
        .args(["-m", "666"])
        .arg(&device)
        .args(["c", "10", "229"])
        .status();
    let mount = root.join("mnt");
    let _ = fs::create_dir(&mount);
    let (mut crashes, mut ended) = (0_usize, 0_usize);
    for kind in FUSE_KINDS.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if ["lock", "race"].contains(kind) {
            interferes.store(true, Ordering::Relaxed);
        }
        let mut servers = Vec::new();
        for _ in 0..FUSE_SERVERS {
            let mut server = Command::new(&program);
            server.args([&device, &mount]).args(["user", kind]);
            server.stdin(Stdio::piped()).stdout(Stdio::piped());
            let Ok(mut server) = server.stderr(Stdio::null()).spawn() else {
                break;
            };
            let mut line = String::new();
            if let Some(output) = server.stdout.take() {
                let _ = BufReader::new(output).read_line(&mut line);
            }
            match line.trim().strip_prefix("pid ") {
                Some(pid) => servers.push((server, pid.to_owned())),
                None if server.wait().is_ok_and(|status| status.code() == Some(77)) => {
                    return "not here".to_owned();
                }
                None => {}
            }
        }
        std::thread::sleep(FUSE_PATIENCE);
        for (mut server, pid) in servers {
            crashes += 1;
            // Its server does not reap it.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            ended += usize::from(stat.is_empty() || stat.contains(") Z "));
            drop(server.stdin.take());
            let _ = server.wait();
        }
        // The watch sees that none of them sleeps any more.
        std::thread::sleep(Duration::from_millis(500));
        interferes.store(false, Ordering::Relaxed);
    }
    let seconds = FUSE_PATIENCE.as_secs();
    format!("{crashes:>8} crashes, {ended} dumped within {seconds} s")
}

/// Looks at our processes until it is stopped.
fn watch(root: &Path, agent: u32, stop: &AtomicBool, interferes: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut asleep: BTreeMap<PathBuf, Instant> = BTreeMap::new();
    let handler = root.join("cdh-handler");
    while !stop.load(Ordering::Relaxed) {
        let mut now = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let process = entry.path();
            // Not `cmdline`: it waits for the lock of the memory that the attacker holds.
            let is_handler = fs::read_link(process.join("exe")).is_ok_and(|exe| exe == handler);
            let is_agent = entry.file_name().to_str() == Some(&agent.to_string());
            if !is_agent && !is_handler {
                continue;
            }
            let status = fs::read_to_string(process.join("status")).unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            let most = if is_agent {
                &mut seen.agent
            } else {
                &mut seen.handler
            };
            *most = (*most).max(peak.unwrap_or(0));
            let threads = fs::read_dir(process.join("task"))
                .into_iter()
                .flatten()
                .flatten();
            for thread in threads.map(|thread| thread.path()) {
                let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
                let state = stat
                    .rsplit(") ")
                    .next()
                    .and_then(|rest| rest.chars().next());
                if state == Some('D') {
                    now.push(thread);
                }
            }
        }
        asleep.retain(|thread, _| now.contains(thread));
        for thread in now {
            let since = asleep.entry(thread).or_insert_with(Instant::now);
            let most = match interferes.load(Ordering::Relaxed) {
                true => &mut seen.asleep_meanwhile,
                false => &mut seen.asleep,
            };
            *most = (*most).max(since.elapsed());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    seen
}

/// Files of modules in a store, and bytes of the largest.
fn modules(store: &Path) -> (usize, u64) {
    let files = fs::read_dir(store.join("modules"));
    let files = files.into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
    sizes.fold((0, 0), |(count, largest), size| {
        (count + 1, largest.max(size))
    })
}

/// Waits until no handler is at work.
fn wait_for_handlers(state: &Path) {
    let works = || {
        let entries = fs::read_dir(state.join("spool"))
            .into_iter()
            .flatten()
            .flatten();
        let mut names = entries.map(|entry| entry.file_name());
        names.any(|name| name.to_string_lossy().ends_with(".partial"))
    };
    let begun = Instant::now();
    while works() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What is in the spool at the end.
#[derive(Default)]
struct Found {
    complete: u64,
    attackers: u64,
    reduced: u64,
    mistaken: u64,
    /// Why the victim's dumps are not complete.
    incomplete: Vec<String>,
    /// Dumps, those with a core, and KiB, by the note of who is charged for them.
    owners: BTreeMap<String, [u64; 3]>,
}

impl Found {
    fn read(spool: &Path, victim: &Path) -> Result<Self> {
        let mut found = Self::default();
        for entry in fs::read_dir(spool).context("no spool")?.flatten() {
            let Ok(text) = fs::read(entry.path().join("manifest.json")) else {
                continue;
            };
            let manifest: Value = serde_json::from_slice(&text)?;
            found.charge(&entry.path(), !manifest["core"].is_null());
            let process = &manifest["process"];
            let is_complete = manifest["verdict"]["state"] == "complete";
            let uid = process["uid"].as_u64();
            let is_named_victim = process["exe"].as_str() == victim.to_str()
                || manifest["workload"]["pod_uid"] == POD
                || manifest["workload"]["kind"] == "pod";
            if uid == Some(VICTIM.into()) {
                found.complete += u64::from(is_complete);
                if !is_complete {
                    found.incomplete.push(manifest["verdict"].to_string());
                }
            } else {
                found.attackers += 1;
                found.reduced += u64::from(!is_complete);
                found.mistaken += u64::from(is_named_victim);
            }
        }
        Ok(found)
    }

    fn charge(&mut self, entry: &Path, has_core: bool) {
        let (mut owner, mut blocks) = (String::new(), 0);
        for file in fs::read_dir(entry).into_iter().flatten().flatten() {
            blocks += file.metadata().map_or(0, |metadata| metadata.blocks());
            let name = file.file_name().to_string_lossy().into_owned();
            if name.starts_with(".share-") || name.starts_with(".setuid-") {
                owner = name[1..].to_owned();
            }
        }
        let [dumps, cores, kib] = self.owners.entry(owner).or_default();
        *dumps += 1;
        *cores += u64::from(has_core);
        *kib += blocks / 2;
    }
}

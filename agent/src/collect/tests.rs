use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::inotify;

use super::*;
use crate::owner::MadeBy;
use crate::paths::SettingsFiles;

/// A node with one container, and a script that acts as the handler and stores its input.
struct Node {
    place: tempfile::TempDir,
    dump: DumpId,
}

impl Node {
    fn new() -> Self {
        let node = Self {
            place: tempfile::tempdir().unwrap(),
            dump: DumpId::random(),
        };
        for directory in ["proc/1", "root/cores", "state", "spool"] {
            fs::create_dir_all(node.path(directory)).unwrap();
        }
        fs::write(node.path("core_pattern"), "/cores/core.%e.%p\n").unwrap();
        fs::write(node.path("proc/1/cgroup"), "0::/\n").unwrap();
        fs::write(node.path("proc/1/status"), "CoreDumping:\t0\n").unwrap();
        fs::write(
            node.path("proc/1/mountinfo"),
            "5 1 0:50 / / rw - ext4 x rw\n",
        )
        .unwrap();
        symlink(node.path("root"), node.path("proc/1/root")).unwrap();
        // Saves its arguments and its input, and creates the entry.
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" > {0}/arguments\ncat > {0}/input\nmkdir -p {0}/spool/{1}\nprintf %s {0}/spool/{1}\n",
            node.place.path().display(),
            node.dump,
        );
        fs::write(node.path("handler"), script).unwrap();
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(node.path("handler"), executable).unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn collector(&self) -> Collector {
        let paths = AgentPaths {
            state: self.path("state"),
            spool: self.path("spool"),
            settings: SettingsFiles::in_directory(self.place.path()),
            ..AgentPaths::below(self.place.path())
        };
        Collector::new(CollectOptions {
            paths,
            proc: self.path("proc"),
            handler: vec![self.path("handler").into()],
            settings: self.path("handler.json"),
        })
        .unwrap()
    }

    /// A core of `size` bytes whose headers promise 4096.
    fn write_core(&self, name: &str, size: u64) {
        self.write_core_in("root/cores", name, size);
    }

    fn write_core_in(&self, directory: &str, name: &str, size: u64) {
        let mut bytes = vec![0_u8; 120];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16..20].copy_from_slice(&[4, 0, 62, 0]); // ET_CORE, EM_X86_64
        bytes[32] = 64; // e_phoff
        bytes[52..58].copy_from_slice(&[64, 0, 56, 0, 1, 0]); // e_ehsize, e_phentsize, e_phnum
        bytes[64] = 1; // PT_LOAD
        bytes[72] = 120; // p_offset
        bytes[96..104].copy_from_slice(&(4096_u64 - 120).to_le_bytes()); // p_filesz
        bytes[104..112].copy_from_slice(&(4096_u64 - 120).to_le_bytes()); // p_memsz
        let path = self.path(directory).join(name);
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(size).unwrap();
    }

    /// The handler of the node: a shell script with these lines.
    fn script(&self, lines: &str) {
        fs::write(self.path("handler"), format!("#!/bin/sh\n{lines}\n")).unwrap();
    }

    /// Acts as the shipper: uploads the dump with its complete core.
    fn upload(&self) {
        self.lose();
        let receipts = self.path("state/uploads/collected");
        fs::write(receipts.join(self.dump.to_string()), "").unwrap();
    }

    /// The entry leaves the spool otherwise.
    fn lose(&self) {
        fs::remove_dir(self.path("spool").join(self.dump.to_string())).unwrap();
    }

    /// Creates the process of a container whose root is the directory of this name.
    fn container(&self, pid: u32, pod: char, container: char, root: &str) {
        let process = self.path(&format!("proc/{pid}"));
        fs::create_dir_all(&process).unwrap();
        fs::create_dir_all(self.path(root).join("cores")).unwrap();
        let pod = format!("{0}{0}345678-1234-1234-1234-123456789abc", pod);
        let id = container.to_string().repeat(64);
        let cgroup = format!("0::/kubepods/burstable/pod{pod}/{id}\n");
        fs::write(process.join("cgroup"), cgroup).unwrap();
        fs::copy(self.path("proc/1/mountinfo"), process.join("mountinfo")).unwrap();
        symlink(self.path(root), process.join("root")).unwrap();
    }

    /// Passes until something happened.
    fn next(&self, collector: &mut Collector) -> CollectEvent {
        let begun = Instant::now();
        loop {
            let mut events = Vec::new();
            collector.pass(&mut |event| events.push(event.clone()));
            if let Some(event) = events.into_iter().next() {
                return event;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{collector:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs enough passes to collect any file that may be collected.
    fn rest(&self, collector: &mut Collector) {
        for _ in 0..20 {
            collector.pass(&mut |event| panic!("{event:?}"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Identifies the processes of containers, whose cgroups this system does not have.
fn find(collector: &mut Collector) {
    let found = collector.directories.scan_with(&|_, _| MadeBy::Root);
    found.unwrap();
}

fn running(collector: &Collector) -> usize {
    let states = collector.files.values();
    states
        .filter(|state| matches!(state, FileState::Running { .. }))
        .count()
}

/// The opened files of a directory.
struct Watch {
    inotify: std::os::fd::OwnedFd,
}

impl Watch {
    fn new(directory: &Path) -> Self {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let inotify = inotify::init(flags).unwrap();
        inotify::add_watch(&inotify, directory, inotify::WatchFlags::OPEN).unwrap();
        Self { inotify }
    }

    /// Names that were opened since the last call, without the directory itself.
    fn opened(&self) -> Vec<String> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 65_536];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut names = Vec::new();
        while let Ok(event) = reader.next() {
            let name = event
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            names.extend(name);
        }
        names
    }
}

#[test]
fn collector_stores_a_complete_core_and_deletes_it_after_the_upload() {
    let node = Node::new();
    let mut collector = node.collector();
    node.write_core("core.my.api.7", 4096);
    let name = RawText::from("core.my.api.7");
    let collected = CollectEvent::Collected {
        name: name.clone(),
        container: None,
        dump: Some(node.dump),
    };
    assert_eq!(node.next(&mut collector), collected);
    let arguments = fs::read_to_string(node.path("arguments")).unwrap();
    let arguments: Vec<&str> = arguments.lines().collect();
    assert_eq!(arguments[0], "--collect");
    assert!(
        arguments.contains(&"0::/") && arguments.contains(&"p7"),
        "{arguments:?}"
    );
    assert!(
        arguments.contains(&"/cores/core.my.api.7 on the node"),
        "{arguments:?}"
    );
    assert_eq!(arguments.last(), Some(&"emy.api"));
    assert_eq!(fs::metadata(node.path("input")).unwrap().len(), 4096);
    let core = node.path("root/cores/core.my.api.7");
    node.rest(&mut collector);
    assert!(core.exists(), "its dump is not uploaded");
    node.upload();
    let deleted = CollectEvent::Deleted {
        name,
        dump: node.dump,
    };
    assert_eq!(node.next(&mut collector), deleted);
    assert!(!core.exists());
    let receipts = fs::read_dir(node.path("state/uploads/collected")).unwrap();
    assert_eq!(receipts.count(), 0);
}

#[test]
fn collector_keeps_a_core_whose_dump_left_the_spool_without_a_receipt() {
    let node = Node::new();
    let mut collector = node.collector();
    node.write_core("core.api.7", 4096);
    node.next(&mut collector);
    node.lose();
    let kept = CollectEvent::Kept {
        name: RawText::from("core.api.7"),
        dump: node.dump,
    };
    assert_eq!(node.next(&mut collector), kept);
    node.rest(&mut collector);
    assert!(node.path("root/cores/core.api.7").exists());
    // A restarted agent reports it once more, and does not store it again.
    fs::remove_file(node.path("arguments")).unwrap();
    let mut collector = node.collector();
    assert_eq!(node.next(&mut collector), kept);
    node.rest(&mut collector);
    assert!(!node.path("arguments").exists());
    // The next core of the same name is another file.
    node.write_core("core.api.7", 4096);
    let event = node.next(&mut collector);
    assert!(matches!(event, CollectEvent::Collected { .. }), "{event:?}");
}

#[test]
fn collector_learns_how_the_handler_of_a_deleted_file_ended() {
    let node = Node::new();
    let mut collector = node.collector();
    let wait = node.path("wait").display().to_string();
    let name = |index: u32| RawText::from(format!("core.api.{index}").as_bytes());
    for index in 1..=5 {
        node.script(&format!("while [ ! -e {wait} ]; do sleep 0.01; done"));
        let file = format!("core.api.{index}");
        node.write_core(&file, 4096);
        collector.pass(&mut |event| panic!("{event:?}"));
        assert_eq!(running(&collector), 1);
        fs::remove_file(node.path("root/cores").join(&file)).unwrap();
        node.rest(&mut collector);
        assert_eq!(running(&collector), 1);
        fs::write(&wait, "").unwrap();
        let collected = CollectEvent::Collected {
            name: name(index),
            container: None,
            dump: None,
        };
        assert_eq!(node.next(&mut collector), collected);
        fs::remove_file(&wait).unwrap();
        assert_eq!(running(&collector), 0);
    }
}

#[test]
fn collector_learns_how_a_handler_ended_whose_directory_is_gone() {
    let node = Node::new();
    let mut collector = node.collector();
    node.container(10, '1', 'a', "a");
    node.script("sleep 0.3");
    node.write_core_in("a/cores", "core.api.7", 4096);
    find(&mut collector);
    collector.pass(&mut |event| panic!("{event:?}"));
    assert_eq!(running(&collector), 1);
    collector.directories.known.clear();
    fs::remove_dir_all(node.path("proc/10")).unwrap();
    let collected = CollectEvent::Collected {
        name: RawText::from("core.api.7"),
        container: Some("a".repeat(64)),
        dump: None,
    };
    assert_eq!(node.next(&mut collector), collected);
    node.rest(&mut collector);
    assert!(collector.files.is_empty());
}

#[test]
fn collector_kills_a_handler_after_its_deadline_and_does_not_try_again() {
    let node = Node::new();
    let mut collector = node.collector();
    node.script("exec sleep 600");
    node.write_core("core.api.7", 4096);
    collector.pass(&mut |event| panic!("{event:?}"));
    fs::remove_file(node.path("root/cores/core.api.7")).unwrap();
    node.write_core("core.api.8", 4096);
    for state in collector.files.values_mut() {
        if let FileState::Running { handler, .. } = state {
            handler.ends_at = Instant::now();
        }
    }
    let late = |event: CollectEvent| match event {
        CollectEvent::Failed { name, why } => {
            assert!(why.contains("did not end within 2 hours"), "{why}");
            name.to_string()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(late(node.next(&mut collector)), "core.api.7");
    collector.pass(&mut |event| panic!("{event:?}"));
    assert_eq!(running(&collector), 1);
    for state in collector.files.values_mut() {
        if let FileState::Running { handler, .. } = state {
            handler.ends_at = Instant::now();
        }
    }
    assert_eq!(late(node.next(&mut collector)), "core.api.8");
    let states: Vec<&FileState> = collector.files.values().collect();
    assert!(
        matches!(states[..], [FileState::LeftAlone { retry_at: None, .. }]),
        "{states:?}"
    );
}

#[test]
fn collector_runs_one_handler_for_all_directories_of_a_pod() {
    let node = Node::new();
    let mut collector = node.collector();
    node.container(10, '1', 'a', "a");
    node.container(11, '1', 'b', "b");
    node.container(12, '2', 'c', "c");
    node.script("exec sleep 600");
    for directory in ["a", "b", "c"] {
        for index in 1..=3 {
            let name = format!("core.api.{index}");
            node.write_core_in(&format!("{directory}/cores"), &name, 4096);
        }
    }
    find(&mut collector);
    for _ in 0..5 {
        collector.pass(&mut |event| panic!("{event:?}"));
    }
    let mut accounts = Vec::new();
    for state in collector.files.values_mut() {
        match state {
            FileState::Running { handler, .. } => {
                accounts.push(handler.account.clone());
                handler.stop();
            }
            FileState::Growing { extent, .. } => {
                assert_eq!(*extent, None, "a file that waits for its owner was opened");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(accounts.len(), 2, "{accounts:?}");
    assert_ne!(accounts[0], accounts[1]);
}

#[test]
fn collector_reads_the_headers_of_a_file_once_and_of_few_files_at_once() {
    let node = Node::new();
    let mut collector = node.collector();
    for index in 0..40 {
        node.write_core(&format!("core.api.{index}"), 200);
    }
    let watch = Watch::new(&node.path("root/cores"));
    let mut opened = Vec::new();
    for _ in 0..5 {
        collector.pass(&mut |event| panic!("{event:?}"));
        opened.push(watch.opened().len());
    }
    assert_eq!(opened, [OPENED, OPENED, 40 - 2 * OPENED, 0, 0]);
}

#[test]
fn collector_finds_cores_among_many_other_names_and_reports_too_many() {
    let node = Node::new();
    let mut collector = node.collector();
    node.script("exit 0");
    let cores = node.path("root/cores");
    for index in 0..NAMES + 100 {
        fs::write(cores.join(format!("junk-{index}")), "").unwrap();
    }
    node.write_core("core.api.7", 4096);
    let event = node.next(&mut collector);
    assert!(matches!(event, CollectEvent::Collected { .. }), "{event:?}");
    for index in 0..NAMES {
        fs::hard_link(cores.join("junk-0"), cores.join(format!("core.x.{index}"))).unwrap();
    }
    let overfull = CollectEvent::Overfull {
        container: None,
        limit: NAMES,
    };
    assert_eq!(node.next(&mut collector), overfull);
    collector.pass(&mut |event| panic!("{event:?}"));
}

#[test]
fn collector_that_restarts_stores_no_core_twice() {
    let node = Node::new();
    node.write_core("core.api.7", 4096);
    node.next(&mut node.collector());
    fs::remove_file(node.path("arguments")).unwrap();
    let mut collector = node.collector();
    node.rest(&mut collector);
    assert!(!node.path("arguments").exists());
    node.upload();
    let event = node.next(&mut collector);
    assert!(matches!(event, CollectEvent::Deleted { .. }), "{event:?}");
}

#[test]
fn collector_waits_while_the_kernel_writes() {
    let node = Node::new();
    let mut collector = node.collector();
    fs::write(node.path("proc/1/status"), "CoreDumping:\t1\n").unwrap();
    node.write_core("core.api.7", 200);
    node.rest(&mut collector);
    let key = *collector.directories.known.keys().next().unwrap();
    let long_ago = Instant::now().checked_sub(SETTLED).unwrap();
    let turn = Turn::default();
    assert!(
        !collector.has_settled(key, long_ago, &turn),
        "a process is being dumped"
    );
    fs::write(node.path("proc/1/status"), "CoreDumping:\t0\n").unwrap();
    assert!(
        !collector.has_settled(key, long_ago, &turn),
        "the processes are asked once in a pass"
    );
    assert!(collector.has_settled(key, long_ago, &Turn::default()));
    node.write_core("core.api.7", 4096);
    let event = node.next(&mut collector);
    assert!(matches!(event, CollectEvent::Collected { .. }), "{event:?}");
}

#[test]
fn collector_leaves_alone_what_the_kernel_did_not_write() {
    let node = Node::new();
    let cores = node.path("root/cores");
    fs::write(node.path("secret"), "a secret").unwrap();
    symlink(node.path("secret"), cores.join("core.link.1")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        cores.join("core.fifo.2"),
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(cores.join("core.socket.6")).unwrap();
    // Only root can create one, and its file system may not allow opening it.
    let null = rustix::fs::makedev(1, 3);
    let device = rustix::fs::FileType::CharacterDevice;
    let mode = Mode::from_raw_mode(0o600);
    let _ = rustix::fs::mknodat(
        rustix::fs::CWD,
        cores.join("core.null.8"),
        device,
        mode,
        null,
    );
    fs::create_dir(cores.join("core.directory.3")).unwrap();
    node.write_core("core.twice.4", 4096);
    fs::hard_link(cores.join("core.twice.4"), cores.join("other")).unwrap();
    fs::write(
        cores.join("core.text.5"),
        "no core at all, but a text that is longer than a header of an ELF file",
    )
    .unwrap();
    node.write_core("core.name", 4096);
    let mut collector = node.collector();
    let watch = Watch::new(&cores);
    node.rest(&mut collector);
    assert!(!node.path("arguments").exists());
    assert_eq!(watch.opened(), ["core.text.5"], "opening has effects");
}

#[test]
fn collector_deletes_no_other_file_of_the_same_name() {
    let node = Node::new();
    let mut collector = node.collector();
    node.write_core("core.api.7", 4096);
    node.next(&mut collector);
    let core = node.path("root/cores/core.api.7");
    fs::remove_file(&core).unwrap();
    fs::write(
        &core,
        "another file that has the name of the core, and nothing else of it, not even the size",
    )
    .unwrap();
    node.upload();
    node.rest(&mut collector);
    assert!(core.exists());
}

#[test]
fn collector_refuses_a_pattern_that_is_no_absolute_path() {
    let node = Node::new();
    fs::write(node.path("core_pattern"), "core\n").unwrap();
    let paths = AgentPaths {
        settings: SettingsFiles::in_directory(node.place.path()),
        ..AgentPaths::below(node.place.path())
    };
    let error = file_pattern(&paths).unwrap_err();
    assert!(
        error.to_string().contains("core_pattern is `core`"),
        "{error}"
    );
}

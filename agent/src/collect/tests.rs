use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::paths::SettingsFiles;

/// A node with one container and no handler but a script that pretends to store what it is given.
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
        // Keeps its arguments and its input, and makes the entry.
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
        let mut bytes = vec![0_u8; 120];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16..20].copy_from_slice(&[4, 0, 62, 0]); // ET_CORE, EM_X86_64
        bytes[32] = 64; // e_phoff
        bytes[52..58].copy_from_slice(&[64, 0, 56, 0, 1, 0]); // e_ehsize, e_phentsize, e_phnum
        bytes[64] = 1; // PT_LOAD
        bytes[72] = 120; // p_offset
        bytes[96..104].copy_from_slice(&(4096_u64 - 120).to_le_bytes()); // p_filesz
        bytes[104..112].copy_from_slice(&(4096_u64 - 120).to_le_bytes()); // p_memsz
        let path = self.path("root/cores").join(name);
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(size).unwrap();
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

    /// Passes often enough that a file that may be collected would be.
    fn rest(&self, collector: &mut Collector) {
        for _ in 0..20 {
            collector.pass(&mut |event| panic!("{event:?}"));
            std::thread::sleep(Duration::from_millis(5));
        }
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
    fs::remove_dir(node.path("spool").join(node.dump.to_string())).unwrap();
    let deleted = CollectEvent::Deleted {
        name,
        dump: node.dump,
    };
    assert_eq!(node.next(&mut collector), deleted);
    assert!(!core.exists());
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
    fs::remove_dir(node.path("spool").join(node.dump.to_string())).unwrap();
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
    assert!(
        !collector.has_settled(key, long_ago),
        "a process is being dumped"
    );
    fs::write(node.path("proc/1/status"), "CoreDumping:\t0\n").unwrap();
    assert!(collector.has_settled(key, long_ago));
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
    node.rest(&mut collector);
    assert!(!node.path("arguments").exists());
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
    fs::remove_dir(node.path("spool").join(node.dump.to_string())).unwrap();
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

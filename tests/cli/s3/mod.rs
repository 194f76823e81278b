//! The commands on a store in a bucket: a real S3 server, and what lies between it and a workstation.

mod browsing;
mod failures;
mod fetching;
mod shipping;

use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cdh_bundle::{
    CoreEncoding, CoreRecord, Digests, DumpId, EntryDir, EntryKind, Manifest, SEEKABLE_FRAME,
    SeekableWriter,
};
use cdh_testkit::{ADMIN, Deed, HttpProxy, READER, S3Keys, S3Server, or_skip};

use super::*;

pub(super) fn server() -> Option<&'static S3Server> {
    static SERVER: OnceLock<Result<S3Server, String>> = OnceLock::new();
    or_skip(
        SERVER
            .get_or_init(S3Server::start)
            .as_ref()
            .map_err(Clone::clone),
    )
}

pub(super) fn bucket() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("workstation-{}-{number}", std::process::id());
    if let Some(server) = server() {
        server.make_bucket(&name);
    }
    name
}

fn url(bucket: &str, endpoint: &str) -> String {
    format!("s3://{bucket}/crashes?endpoint={endpoint}&timeout=20")
}

impl Workstation {
    fn s3_command(&self, store: &str, keys: S3Keys, words: &[&str]) -> Command {
        let mut command = self.command(words);
        command
            .env("CDH_STORE", store)
            .env("AWS_ACCESS_KEY_ID", keys.access)
            .env("AWS_SECRET_ACCESS_KEY", keys.secret)
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    pub(super) fn s3(&self, store: &str, words: &[&str]) -> Answer {
        self.answer(self.s3_command(store, ADMIN, words).output().unwrap())
    }

    /// Seals a dump with a core of so many megabytes that no compression shortens; a spool of the agent.
    fn seal(&self, spool: &Path, megabytes: usize) -> Manifest {
        let mut state = 88_172_645_463_325_252_u64;
        let mut core = Vec::with_capacity(megabytes << 20);
        while core.len() < megabytes << 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Holes too: every fourth block of 64 KiB is empty.
            let word = if core.len() >> 16 & 3 == 3 { 0 } else { state };
            core.extend(word.to_le_bytes());
        }
        let id = DumpId::random();
        let mut entry = EntryDir::create(spool, id).unwrap();
        let kind = EntryKind::Core(CoreEncoding::ZstdSeekable);
        let file = entry.create_file(&kind).unwrap();
        let mut writer = SeekableWriter::new(file, 1, SEEKABLE_FRAME).unwrap();
        std::io::copy(&mut core.as_slice(), &mut writer).unwrap();
        let (_, stored) = writer.finish().unwrap().0.finish();
        entry.record(&kind, stored);
        let found = Digests::of(&core);
        let manifest = serde_json::json!({
            "schema": 1, "id": id, "stem": "dump", "captured_at": "2026-01-31T12:34:56Z",
            "process": {"pid": 7, "name": "app"}, "signal": {"number": 11, "name": "SIGSEGV"},
            "verdict": cdh_bundle::Verdict::Complete,
            "core": CoreRecord {
                entry: kind.bundle_name("dump"),
                encoding: CoreEncoding::ZstdSeekable,
                size: found.size,
                expected: found.size,
                sha256: Some(found.sha256),
            },
        });
        let manifest: Manifest = serde_json::from_value(manifest).unwrap();
        entry.seal(manifest.clone()).unwrap();
        manifest
    }

    /// An agent that ships what is in its spool.
    fn agent(&self, store: &str) -> std::process::Child {
        let state = self.path("state").display().to_string();
        let words = ["agent", "run", "--state", &state, "--libexec", &state];
        let mut command = self.s3_command(store, ADMIN, &words);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"));
        command.stderr(log.unwrap()).spawn().unwrap()
    }

    fn spool(&self) -> PathBuf {
        let spool = self.path("state/spool");
        if !spool.exists() {
            fs::create_dir_all(&spool).unwrap();
            for place in ["state", "state/spool"] {
                let private = fs::Permissions::from_mode(0o700);
                fs::set_permissions(self.path(place), private).unwrap();
            }
        }
        spool
    }

    fn waits_for_log(&self, line: &str) {
        let begun = Instant::now();
        let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
        while !log().contains(line) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn waits_until_spool_is_empty(&self, patience: Duration) {
        let begun = Instant::now();
        let is_dump = |item: std::io::Result<fs::DirEntry>| {
            let name = item.unwrap().file_name();
            name.to_str().is_some_and(|name| name.len() == 36)
        };
        while fs::read_dir(self.spool()).unwrap().any(is_dump) {
            let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(begun.elapsed() < patience, "{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn stop(mut agent: std::process::Child) {
    agent.kill().unwrap();
    agent.wait().unwrap();
}

fn sha256(path: &Path) -> cdh_bundle::Sha256 {
    Digests::of_reader(fs::File::open(path).unwrap())
        .unwrap()
        .sha256
}

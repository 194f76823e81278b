//! The store in a bucket under load, against a real server, and looked at by an independent client.
//!
//! ```text
//! cargo xtask soak-s3 [--dumps N] [--seed N]      uploads with faults, kills and restarts; each compared
//! cargo xtask bench upload [--gib N] [--runs N]   against `aws s3 cp`, with peak memory
//! cargo xtask bench fetch [--mib N]               cut five times; and what `cdh bt` moves
//! cargo xtask bench listing [--dumps N]           requests of `cdh ls`
//! cargo xtask bench groups [--dumps N]            time and requests of `cdh groups`
//! cargo xtask test-s3-peers                       the store's tests against another server
//! ```

mod fetch;
mod groups;
mod listing;
mod peers;
mod soak;
mod upload;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};
use cdh_bundle::{
    CoreEncoding, DumpId, EntryDir, EntryKind, Manifest, SEEKABLE_FRAME, SeekableWriter,
};
use cdh_testkit::{ADMIN, S3Server};
use serde_json::json;

use crate::options::Options;
use crate::{build, python};

pub(crate) use peers::test_peers;
pub(crate) use soak::soak;

/// The independent client.
const BOTO: &str = "boto3==1.43.11\n";
/// `aws s3 cp`.
const AWSCLI: &str = "awscli==1.45.11\n";

/// Measures what the word says.
pub(crate) fn bench(what: &str, words: &[String]) -> Result<()> {
    let option = |name: &str, usual: u64| {
        let usage = format!("usage: cargo xtask bench {what} [{name} N]");
        Options::parse(words, &[name], &[], &usage)?.or(name, usual)
    };
    match what {
        "upload" => {
            let usage = "usage: cargo xtask bench upload [--gib N] [--runs N]";
            let options = Options::parse(words, &["--gib", "--runs"], &[], usage)?;
            upload::run(options.or("--gib", 4)?, options.or("--runs", 5)?)
        }
        "fetch" => fetch::run(option("--mib", 2200)?),
        "groups" => groups::run(option("--dumps", 100_000)?),
        "listing" => listing::run(option("--dumps", 100_000)?),
        _ => bail!("nothing to measure is called `{what}`"),
    }
}

/// Bucket that everything is measured in.
const BUCKET: &str = "crashes";

/// A place with a server, and `cdh` with the keys to it.
struct S3Bench {
    directory: tempfile::TempDir,
    cdh: PathBuf,
    server: S3Server,
}

impl S3Bench {
    /// With a fast `cdh`, as users have it.
    fn new() -> Result<Self> {
        let cdh = build::cdh_release()?;
        let weed = python::weed().context("no S3 server is available")?;
        let server = S3Server::start_program(weed);
        server.make_bucket(BUCKET);
        let directory = tempfile::tempdir()?;
        Ok(Self {
            directory,
            cdh,
            server,
        })
    }

    /// An empty server in place of the one before.
    fn new_server(&mut self) -> Result<()> {
        let weed = python::weed().context("no S3 server is available")?;
        self.server.kill();
        self.server = S3Server::start_program(weed);
        self.server.make_bucket(BUCKET);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn cdh(&self, endpoint: &str, words: &[&str]) -> Command {
        let mut command = Command::new(&self.cdh);
        command
            .args(words)
            .current_dir(self.directory.path())
            .env(
                "CDH_STORE",
                format!("s3://{BUCKET}/here?endpoint={endpoint}&timeout=30"),
            )
            .env("AWS_ACCESS_KEY_ID", ADMIN.access)
            .env("AWS_SECRET_ACCESS_KEY", ADMIN.secret)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    /// An agent that ships what is in the spool.
    fn agent(&self, endpoint: &str) -> Result<Child> {
        let state = self.path("state").display().to_string();
        let words = ["agent", "run", "--state", &state, "--libexec", &state];
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))?;
        Ok(self.cdh(endpoint, &words).stderr(log).spawn()?)
    }

    fn spool(&self) -> Result<PathBuf> {
        let spool = self.path("state/spool");
        fs::create_dir_all(&spool)?;
        for place in [self.path("state"), spool.clone()] {
            fs::set_permissions(place, fs::Permissions::from_mode(0o700))?;
        }
        Ok(spool)
    }

    fn is_spool_empty(&self) -> Result<bool> {
        let mut items = fs::read_dir(self.path("state/spool"))?.flatten();
        Ok(!items.any(|item| item.file_name().len() == 36))
    }

    /// Runs `cdh` to its end and insists on success; what it printed.
    fn output(&self, endpoint: &str, words: &[&str]) -> Result<String> {
        let output = self.cdh(endpoint, words).output()?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        bail!("cdh {words:?}: {}", String::from_utf8_lossy(&output.stderr))
    }
}

/// Bytes that no compression shortens.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }
}

/// Seals a dump with a core of so many bytes of noise.
fn seal(spool: &Path, noise: &mut Noise, size: u64) -> Result<DumpId> {
    let id = DumpId::random();
    let mut entry = EntryDir::create(spool, id)?;
    let kind = EntryKind::Core(CoreEncoding::ZstdSeekable);
    let mut writer = SeekableWriter::new(entry.create_file(&kind)?, 1, SEEKABLE_FRAME)?;
    let mut digest = cdh_bundle::DigestWriter::new(std::io::sink());
    let mut buffer = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        let part = &mut buffer[..usize::try_from(left.min(1 << 20))?];
        noise.fill(part);
        writer.write_all(part)?;
        digest.write_all(part)?;
        left -= part.len() as u64;
    }
    let (_, stored) = writer.finish()?.0.finish();
    entry.record(&kind, stored);
    let (_, core) = digest.finish();
    let manifest: Manifest = serde_json::from_value(json!({
        "schema": 1, "id": id, "stem": "dump", "captured_at": "2026-01-31T12:34:56Z",
        "process": {"pid": 7, "name": "app"}, "signal": {"number": 11, "name": "SIGSEGV"},
        "verdict": cdh_bundle::Verdict::Complete,
        "core": cdh_bundle::CoreRecord {
            entry: kind.bundle_name("dump"),
            encoding: CoreEncoding::ZstdSeekable,
            size: core.size,
            expected: core.size,
            sha256: Some(core.sha256),
        },
    }))?;
    entry.seal(manifest)?;
    Ok(id)
}

//! Who takes the cores: our handler in its ways, and others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use cdh_testkit::Program;

use crate::{build, tools};

/// Our handler's arguments.
pub(crate) const OUR_ARGUMENTS: &str = "P%P I%I p%p i%i s%s t%t d%d u%u g%g F%F h%h e%e";

/// A handler of cores.
pub(crate) struct Peer {
    /// Its name in the table.
    pub name: String,
    /// Contents of `core_pattern`.
    pub pattern: String,
    /// Settings of our handler.
    pub settings: Option<serde_json::Value>,
    /// Where its output goes.
    pub output: PathBuf,
    /// Processes that measure themselves for each crash.
    pub meters: usize,
    _service: Option<Service>,
}

/// A process that is ended when it is dropped.
pub(crate) struct Service {
    process: Child,
    socket: PathBuf,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// The place of a measurement.
pub(crate) struct Bench {
    /// On a disk, with a short name: a pattern has 127 bytes.
    pub directory: tempfile::TempDir,
}

impl Bench {
    /// Builds what is needed.
    pub(crate) fn prepare() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("cdhb")
            .rand_bytes(4)
            .tempdir()?;
        let bench = Self { directory };
        fs::copy(build::handler()?, bench.path("cdh-handler"))?;
        Program::Meter.build(bench.directory.path())?;
        Program::Crash.build(bench.directory.path())?;
        fs::create_dir(bench.path("out"))?;
        Ok(bench)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the meters write.
    pub(crate) fn usage(&self) -> PathBuf {
        self.path("usage")
    }

    /// A peer's pattern past the meter: of many handlers, two processes for each would be ours.
    pub(crate) fn unmetered(&self, peer: &Peer) -> String {
        let meter = self.metered("");
        match peer.pattern.strip_prefix(&meter) {
            Some(command) => format!("|{command}"),
            None => peer.pattern.clone(),
        }
    }

    fn metered(&self, command: &str) -> String {
        let (meter, usage) = (self.path("meter"), self.usage());
        format!("|{} {} {command}", meter.display(), usage.display())
    }

    fn script(&self, name: &str, text: &str) -> Result<String> {
        let path = self.path(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        Ok(path.display().to_string())
    }

    fn peer(&self, name: &str, pattern: String) -> Peer {
        Peer {
            name: name.to_owned(),
            pattern,
            settings: None,
            output: self.path("out"),
            meters: 1,
            _service: None,
        }
    }

    /// Our handler with these settings.
    pub(crate) fn ours(&self, name: &str, mut settings: serde_json::Value) -> Peer {
        let handler = self.path("cdh-handler");
        settings["spool"] = serde_json::json!(self.path("out").join("spool"));
        settings["state"] = serde_json::json!(self.path("state"));
        settings["fallback"] = serde_json::json!(self.path("run"));
        Peer {
            settings: Some(settings),
            ..self.peer(
                name,
                self.metered(&format!("{} {OUR_ARGUMENTS}", handler.display())),
            )
        }
    }

    /// The kernel itself.
    pub(crate) fn plain_file(&self) -> Peer {
        let core = self.path("out").join("core");
        Peer {
            meters: 0,
            ..self.peer("kernel, plain file", core.display().to_string())
        }
    }

    /// `cat > file`.
    pub(crate) fn cat(&self) -> Result<Peer> {
        let out = self.path("out").join("core");
        let text = format!(
            "#!/bin/sh\nPATH=/usr/bin:/bin exec cat > {}.$$\n",
            out.display()
        );
        Ok(self.peer("cat", self.metered(&self.script("cat.sh", &text)?)))
    }

    /// `zstd -1`, with the threads it likes.
    pub(crate) fn zstd(&self) -> Result<Option<Peer>> {
        if !tools::is_there("zstd") {
            eprintln!("skipped: zstd is not here");
            return Ok(None);
        }
        let out = self.path("out").join("core.zst");
        let text = format!(
            "#!/bin/sh\nPATH=/usr/bin:/bin exec zstd -1 -q -T0 -f -o {}.$$\n",
            out.display()
        );
        let script = self.script("zstd.sh", &text)?;
        Ok(Some(self.peer("zstd -1 -T0", self.metered(&script))))
    }

    /// Any other handler; `{out}` in its command is replaced by the directory of its output.
    pub(crate) fn other(&self, given: &str) -> Result<Peer> {
        let (name, command) = given
            .split_once('=')
            .context("a peer is given as NAME=COMMAND")?;
        let output = self.path("out").display().to_string();
        Ok(self.peer(name, self.metered(&command.replace("{out}", &output))))
    }

    /// Debian's, unpacked beside us: installed, it would change the kernel's settings. Its socket is
    /// served by systemd's own `systemd-socket-activate`.
    pub(crate) fn systemd(&self) -> Result<Option<Peer>> {
        let root = self.path("systemd");
        fs::create_dir_all(&root)?;
        let packages = [
            "systemd",
            "systemd-coredump",
            "libsystemd-shared",
            "libsystemd0",
        ];
        let unpacked = Command::new("sh")
            .current_dir(&root)
            .args([
                "-c",
                "apt-get download \"$@\" && for one in *.deb; do dpkg -x \"$one\" .; done",
                "sh",
            ])
            .args(packages)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let handler = root.join("lib/systemd/systemd-coredump");
        let activate = root.join("usr/bin/systemd-socket-activate");
        if !unpacked.is_ok_and(|status| status.success()) || !handler.is_file() {
            eprintln!("skipped: Debian's systemd-coredump cannot be downloaded");
            return Ok(None);
        }
        let output = PathBuf::from("/var/lib/systemd/coredump");
        fs::create_dir_all(&output)?;
        let socket = Path::new("/run/systemd/coredump");
        fs::create_dir_all("/run/systemd")?;
        let _ = fs::remove_file(socket);
        let libraries = format!(
            "{0}/usr/lib/x86_64-linux-gnu/systemd:{0}/usr/lib/x86_64-linux-gnu:{0}/lib/x86_64-linux-gnu",
            root.display()
        );
        // The kernel gives no environment, so a script has to.
        let text = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {} \"$@\"\n",
            handler.display()
        );
        let script = self.script("sd.sh", &text)?;
        let service = Command::new(activate)
            .env("LD_LIBRARY_PATH", &libraries)
            .args(["--accept", "--seqpacket", "-l"])
            .arg(socket)
            .arg(self.path("meter"))
            .args([self.usage().display().to_string(), script.clone()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let service = Service {
            process: service,
            socket: socket.to_owned(),
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while !socket.exists() {
            if std::time::Instant::now() > deadline {
                eprintln!("skipped: systemd-coredump's socket does not come up");
                return Ok(None);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let pattern = self.metered(&format!("{script} %P %u %g %s %t 9223372036854775808 %h"));
        Ok(Some(Peer {
            output,
            meters: 2,
            _service: Some(service),
            ..self.peer("systemd-coredump", pattern)
        }))
    }
}

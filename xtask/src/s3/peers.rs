//! The store's tests against another make of server: moto, which neither checks keys nor enforces
//! checksums, and so shows what we rely on.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{build, python};

const MOTO: &str = "moto[server,s3]==5.2.5\n";

pub(crate) fn test_peers() -> Result<()> {
    let packages = python::install("moto-5.2.5", MOTO, &[])?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port();
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", &packages)
        .args([
            "-c",
            "from moto.server import main; main()",
            "-p",
            &port.to_string(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut server = command.spawn()?;
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(
            begun.elapsed() < Duration::from_secs(60),
            "moto does not start"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let outcome = build::store_tests(port);
    server.kill()?;
    server.wait()?;
    outcome
}
